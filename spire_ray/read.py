"""Planned rows to waveforms: what a shard wants is fetched in few requests and decoded meanwhile.

What fails is a row with its reason.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spire_ray import audio, decoders, fetch, tables
from spire_ray.decoders import Place
from spire_ray.embedded import RowGroup, row_groups
from spire_ray.errors import RowFault
from spire_ray.fetch import Fetched, Object, Piece, Request, Room
from spire_ray.locations import patiently

FETCHES = 16  # requests at a time, as long as what they bring fits into IN_FLIGHT_BYTES
# Fetched and not yet decoded; a request for more is made alone. More of them would share the line, and all come late.
IN_FLIGHT_BYTES = 64 << 20
# Between the seconds that were planned and those that were decoded: manifests round, and MP3 encoders pad.
LENGTH_TOLERANCE_S, LENGTH_TOLERANCE = 0.1, 0.01

Waveform = NDArray[np.int16]
Result = tuple[int, Waveform | str]  # the row, and its sound or error


class ReadAudio:
    """Fetches and decodes the audio of a shard.

    Input columns: shard, attempt, utterances (nested tables.PLAN).
    Output columns: shard, attempt, utterances (nested tables.WAVEFORMS), a row for each planned row, in their order.

    An utterance that has no waveform has an error; one with an error in the plan keeps that. MachineFault when storage
    refuses or keeps failing, which no other file would escape. In memory: the shard as int16, twice at the end, and
    what is fetched and not yet decoded (64 MiB). An audio file over 64 MiB goes by way of a temporary file. Decoding
    is in child processes (`decoders`), so that no file can harm this one.
    """

    def __init__(self, storage_options: Mapping[str, Any], max_seconds: float, check_etag: bool = True) -> None:
        """`max_seconds`: the longest utterance.

        `check_etag`: whether an object changed since the plan is an error; one with ranges in the plan always is.
        """
        self.storage_options = dict(storage_options)
        self.max_seconds = max_seconds
        self.check_etag = check_etag
        self.room = Room(IN_FLIGHT_BYTES)
        self.decoders = decoders.shared()

    def __call__(self, row: pa.Table) -> pa.Table:
        """One shard in, one shard out."""
        planned = tables.unnest(row, "utterances", tables.PLAN)
        return tables.nest(row["shard"][0].as_py(), row["attempt"][0].as_py(), utterances=self.read(planned))

    def read(self, rows: pa.Table) -> pa.Table:
        """Rows of PLAN to WAVEFORMS: as many, in the same order."""
        results: list[Waveform | str | None] = list(rows.column("error").to_pylist())
        with ThreadPoolExecutor(FETCHES) as pool:
            try:
                asked = [pool.submit(self._requests, one) for one in fetch.objects(rows)]
                jobs = []
                for one in asked:
                    requests, faults = one.result()
                    jobs += [pool.submit(self._read, request) for request in requests]
                    for row, message in faults:
                        results[row] = message
                for job in as_completed(jobs):
                    for row, result in job.result():
                        results[row] = result
                return _waveforms(rows, results, pool)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _requests(self, wanted: Object) -> tuple[list[Request] | list[RowGroup], list[Result]]:
        """What to fetch of an object, and the rows of which it is already known that there is nothing."""
        try:
            fs, path, size, etag = fetch.opened(wanted, self.storage_options, self.check_etag)
            if wanted.pieces[0].row_index is not None:
                groups, faults = row_groups(wanted, fs, path)
                return groups, [_failed(row, fault) for row, fault in faults]
            pieces, faults = fetch.sized(wanted, size)
            made = fetch.requests(wanted.uri, fs, path, pieces, size, etag)
            return made, [_failed(row, fault) for row, fault in faults]
        except FileNotFoundError:
            fault = RowFault("missing", wanted.uri)
        except RowFault as told:
            fault = told
        return [], [_failed(piece.row, fault) for piece in wanted.pieces]

    def _read(self, request: Request | RowGroup) -> list[Result]:
        """Each piece of a request as a waveform or an error."""
        results: dict[int, Waveform | str] = {}
        try:
            with self.room.for_bytes(request.memory):
                if isinstance(request, RowGroup):
                    patiently(request.uri, lambda: self._decode_rows(request, results))
                else:
                    with request.fetch() as data:
                        self._decode(data, [(piece, request.place(piece)) for piece in request.pieces], results)
        except FileNotFoundError:
            fault = RowFault("missing", request.uri)
        except RowFault as told:
            fault = told
        else:
            return list(results.items())
        rest = [piece.row for piece in request.pieces if piece.row not in results]
        return [*results.items(), *(_failed(row, fault) for row in rest)]

    def _decode_rows(self, group: RowGroup, results: dict[int, Waveform | str]) -> None:
        for values in group.values(results):
            placed: list[tuple[Piece, Place]] = []
            parts: list[pa.Buffer] = []
            for piece, value in values:
                if value is None:
                    results[piece.row] = tables.error("missing", f"row {piece.row_index} holds no audio bytes")
                elif value.size > fetch.MAX_OBJECT_BYTES:  # sizes of others are known before
                    what = f"{value.size} bytes, at most {fetch.MAX_OBJECT_BYTES} are read"
                    results[piece.row] = tables.error("too_large", what)
                else:
                    placed.append((piece, Place(sum(map(len, parts)), value.size, piece.start_s, piece.end_s)))
                    parts.append(value)
            self._decode(b"".join(parts), placed, results)

    def _decode(self, data: Fetched, placed: list[tuple[Piece, Place]], results: dict[int, Waveform | str]) -> None:
        sounds = self.decoders.decode(data, [place for _, place in placed], self.max_seconds)
        for (piece, _), sound in zip(placed, sounds, strict=True):
            if not isinstance(sound, RowFault):
                results[piece.row] = _of_length(sound, piece.duration_s)
            else:
                results[piece.row] = tables.error(sound.reason, sound.detail)


def _of_length(sound: Waveform, planned: float | None) -> Waveform | str:
    """An error, where it is not as long as the manifest said, or the header when planned: a cut file may look whole."""
    seconds = len(sound) / audio.SAMPLE_RATE
    if planned is None or abs(seconds - planned) <= max(LENGTH_TOLERANCE_S, LENGTH_TOLERANCE * planned):
        return sound
    reason = "truncated" if seconds < planned else "changed_since_plan"
    return tables.error(reason, f"{seconds:.3f} s of audio, {planned:.3f} s were planned")


def _failed(row: int, fault: RowFault) -> Result:
    return row, tables.error(fault.reason, fault.detail)


def _waveforms(rows: pa.Table, results: list[Waveform | str | None], pool: ThreadPoolExecutor) -> pa.Table:
    sound = [result if isinstance(result, np.ndarray) else None for result in results]
    lengths = np.array([0 if one is None else len(one) for one in sound], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths * 2)]).astype(np.int64)
    samples = _joined([one for one in sound if one is not None], pool)
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


def _joined(sound: list[Waveform], pool: ThreadPoolExecutor) -> Waveform:
    """All of it in one array. Side by side: for an hour the new memory alone costs a core a third of the decoding."""
    samples = np.empty(sum(map(len, sound)), np.int16)
    each = max(1, -(-len(sound) // FETCHES))
    ends = np.cumsum([0, *map(len, sound)])

    def copy(first: int) -> None:
        part = sound[first : first + each]
        np.concatenate(part, out=samples[ends[first] : ends[first + len(part)]])

    list(pool.map(copy, range(0, len(sound), each)))
    return samples
