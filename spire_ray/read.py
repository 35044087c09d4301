"""Planned rows to waveforms: each object is fetched once, its pieces decoded; what fails is a row with its reason."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem
from numpy.typing import NDArray

from spire_ray import audio, tables
from spire_ray.errors import RowFault, UserError
from spire_ray.locations import etag_of, locate, patiently
from spire_ray.manifest import embedded_audio

MAX_OBJECT_BYTES = 2 << 30
THREADS = 8  # objects at a time, as long as they fit into IN_FLIGHT_BYTES
IN_FLIGHT_BYTES = 512 << 20  # an object larger than that is read alone
_PARQUET_ROWS = 16  # audio values in memory at a time
_PARQUET_BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is wanted of an object: the row it is for, and which part of it."""

    row: int
    row_index: int | None
    start_s: float | None
    end_s: float | None


@dataclass(frozen=True, slots=True)
class _Object:
    """An object as it was when planned, and what is wanted of it."""

    uri: str
    byte_size: int | None
    etag: str | None
    pieces: list[_Piece]


Waveform = NDArray[np.int16]


class ReadAudio:
    """Fetches and decodes the audio of a shard.

    Input columns: shard, attempt, utterances (nested tables.PLAN).
    Output columns: shard, attempt, utterances (nested tables.WAVEFORMS), a row for each planned row, in their order.

    An utterance that has no waveform has an error; one with an error in the plan keeps that. MachineFault when storage
    refuses or keeps failing, which no other file would escape. In memory: the shard as int16, twice at the end, and the
    objects being decoded (512 MiB, or one larger).
    """

    def __init__(self, storage_options: Mapping[str, Any], max_seconds: float, check_etag: bool = True) -> None:
        """`max_seconds`: the longest utterance; `check_etag`: whether an object changed since the plan is an error."""
        self.storage_options = dict(storage_options)
        self.max_seconds = max_seconds
        self.check_etag = check_etag
        self.room = _Room(IN_FLIGHT_BYTES)

    def __call__(self, row: pa.Table) -> pa.Table:
        """One shard in, one shard out."""
        planned = tables.unnest(row, "utterances", tables.PLAN)
        return tables.nest(row["shard"][0].as_py(), row["attempt"][0].as_py(), utterances=self.read(planned))

    def read(self, rows: pa.Table) -> pa.Table:
        """Rows of PLAN to WAVEFORMS: as many, in the same order."""
        results: list[Waveform | str | None] = list(rows.column("error").to_pylist())
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(self._object, one) for one in _objects(rows)]
            try:
                for job in as_completed(jobs):
                    for index, result in job.result():
                        results[index] = result
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return _waveforms(rows, results)

    def _object(self, wanted: _Object) -> list[tuple[int, Waveform | str]]:
        """The pieces of one object, each as a waveform or an error."""
        try:
            fs, path = locate(wanted.uri, self.storage_options)
            if wanted.pieces[0].row_index is not None:
                return patiently(wanted.uri, lambda: self._embedded(fs, path, wanted))
            size = self._check(fs, path, wanted)
            with self.room.for_bytes(size):
                data = patiently(wanted.uri, lambda: fs.cat_file(path))
                if self.check_etag and wanted.etag is not None and wanted.byte_size not in (None, len(data)):
                    raise RowFault("changed_since_plan", f"{wanted.uri} has {len(data)} bytes, had {wanted.byte_size}")
                return [(piece.row, self._decoded(data, piece)) for piece in wanted.pieces]
        except FileNotFoundError:
            return _all(wanted, RowFault("missing", wanted.uri))
        except RowFault as fault:
            return _all(wanted, fault)

    def _check(self, fs: AbstractFileSystem, path: str, wanted: _Object) -> int:
        """Bytes to be fetched. RowFault when the object is not what was planned, or too large."""
        compare = self.check_etag and wanted.etag is not None
        if wanted.byte_size is not None and not compare:
            size = wanted.byte_size
        else:
            info = patiently(wanted.uri, lambda: fs.info(path))
            if info["type"] == "directory":
                raise RowFault("missing", f"{wanted.uri} is a folder")
            size = info["size"] or 0
            there = etag_of(fs, info)
            if compare and there != wanted.etag:
                raise RowFault("changed_since_plan", f"{wanted.uri} is now {there}, was {wanted.etag}")
        if size > MAX_OBJECT_BYTES:
            raise RowFault("too_large", f"{wanted.uri} has {size} bytes, at most {MAX_OBJECT_BYTES} are read")
        return int(size)

    def _embedded(self, fs: AbstractFileSystem, path: str, wanted: _Object) -> list[tuple[int, Waveform | str]]:
        """The audio values of a Parquet file: of its row groups only those that are needed, a few rows at a time."""
        self._check_parquet(fs, path, wanted)
        pieces = sorted(wanted.pieces, key=lambda piece: piece.row_index or 0)
        results: list[tuple[int, Waveform | str]] = []
        try:
            with fs.open(path, "rb", block_size=_PARQUET_BUFFER) as handle:
                file = pq.ParquetFile(handle, buffer_size=_PARQUET_BUFFER)
                column = embedded_audio(file.schema_arrow)
                if column is None:
                    raise RowFault("changed_since_plan", f"{wanted.uri} has no audio bytes any more")
                for piece, data in _values(file, column, pieces):
                    results.append((piece.row, self._decoded(data, piece) if data is not None else _no_bytes(piece)))
        except (pa.ArrowException, OSError) as fault:
            # Arrow's own complaint about a damaged file is an OSError without a number; storage's have one.
            if isinstance(fault, OSError) and (type(fault) is not OSError or fault.errno is not None):
                raise
            done = {row for row, _ in results}
            message = tables.error("unreadable", f"{wanted.uri} is damaged: {fault}")
            results += [(piece.row, message) for piece in pieces if piece.row not in done]
        return results

    def _check_parquet(self, fs: AbstractFileSystem, path: str, wanted: _Object) -> None:
        if self.check_etag and wanted.etag is not None and (there := etag_of(fs, fs.info(path))) != wanted.etag:
            raise RowFault("changed_since_plan", f"{wanted.uri} is now {there}, was {wanted.etag}")

    def _decoded(self, data: bytes, piece: _Piece) -> Waveform | str:
        try:
            if len(data) > MAX_OBJECT_BYTES:
                raise RowFault("too_large", f"{len(data)} bytes, at most {MAX_OBJECT_BYTES} are read")
            return audio.decode(data, start_s=piece.start_s, end_s=piece.end_s, max_seconds=self.max_seconds)
        except RowFault as fault:
            return tables.error(fault.reason, fault.detail)


class _Room:
    """Lets threads hold up to a number of bytes at a time; one that wants more than all waits until it is alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.changed = threading.Condition()

    @contextmanager
    def for_bytes(self, size: int) -> Iterator[None]:
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


def _objects(rows: pa.Table) -> list[_Object]:
    names = ["audio_uri", "byte_size", "etag", "row_index", "start_s", "end_s", "error"]
    objects: dict[str, _Object] = {}
    for index, row in enumerate(rows.select(names).to_pylist()):
        if row["error"] is None:
            if row["audio_uri"] is None:
                raise UserError("the plan is of a text corpus: it has no audio")
            wanted = objects.setdefault(row["audio_uri"], _Object(row["audio_uri"], row["byte_size"], row["etag"], []))
            wanted.pieces.append(_Piece(index, row["row_index"], row["start_s"], row["end_s"]))
    return list(objects.values())


def _values(file: pq.ParquetFile, column: str, pieces: list[_Piece]) -> Iterator[tuple[_Piece, bytes | None]]:
    """The audio bytes of each piece, which are in the order of their rows; None where the row has none."""
    waiting = iter(pieces)
    piece = next(waiting, None)
    first = 0
    for group in range(file.num_row_groups):
        after = first + file.metadata.row_group(group).num_rows
        if piece is not None and (piece.row_index or 0) < after:
            at = first
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, row_groups=[group], columns=[column]):
                values = batch.column(0)
                values = values.field("bytes") if pa.types.is_struct(values.type) else values
                while piece is not None and (piece.row_index or 0) < at + batch.num_rows:
                    yield piece, values[(piece.row_index or 0) - at].as_py()
                    piece = next(waiting, None)
                at += batch.num_rows
                if piece is None or (piece.row_index or 0) >= after:
                    break
        first = after
    if piece is not None:
        raise RowFault("changed_since_plan", f"row {piece.row_index} is asked for, the file has {first} rows")


def _no_bytes(piece: _Piece) -> str:
    return tables.error("missing", f"row {piece.row_index} holds no audio bytes")


def _all(wanted: _Object, fault: RowFault) -> list[tuple[int, Waveform | str]]:
    message = tables.error(fault.reason, fault.detail)
    return [(piece.row, message) for piece in wanted.pieces]


def _waveforms(rows: pa.Table, results: list[Waveform | str | None]) -> pa.Table:
    sound = [result if isinstance(result, np.ndarray) else None for result in results]
    lengths = np.array([0 if one is None else len(one) for one in sound], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths * 2)]).astype(np.int64)
    samples = np.concatenate([one for one in sound if one is not None] or [np.empty(0, np.int16)])
    present = pa.array([one is not None for one in sound], pa.bool_())
    validity = present.buffers()[1]
    pcm = pa.Array.from_buffers(pa.large_binary(), len(sound), [validity, pa.py_buffer(offsets), pa.py_buffer(samples)])
    durations = pa.array(
        lengths / audio.SAMPLE_RATE, pa.float64(), mask=np.array([one is None for one in sound], np.bool_)
    )
    columns = {
        "utterance_id": rows.column("utterance_id"),
        "pcm": pcm,
        "duration_s": durations,
        "speech_ratio": rows.column("speech_ratio"),
        "error": pa.array([result if isinstance(result, str) else None for result in results], pa.string()),
    }
    return pa.table(columns, schema=tables.WAVEFORMS)
