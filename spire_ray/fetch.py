"""Which bytes of which objects a shard's rows want, merged into few requests, and the requests themselves.

A row wants a whole object, or a range of one (a member of a tar). Neighbouring ranges become one request.
"""

import errno
import hashlib
import itertools
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from spire_ray.decoders import Place
from spire_ray.errors import MachineFault, RowFault, UserError
from spire_ray.locations import etag_of, locate, patiently

MAX_OBJECT_BYTES = 2 << 30  # of one audio file, by itself or inside another
MAX_RECORDING_BYTES = 16 << 30  # of one of which the plan wants intervals: they are decoded from a copy on a disk
REQUEST_BYTES = 8 << 20  # ranges are merged up to here: at 50 ms to the first byte, most of the time is transfer
GAP_BYTES = 128 << 10  # between two merged ranges: a tar's headers and text, not another recording
WASTE = 0.25  # of a merged request's bytes, the most that nobody wants
SPOOL_BYTES = 64 << 20  # what is larger is put into a temporary file, so that memory holds none of it
_SPOOL_PART = 8 << 20
_SPOOL_PARTS = 4  # at a time
_MD5 = re.compile(r"[0-9a-f]{32}")  # what an ETag looks like that may be one
_OTHER_TAGS: set[str] = set()  # buckets whose ETags only look like it, as those encrypted by a key service

Fetched = bytes | BinaryIO  # in memory, or a temporary file


@dataclass(frozen=True, slots=True)
class Piece:
    """What one row wants of an object: a part of its bytes, a row of its Parquet, an interval of that sound."""

    row: int
    row_index: int | None
    start_s: float | None
    end_s: float | None
    first: int = 0
    size: int | None = None  # None: to the object's end
    duration_s: float | None = None  # as planned


@dataclass(frozen=True, slots=True)
class Object:
    """An object as it was when planned, and what is wanted of it."""

    uri: str
    etag: str | None
    ranges: bool  # whether the plan knows where in it the pieces lie
    pieces: list[Piece] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes `start` to `stop` of an object, and the pieces that lie in them."""

    fs: AbstractFileSystem
    path: str
    uri: str
    start: int
    stop: int
    pieces: list[Piece]
    md5: str | None = None  # of these bytes, where they are a whole object and its ETag looks like that

    @property
    def spooled(self) -> bool:
        """Whether it goes by way of a temporary file."""
        return self.stop - self.start > SPOOL_BYTES

    @property
    def memory(self) -> int:
        """How many bytes it holds in memory until it is decoded."""
        return _SPOOL_PARTS * _SPOOL_PART if self.spooled else self.stop - self.start

    @contextmanager
    def fetch(self) -> Iterator[Fetched]:
        """The bytes. FileNotFoundError, RowFault `changed_since_plan` when they are not there; MachineFault."""
        if not self.spooled:
            yield _get(self, self.start, self.stop)
            return
        with tempfile.TemporaryFile() as file:
            _spool(self, file)
            yield file

    def place(self, piece: Piece) -> Place:
        """Where one piece lies in what `fetch` gives."""
        return Place(piece.first - self.start, piece.size or 0, piece.start_s, piece.end_s)


def objects(rows: pa.Table) -> list[Object]:
    """The objects of a shard's planned rows (PLAN), those with an error left out, in the order they first come."""
    names = ["audio_uri", "byte_offset", "byte_size", "etag", "row_index", "start_s", "end_s", "duration_s", "error"]
    found: dict[tuple[str, bool], Object] = {}
    for index, row in enumerate(rows.select(names).to_pylist()):
        if row["error"] is not None:
            continue
        uri, first = row["audio_uri"], row["byte_offset"]
        if uri is None:
            raise UserError("the plan is of a text corpus: it has no audio")
        one = found.setdefault((uri, first is not None), Object(uri, row["etag"], first is not None))
        size = row["byte_size"] if first is not None else None
        span = row["start_s"], row["end_s"]
        one.pieces.append(Piece(index, row["row_index"], *span, first or 0, size, row["duration_s"]))
    return list(found.values())


def opened(
    wanted: Object, options: Mapping[str, Any], check_etag: bool
) -> tuple[AbstractFileSystem, str, int | None, str | None]:
    """The file system, path, size and ETag (None: not asked for) of an object.

    RowFault when it is not what was planned. Where the plan holds ranges that is told even without `check_etag`: in an
    object that changed, a range may hold another utterance. FileNotFoundError, MachineFault.
    """
    fs, path = locate(wanted.uri, options)
    compare = wanted.etag is not None and (check_etag or wanted.ranges)
    if not compare and all(piece.size is not None for piece in wanted.pieces):
        return fs, path, None, None
    info = patiently(wanted.uri, lambda: fs.info(path))
    if info["type"] == "directory":
        raise RowFault("missing", f"{wanted.uri} is a folder")
    there = etag_of(fs, info)
    if compare and there != wanted.etag:
        raise RowFault("changed_since_plan", f"{wanted.uri} is now {there}, was {wanted.etag}")
    return fs, path, int(info["size"] or 0), there


def sized(wanted: Object, size: int | None) -> tuple[list[Piece], list[tuple[int, RowFault]]]:
    """The pieces with their sizes, and the rows whose piece is too large or beyond the object's `size`."""
    pieces, faults = [], []
    for piece in wanted.pieces:
        stop = piece.first + piece.size if piece.size is not None else (size or 0)
        limit = MAX_OBJECT_BYTES if piece.start_s is piece.end_s is None else MAX_RECORDING_BYTES
        if stop - piece.first > limit:
            what = f"{wanted.uri} has {stop - piece.first} bytes, at most {limit} are read"
            faults.append((piece.row, RowFault("too_large", what)))
        elif size is not None and stop > size:
            what = f"{wanted.uri} has {size} bytes, {piece.first} to {stop} are asked for"
            faults.append((piece.row, RowFault("changed_since_plan", what)))
        else:
            pieces.append(replace(piece, size=max(0, stop - piece.first)))
    return pieces, faults


def requests(
    uri: str,
    fs: AbstractFileSystem,
    path: str,
    pieces: Iterable[Piece],
    size: int | None = None,
    etag: str | None = None,
) -> list[Request]:
    """The requests for an object's pieces, which have sizes: merged, in the order of its bytes."""
    made: list[Request] = []
    useful = 0  # bytes of the last request that some piece wants
    for piece in sorted(pieces, key=lambda piece: (piece.first, piece.size or 0)):
        start, stop = piece.first, piece.first + (piece.size or 0)
        if made:
            last = made[-1]
            after = max(last.stop, stop)
            wanted = useful + max(0, stop - max(start, last.stop))
            total = after - last.start
            small = total <= REQUEST_BYTES and total - wanted <= WASTE * total
            if stop <= last.stop or (small and start - last.stop <= GAP_BYTES):
                last.pieces.append(piece)
                made[-1] = replace(last, stop=after)
                useful = wanted
                continue
        made.append(Request(fs, path, uri, start, stop, [piece]))
        useful = stop - start
    if etag and _MD5.fullmatch(etag) and len(made) == 1 and (made[0].start, made[0].stop) == (0, size):
        made[0] = replace(made[0], md5=etag)
    return made


def _get(request: Request, start: int, stop: int) -> bytes:
    if start == stop:
        return b""  # which a range cannot say

    def get() -> bytes:
        try:
            data: bytes = request.fs.cat_file(request.path, start=start, end=stop)
        except OSError as fault:
            # Object storage refuses a range that begins beyond the end (416), which s3fs makes "invalid argument".
            if fault.errno != errno.EINVAL or (request.fs.info(request.path)["size"] or 0) > start:
                raise
            data = b""
        return data

    data = patiently(request.uri, _compared(request, get))
    if len(data) != stop - start:
        there = f"{request.uri} ends at {start + len(data)}"
        raise RowFault("changed_since_plan", f"{there}, {stop - start} bytes at {start} are asked for")
    return data


def _compared(request: Request, get: Callable[[], bytes]) -> Callable[[], bytes]:
    """`get`, with what it brings compared with the object's MD5 where that is known: OSError when it is other bytes.

    TCP's sum of 16 bits lets one damaged packet in 65,536 pass. The same bytes twice are the object's: its ETag is then
    no MD5, here and in all of its bucket.
    """
    bucket = request.path.partition("/")[0]
    other: list[bytes] = []

    def compared() -> bytes:
        data = get()
        if request.md5 is None or bucket in _OTHER_TAGS or len(data) != request.stop or _md5(data) == request.md5:
            return data
        if data in other:
            _OTHER_TAGS.add(bucket)
            return data
        other[:] = [data]
        raise OSError(errno.EIO, f"came otherwise than its ETag {request.md5} says")

    return compared


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _spool(request: Request, file: BinaryIO) -> None:
    """The bytes into a temporary file, which is gone when it is closed."""
    cuts = [*range(request.start, request.stop, _SPOOL_PART), request.stop]
    ranges = list(itertools.pairwise(cuts))
    for at in range(0, len(ranges), _SPOOL_PARTS):
        for part in _get_parts(request, ranges[at : at + _SPOOL_PARTS]):
            try:
                file.write(part)
                file.flush()
            except OSError as fault:
                raise MachineFault(f"{tempfile.gettempdir()} takes no copy of {request.uri}: {fault}") from fault


def _get_parts(request: Request, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
    paths = [request.path] * len(ranges)
    parts: list[bytes] = patiently(request.uri, lambda: request.fs.cat_ranges(paths, starts, stops, on_error="raise"))
    if any(len(part) != stop - start for part, (start, stop) in zip(parts, ranges, strict=True)):
        raise RowFault("changed_since_plan", f"{request.uri} ends before {stops[-1]}, which is asked for")
    return parts


class Room:
    """Lets threads hold up to a number of bytes at a time; one that wants more than all waits until it is alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.changed = threading.Condition()

    @contextmanager
    def for_bytes(self, size: int) -> Iterator[None]:
        """Waits until `size` bytes fit, and holds them meanwhile."""
        size = min(size, self.limit)
        with self.changed:
            self.changed.wait_for(lambda: self.held + size <= self.limit)
            self.held += size
        try:
            yield
        finally:
            with self.changed:
                self.held -= size
                self.changed.notify_all()
