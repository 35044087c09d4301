"""WebDataset tar shards as records: a member's place from the headers alone, so that one is read without the others.

A sample is the members in a row whose names agree up to the first dot; its audio is the utterance, `.json` beside it
its columns and `.txt` its text (https://github.com/webdataset/webdataset, "The WebDataset Format"). The headers are
read by ranges of 16 KiB: what is small comes with them, audio is jumped over. The index is the plan itself.
"""

import io
import itertools
import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fsspec.spec import AbstractFileSystem

from spire_ray import containers, headers
from spire_ray.ahead import ahead
from spire_ray.errors import RowFault
from spire_ray.locations import etag_of, patiently, uri_of
from spire_ray.manifest import GZIP, NAMES, Record, refuse_packed

SHARDS_AT_ONCE = 32  # each waits for storage more than it computes
WINDOW = 16 << 10
MAX_SIDE_BYTES = 4 << 20  # of a member that is not audio
_SIDE = (".json", ".txt")
_BY_HEADER = ("WAV", "FLAC")  # their length is in their first bytes; of others it is at the end, or nowhere
_ELSEWHERE = frozenset({*NAMES["start"], *NAMES["end"], *NAMES["offset"]})  # of a recording the member was cut from


def records(
    fs: AbstractFileSystem, shards: Iterable[tuple[str, Mapping[str, Any]]], extensions: frozenset[str]
) -> Iterator[Record]:
    """A record for each member with one of `extensions` in `shards`, which are (id, fsspec info) of tar files.

    The id is the JSON's, else `<shard id>#<member>`. The end of a damaged shard is one record with a problem.
    """
    for _, found in ahead(lambda shard: _index(fs, shard[0], shard[1], extensions), shards, SHARDS_AT_ONCE):
        yield from found


@dataclass(frozen=True, slots=True)
class _Part:
    """A member that a sample needs, with what was read of it while its header was at hand."""

    name: str
    extension: str
    offset: int
    size: int
    seconds: float | None = None  # of audio
    content: bytes | None = None  # of .json and .txt


def _index(fs: AbstractFileSystem, shard: str, info: Mapping[str, Any], extensions: frozenset[str]) -> list[Record]:
    ranges = _Ranges(fs, info["name"], int(info["size"]))
    refuse_packed(info["name"], ranges.read(0, len(GZIP)))
    view: Any = _View(ranges, 0, ranges.size)
    common = {"audio_uri": uri_of(fs, info["name"]), "etag": etag_of(fs, info)}
    found: list[Record] = []
    try:
        with tarfile.open(fileobj=view, mode="r:") as archive:
            for _, sample in itertools.groupby(_parts(archive, ranges, extensions), lambda part: _key(part.name)):
                found += _sample(list(sample), shard, common, extensions)
            _check_end(archive, ranges)
    except (tarfile.TarError, EOFError) as fault:
        found.append(Record(f"{shard} byte {view.tell()}", {}, f"the tar file is damaged or cut: {fault}"))
    return found


def _parts(archive: tarfile.TarFile, ranges: "_Ranges", extensions: frozenset[str]) -> Iterator[_Part]:
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # it would keep every one
        name, offset, size = posixpath.normpath(member.name), member.offset_data, member.size
        # A Mac leaves `._a.wav` beside `a.wav`.
        if not member.isreg() or member.issparse() or posixpath.basename(name).startswith("."):
            continue
        extension = posixpath.splitext(name)[1].lower()
        if extension in extensions:
            yield _Part(name, extension, offset, size, seconds=_seconds(ranges, offset, size))
        elif extension in _SIDE:
            content = ranges.read(offset, offset + size) if size <= MAX_SIDE_BYTES else None
            yield _Part(name, extension, offset, size, content=content)


def _key(name: str) -> str:
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])


def _check_end(archive: tarfile.TarFile, ranges: "_Ranges") -> None:
    """Python's reader takes a header that it cannot read for the end: the end is a block of zeros, or of the file."""
    if ranges.read(archive.offset, archive.offset + tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("no header where one must be")


def _sample(parts: list[_Part], shard: str, common: Mapping[str, Any], extensions: frozenset[str]) -> Iterator[Record]:
    sound = [part for part in parts if part.extension in extensions]
    if not sound:
        return
    try:
        values, problem = _values(parts), ""
    except RowFault as fault:
        values, problem = {}, fault.detail
    if len(sound) > 1:  # an id of the sample would be that of each of its files
        values = {key: value for key, value in values.items() if key.lower() not in NAMES["id"]}
    for part in sound:
        place = {
            "utterance_id": f"{shard}#{part.name}",
            "byte_offset": part.offset,
            "byte_size": part.size,
            "duration_s": part.seconds,
        }
        yield Record(f"{shard} {part.name}", values, problem, {**common, **place})


def _values(parts: list[_Part]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    said = None
    for part in parts:
        if part.extension not in _SIDE:
            continue
        if part.content is None:
            raise RowFault("bad_manifest_row", f"{part.name} has {part.size} bytes, at most {MAX_SIDE_BYTES} are read")
        try:
            text = part.content.decode()
            content = json.loads(text) if part.extension == ".json" else text.strip()
        except (ValueError, RecursionError) as fault:
            raise RowFault("bad_manifest_row", f"{part.name}: {fault}") from None
        if isinstance(content, dict):
            values |= {key: value for key, value in content.items() if key.lower() not in _ELSEWHERE}
        elif part.extension == ".txt":
            said = content
    if said is not None and not any(values.get(name) for name in NAMES["reference"]):
        values["reference"] = said
    return values


def _seconds(ranges: "_Ranges", offset: int, size: int) -> float | None:
    """By the first bytes of WAV and FLAC; None for others, and for what is not what its name says."""
    inside: Any = _View(ranges, offset, size)
    try:
        if containers.identify(inside.read(64)) not in _BY_HEADER:
            return None
        inside.seek(0)
        return headers.seconds(inside)
    except RowFault:
        return None


class _Ranges:
    """An object's bytes by ranges: each fetch brings at least 16 KiB, and what lies in the last one costs none."""

    def __init__(self, fs: AbstractFileSystem, path: str, size: int) -> None:
        self.fs, self.path, self.size = fs, path, size
        self.first = 0
        self.held = b""

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, or to the object's end where that comes first."""
        end = min(end, self.size)
        if end <= start:
            return b""
        if start < self.first or end > self.first + len(self.held):
            last = min(max(end, start + WINDOW), self.size)
            self.held = patiently(self.path, lambda: self.fs.cat_file(self.path, start=start, end=last))
            self.first = start
        return self.held[start - self.first : end - self.first]


class _View:
    """Part of an object as a file: what tarfile and soundfile ask of one."""

    def __init__(self, ranges: _Ranges, offset: int, size: int) -> None:
        self.ranges, self.offset, self.size = ranges, offset, size
        self.at = 0

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.at + size, self.size)
        data = self.ranges.read(self.offset + self.at, self.offset + end)
        self.at += len(data)
        return data
