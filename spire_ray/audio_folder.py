"""Audio files as records, with the length that headers tell, and LibriSpeech's transcripts where they lie there."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fsspec.spec import AbstractFileSystem

from spire_ray import headers
from spire_ray.ahead import ahead
from spire_ray.errors import RowFault
from spire_ray.locations import etag_of, patiently, uri_of
from spire_ray.manifest import Record, opened, text_lines

TRANSCRIPTS = ".trans.txt"  # <speaker>-<chapter>.trans.txt of LibriSpeech, beside the chapter's FLAC files
READ = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
NOT_READ = frozenset(
    {
        ".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mka", ".g722", ".gsm", ".amr", ".awb", ".ape", ".wv", ".tta",
        ".aif", ".aiff", ".au", ".snd", ".caf", ".sph", ".raw", ".pcm", ".mp2", ".ac3", ".spx", ".w64", ".rf64", ".3gp",
    }
)  # fmt: skip
_PROBES = 32  # at a time: each waits for storage more than it computes

Info = Mapping[str, Any]


def records(fs: AbstractFileSystem, root: str, infos: Iterable[Info], transcripts: Iterable[str]) -> Iterator[Record]:
    """A record for each file of `infos` (fsspec's, sorted by name); its id is its path below `root`.

    `transcripts`: paths of LibriSpeech's `.trans.txt` files, each read when its folder comes.
    """
    said_in: dict[str, list[str]] = {}
    for path in transcripts:
        said_in.setdefault(posixpath.dirname(path), []).append(path)
    folder, said = "", dict[str, str]()
    for info, (seconds, etag) in ahead(lambda info: _header(fs, info), infos, _PROBES):
        path = info["name"]
        if posixpath.dirname(path) != folder:
            folder = posixpath.dirname(path)
            said = _sentences(fs, said_in.get(folder, []))
        place = {
            "utterance_id": posixpath.relpath(path, root),
            "audio_uri": uri_of(fs, path),
            "byte_size": info["size"],
            "duration_s": seconds,
            "etag": etag,
        }
        stem = posixpath.splitext(posixpath.basename(path))[0]
        values = {"reference": said[stem], "speaker": stem.partition("-")[0]} if stem in said else {}
        yield Record(ascii(path), values, place=place)


def _sentences(fs: AbstractFileSystem, paths: Iterable[str]) -> dict[str, str]:
    """LibriSpeech: `<speaker>-<chapter>-<utterance> WHAT IS SAID`, a line each."""
    said = {}
    for path in paths:
        with opened(fs, path) as stream:
            for record in text_lines(stream):
                name, _, sentence = record.values.get("text", "").partition(" ")
                said[name] = sentence.strip()
    return said


def _header(fs: AbstractFileSystem, info: Info) -> tuple[float | None, str | None]:
    etag = None
    try:
        etag = patiently(info["name"], lambda: etag_of(fs, info))
        return patiently(info["name"], lambda: _probe(fs, info["name"])), etag
    except RowFault:
        return None, etag  # what is wrong with the file is found, and told, when it is read
    except FileNotFoundError:
        return None, None


def _probe(fs: AbstractFileSystem, path: str) -> float | None:
    # Headers are small: object storage would otherwise send megabytes for each.
    with fs.open(path, "rb", block_size=65_536) as file:
        return headers.seconds(file)
