"""Speech corpora as their makers lay them out, as records: where their tables leave out what a manifest would say.

Which file of a corpus is whose is known by its columns and its place beside the others; each function names its source.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fsspec.spec import AbstractFileSystem

from spire_ray.errors import UserError
from spire_ray.manifest import Record, csv_records, opened, text_lines

TRANSCRIPTS = "transcripts.txt"  # of Multilingual LibriSpeech
SEGMENTS = "segments.lst"  # of Europarl-ST
COVOST = re.compile(r"covost_v\d\.(?P<source>[a-z]+)[A-Za-z-]*_(?P<target>[a-z]+)[A-Za-z-]*\..+")
_COMMON_VOICE = {"client_id", "path", "sentence"}
_VOXPOPULI = {"id", "raw_text", "normalized_text", "speaker_id", "split"}
_SPGISPEECH = {"wav_filename", "wav_filesize", "transcript"}
_COVOST_WHOLE = {"path", "translation", "split"}  # before the makers' script joined it with Common Voice
_FLEURS = ("prompt", "file", "raw_transcription", "transcription", "letters", "num_samples", "gender")
_FLEURS_RATE = 16_000
_ESCAPED = re.compile(r"\\(.)")

Row = Mapping[str, Any]


def adapter(fs: AbstractFileSystem, path: str, kind: str, columns: frozenset[str]) -> Callable[[Row], Row] | None:
    """What makes a row of a corpus's own table one of a manifest; None for a table that is a manifest as it is.

    Common Voice and CoVoST 2 (`clips/` beside the table), VoxPopuli (`asr_*.tsv`, `<year>/<id>.ogg`), SPGISpeech
    (`train.csv`, `train/<call>/<n>.wav`).
    """
    covost = COVOST.fullmatch(posixpath.basename(path)) if kind == "tsv" and "translation" in columns else None
    if covost and (columns >= _COMMON_VOICE or columns >= _COVOST_WHOLE):
        return lambda row: _covost(row, covost["target"])
    if kind == "tsv" and columns >= _COMMON_VOICE:
        return _common_voice
    if kind == "tsv" and columns >= _VOXPOPULI and "path" not in columns:
        return _voxpopuli
    if kind == "psv" and columns >= _SPGISPEECH:
        stem = posixpath.splitext(posixpath.basename(path))[0]
        inside = "" if fs.isdir(f"{posixpath.dirname(path)}/{stem}") else "spgispeech/"
        return lambda row: _spgispeech(row, f"{inside}{stem}")
    return None


def _common_voice(row: Row) -> Row:
    path = row["path"]
    if path and "/" not in path:
        # Up to release 3 names had no extension.
        path = f"clips/{path}" if posixpath.splitext(path)[1] else f"clips/{path}.mp3"
    said, speaker = row.get("sentence"), row.get("client_id")
    return {"audio": path, "reference": said, "speaker": speaker, "language": row.get("locale")}


def _covost(row: Row, target: str) -> Row:
    """The makers' script writes without quotes and escapes with a backslash (`get_covost_splits.py`)."""
    plain = {name: _ESCAPED.sub(r"\1", value) for name, value in row.items() if isinstance(value, str)}
    return {**_common_voice(plain), "references": [{"language": target, "text": plain["translation"]}]}


def _voxpopuli(row: Row) -> Row:
    """`get_asr_data.py` writes `<year>/<id>.ogg`, where ids begin with the year."""
    name = str(row["id"])
    said = row["normalized_text"] or row["raw_text"]
    return {"id": name, "audio": f"{name[:4]}/{name}.ogg", "reference": said, "speaker": row["speaker_id"]}


def _spgispeech(row: Row, folder: str) -> Row:
    name = row["wav_filename"]
    return {"audio": f"{folder}/{name}" if name else None, "reference": row["transcript"]}


def fleurs(fs: AbstractFileSystem, path: str) -> Iterator[Record]:
    """A table of FLEURS (`data/<language>/<split>.tsv`), with the same sentences of the languages that lie beside it.

    Audio is what the split's tar file holds: `audio/<split>/<file>`, or `<split>/<file>`. Sentences are joined by their
    first column, which is FLoRes' number and the same in all languages.
    """
    folder, name = posixpath.split(path)
    split = name.partition(".")[0]
    audio = f"audio/{split}" if fs.isdir(f"{folder}/audio/{split}") else split
    others = _fleurs_sentences(fs, folder, name)
    for record in _fleurs_rows(fs, path):
        row = record.values
        if record.problem:
            yield record
            continue
        seconds = float(row["num_samples"]) / _FLEURS_RATE if str(row["num_samples"]).isdigit() else None
        said = [{"language": language, "text": one[row["prompt"]]} for language, one in others if row["prompt"] in one]
        values = {
            "audio": f"{audio}/{row['file']}",
            "duration": seconds,
            "reference": row["raw_transcription"],
            "references": said,
            "language": _fleurs_language(posixpath.basename(folder)),
        }
        yield Record(record.where, values)


def _fleurs_rows(fs: AbstractFileSystem, path: str) -> Iterator[Record]:
    with opened(fs, path) as stream:
        yield from csv_records(stream, "\t", _FLEURS)


def _fleurs_sentences(fs: AbstractFileSystem, folder: str, name: str) -> list[tuple[str, dict[str, str]]]:
    own = _fleurs_language(posixpath.basename(folder))
    found = []
    for info in sorted(fs.ls(posixpath.dirname(folder), detail=True), key=lambda info: str(info["name"])):
        place = str(info["name"]).rstrip("/")
        language = _fleurs_language(posixpath.basename(place))
        if language and language != own and info["type"] == "directory" and fs.exists(f"{place}/{name}"):
            rows = [record.values for record in _fleurs_rows(fs, f"{place}/{name}") if not record.problem]
            found.append((language, {row["prompt"]: row["raw_transcription"] for row in rows}))
    return found


def _fleurs_language(folder: str) -> str | None:
    """`en_us` is en; `cmn_hans_cn` is zh. None for a folder that is not one of a language."""
    match = re.fullmatch(r"([a-z]{2,3})(_[a-z0-9]+)+", folder)
    return {"cmn": "zh", "yue": "yue"}.get(match[1], match[1]) if match else None


def multilingual_librispeech(fs: AbstractFileSystem, folder: str) -> Iterator[Record]:
    """A split of Multilingual LibriSpeech: `transcripts.txt`, `audio/<speaker>/<book>/<id>.flac` (or .opus).

    Durations are from `segments.txt`, whose lines are those of transcripts.txt. The audio itself is not listed.
    """
    seconds = _mls_seconds(fs, f"{folder}/segments.txt")
    extension = ""
    with opened(fs, f"{folder}/{TRANSCRIPTS}") as stream:
        for record in text_lines(stream):
            name, tab, said = record.values.get("text", "").partition("\t")
            fields = name.split("_")
            if record.problem or not tab or len(fields) != 3:
                where = f"{TRANSCRIPTS} {record.where}"
                yield Record(where, {}, record.problem or "not <speaker>_<book>_<number>, a tab and the text")
                continue
            stem = f"audio/{fields[0]}/{fields[1]}/{name}"
            extension = extension or (".opus" if fs.exists(f"{folder}/{stem}.opus") else ".flac")
            values = {"id": name, "audio": stem + extension, "reference": said, "speaker": fields[0]}
            yield Record(f"{TRANSCRIPTS} {record.where}", values | {"duration": next(seconds, {}).get(name)})


def _mls_seconds(fs: AbstractFileSystem, path: str) -> Iterator[dict[str, float]]:
    if not fs.exists(path):
        return
    with opened(fs, path) as stream:
        for record in text_lines(stream):
            fields = record.values.get("text", "").split()
            try:
                yield {fields[0]: float(fields[-1]) - float(fields[-2])}
            except (IndexError, ValueError):
                yield {}


def europarl_st(fs: AbstractFileSystem, folder: str, extensions: frozenset[str]) -> Iterator[Record]:
    """One direction and split of Europarl-ST (`<source>/<target>/<split>/segments.lst`, audio in `<source>/audios/`).

    UserError when the audio is still the M4A of the release, or the files differ in their numbers of lines.
    """
    source = posixpath.dirname(posixpath.dirname(folder))
    languages = posixpath.basename(source), posixpath.basename(posixpath.dirname(folder))
    audios = {posixpath.splitext(str(path)) for path in fs.ls(f"{source}/audios", detail=False)}
    paths = {posixpath.basename(stem): stem + end for stem, end in sorted(audios) if end.lower() in extensions}
    if not paths:
        kinds = " ".join(sorted({end for _, end in audios}))
        raise UserError(f"{source}/audios holds {kinds or 'nothing'}: convert it to FLAC of the same names")
    columns = [_lines(fs, f"{folder}/{SEGMENTS}"), *(_lines(fs, f"{folder}/segments.{one}") for one in languages)]
    if len({len(column) for column in columns}) != 1:
        raise UserError(f"{folder}: {SEGMENTS}, segments.{languages[0]} and segments.{languages[1]} differ in lines")
    for at, (place, said, translated) in enumerate(zip(*columns, strict=True), 1):
        where = f"{languages[1]}/{posixpath.basename(folder)}/{SEGMENTS} line {at}"
        fields = place.split()
        if len(fields) != 3:
            yield Record(where, {}, f"{len(fields)} fields, not audio, start and end")
            continue
        values = {
            # Europarl-ST has no ids: those of segments.
            "id": f"{fields[0]}#{_milliseconds(fields[1])}-{_milliseconds(fields[2])}",
            "audio": paths.get(fields[0], f"{source}/audios/{fields[0]}.flac"),
            "start": fields[1],
            "end": fields[2],
            "recording_id": fields[0],
            "reference": said,
            "references": [{"language": languages[1], "text": translated}],
            "language": languages[0],
        }
        yield Record(where, values)


def _milliseconds(seconds: str) -> str:
    try:
        return str(round(float(seconds) * 1000))
    except (ValueError, OverflowError):
        return seconds  # which is told when the row is planned


def _lines(fs: AbstractFileSystem, path: str) -> list[str]:
    if not fs.exists(path):
        raise UserError(f"{path} is missing")
    with fs.open(path, "rb") as stream:
        return stream.read().decode("utf-8", "replace").splitlines()  # type: ignore[no-any-return]
