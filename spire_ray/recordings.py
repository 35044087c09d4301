"""Recordings to segments: the stages that listen to each recording once and plan its pieces."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from spire_ray import decoders, fetch, outputs, tables
from spire_ray.commit import summary_row
from spire_ray.embedded import audio_parquet
from spire_ray.errors import MachineFault, RowFault
from spire_ray.frozen import FINGERPRINT
from spire_ray.locations import locate, patiently, room_in
from spire_ray.manifest import embedded_audio
from spire_ray.plan import Plan, read_shard
from spire_ray.segment import Segmentation, cut_recording, measure
from spire_ray.shards import StoreAt, shard_of
from spire_ray.store import Store
from spire_ray.utterances import PLANNED
from spire_ray.vad import Vad

TABLE = "segments"  # of the run directory; the plan of the recordings lies under it
READERS = 16  # parts read at once: small objects, so latency bound
_COPY_BYTES = 16 << 20  # of a remote recording at a time


class CutRecordings:
    """Cuts the recordings of a shard into segments.

    Input columns: shard, attempt. Output columns: shard, attempt, segments (PLANNED rows), audio_seconds, cut_seconds.

    A recording becomes a row for each piece, in its id `<recording>#start-end` in milliseconds of the file. What cannot
    be cut is a row with an error: `silent` where there is no speech, else what ended the decoding, from where it did.
    A recording in object storage is copied to a temporary folder first, so memory does not grow with it. Decoding is
    in a child process, which has its time for each block of a few seconds, not for the recording.
    """

    def __init__(self, recordings: StoreAt, segmentation: Segmentation, storage_options: Mapping[str, Any]) -> None:
        """`recordings`: the store of their plan."""
        self.store = recordings.open()
        self.segmentation = segmentation
        self.storage_options = storage_options
        self.vad = Vad() if segmentation.method == "vad" else None
        self.decoders = decoders.shared()

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its segments."""
        started = time.perf_counter()
        shard, attempt = shard_of(row)
        segments: list[dict[str, Any]] = []
        seconds = 0.0
        for recording in read_shard(self.store, shard).drop_columns(["shard"]).to_pylist():
            pieces, listened = self.cut(recording)
            segments += pieces
            seconds += listened
        out = tables.nest(shard, attempt, segments=tables.from_rows(segments, PLANNED))
        for name, value in (("audio_seconds", seconds), ("cut_seconds", time.perf_counter() - started)):
            out = out.append_column(name, pa.array([value], pa.float64()))
        return out

    def cut(self, recording: Mapping[str, Any]) -> tuple[list[dict[str, Any]], float]:
        """One row of PLANNED to the rows of its pieces, and the seconds that were listened to."""
        if recording["error"]:
            return [dict(recording)], 0.0
        try:
            with local_copy(recording, self.storage_options) as path:
                for _ in range(decoders.ATTEMPTS):
                    blocks = self.decoders.blocks(path, recording["start_s"], recording["end_s"])
                    levels = measure(blocks, self.vad)
                    if levels.fault is None or levels.fault.reason != "decoder_crash":
                        break
        except FileNotFoundError:
            return [_failed(recording, RowFault("missing", recording["audio_uri"]))], 0.0
        except RowFault as fault:
            return [_failed(recording, fault)], 0.0
        begins = round((recording["start_s"] or 0.0) * 1000)
        seconds = levels.samples / 16_000
        rows = [
            _segment(recording, begins + piece.start_ms, begins + piece.end_ms) | {"speech_ratio": piece.speech_ratio}
            for piece in cut_recording(levels, self.segmentation)
        ]
        if len(rows) == 1 and levels.fault is None:
            # What was said in all of it was said in its only piece.
            rows[0] |= {name: recording[name] for name in ("reference", "references")}
        if levels.fault is not None:
            rows.append(_failed(recording, levels.fault, begins + round(seconds * 1000)))
        return rows or [_failed(recording, RowFault("silent", f"no speech in {seconds:.1f} s"))], seconds


def _segment(recording: Mapping[str, Any], start_ms: int, end_ms: int | None) -> dict[str, Any]:
    tail = "" if end_ms is None else str(end_ms)
    return dict(recording) | {
        "utterance_id": f"{recording['utterance_id']}#{start_ms}-{tail}",
        "recording_id": recording["recording_id"] or recording["utterance_id"],
        "start_s": start_ms / 1000,
        "end_s": None if end_ms is None else end_ms / 1000,
        "duration_s": None if end_ms is None else (end_ms - start_ms) / 1000,
        "reference": None,
        "references": None,
    }


def _failed(recording: Mapping[str, Any], fault: RowFault, from_ms: int | None = None) -> dict[str, Any]:
    message = tables.error(fault.reason, fault.detail)
    if from_ms is None:
        return dict(recording) | {"error": message}
    return _segment(recording, from_ms, None) | {"error": message}


@contextmanager
def local_copy(recording: Mapping[str, Any], storage_options: Mapping[str, Any]) -> Iterator[Path]:
    """The audio of a planned row as a local file: the file itself, or a copy in a temporary folder.

    FileNotFoundError when it does not exist, RowFault `too_large` when no piece of it could be read later, MachineFault
    when storage refuses or keeps failing.
    """
    uri, offset, size = (recording[name] for name in ("audio_uri", "byte_offset", "byte_size"))
    fs, path = locate(uri, storage_options)
    first = offset or 0
    if offset is None and recording["row_index"] is None:
        size = patiently(uri, lambda: fs.info(path))["size"]
    if (size or 0) > fetch.MAX_RECORDING_BYTES:
        raise RowFault("too_large", f"{uri} has {size} bytes, at most {fetch.MAX_RECORDING_BYTES} are read")
    if isinstance(fs, LocalFileSystem) and offset is None and recording["row_index"] is None:
        yield Path(path)
        return
    with room_in(tempfile.gettempdir()), tempfile.NamedTemporaryFile(prefix="spire-ray-recording-") as copy:
        if recording["row_index"] is not None:
            copy.write(patiently(uri, lambda: _embedded(fs, path, recording["row_index"])))
        else:
            for start in range(first, first + size, _COPY_BYTES):
                end = min(start + _COPY_BYTES, first + size)
                copy.write(patiently(uri, lambda start=start, end=end: fs.cat_file(path, start=start, end=end)))  # type: ignore[misc]
        copy.flush()
        yield Path(copy.name)


def _embedded(fs: Any, path: str, row_index: int) -> bytes:
    """The audio bytes of a row of a Parquet file. Reads its row group as far as that row."""
    with fs.open(path, "rb", block_size=4 << 20) as handle:
        file = audio_parquet(handle, path)
        column = embedded_audio(file.schema_arrow)
        first = 0
        for group in range(file.num_row_groups):
            after = first + file.metadata.row_group(group).num_rows
            if column is not None and row_index < after:
                for batch in file.iter_batches(batch_size=4, row_groups=[group], columns=[column]):
                    if row_index < first + batch.num_rows:
                        values = batch.column(0)
                        value = values[row_index - first].as_py()
                        data = value["bytes"] if isinstance(value, dict) else value
                        if data is None:
                            raise RowFault("missing", f"row {row_index} holds no audio bytes")
                        return bytes(data)
                    first += batch.num_rows
            first = after
    raise RowFault("changed_since_plan", f"{path} has no audio in row {row_index}")


class CommitSegments:
    """The last stage: one part of segments, one put.

    Input columns: those that CutRecordings returns, and ready_at. Output columns: those of `Summary`.
    """

    def __init__(self, out: StoreAt, fingerprint: str) -> None:
        self.store = out.open()
        self.fingerprint = fingerprint

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's segments to its summary."""
        shard, _ = shard_of(row)
        segments = tables.unnest(row, "segments", PLANNED)
        data = tables.to_parquet(segments, PLANNED, {FINGERPRINT: self.fingerprint})
        self.store.create(outputs.part_key(TABLE, shard), data)
        return summary_row(row, segments, row.column("audio_seconds")[0].as_py(), "cut_seconds")


def read_segments(store: Store, recordings: Plan) -> Iterator[pa.Table]:
    """All segments, part by part, as tables of PLANNED. MachineFault when a part is not there."""

    def read(shard: int) -> pa.Table:
        try:
            return outputs.read_part(store, outputs.part_key(TABLE, shard)).select(PLANNED.names).cast(PLANNED)
        except FileNotFoundError as fault:
            raise MachineFault(f"{store.url}: the segments of shard {shard} are gone") from fault

    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, recordings.shards, READERS):
            yield from pool.map(read, range(first, min(first + READERS, recordings.shards)))
