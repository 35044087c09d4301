"""The stage that makes units of waveforms: HuBERT features, the nearest centroid of each frame, runs collapsed."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from spire_ray.codebook import assign, codebook_shape, load_codebook
from spire_ray.errors import MachineFault, UserError
from spire_ray.hubert import Encoder, micro_batches
from spire_ray.hubert_weights import read_config
from spire_ray.tables import UNITS, WAVEFORMS, nest, unnest
from spire_ray.units import collapse

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Seconds of audio per micro-batch. Two CPU cores: 30 s was 4 to 12 % faster than 10 s. H100: 400 s holds 98 % of what
# 800 s gives in half the memory.
BUDGET_S = {"cpu": 30.0, "cuda": 400.0}


def check_codebook(encoder_folder: str, codebook_path: str, layer: int) -> None:
    """UserError unless the encoder serves `layer` and the codebook fits its features. Reads config and header only."""
    dimension = codebook_shape(Path(codebook_path))[1]
    width = read_config(Path(encoder_folder), layer).hidden_size
    if dimension != width:
        raise UserError(f"codebook {codebook_path} has dimension {dimension}, the encoder's features have {width}")


class EncodeUnits:
    """Waveforms of a shard to units.

    Input columns:
        shard, attempt: int32
        utterances: large_list of tables.WAVEFORMS rows
    Output columns:
        shard, attempt: as they came
        utterances: large_list of tables.UNITS rows, in the same order; null units beside an error
        encode_seconds: float64, wall time of this call
        encode_budget_s: float64, seconds of audio per micro-batch; below what was asked for once memory ran out
    """

    def __init__(
        self,
        encoder_folder: str,
        codebook_path: str,
        layer: int,
        device: str | None = None,
        dtype: str = "float32",
        budget_s: float | None = None,
        threads: int | None = None,
    ) -> None:
        """Loads the encoder and the codebook on `device` (default: CUDA where there is one). UserError.

        budget_s: seconds of audio per micro-batch, by default what suits the device; rounding may depend on it in
        half precision. threads: of torch on the CPU, by default as many as torch finds.
        """
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        check_codebook(encoder_folder, codebook_path, layer)
        self.threads = threads
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if torch.cuda.is_available():
            torch.backends.cudnn.allow_tf32 = False  # it is on by default, for convolutions only
        self.encoder = Encoder(Path(encoder_folder), layer, device, DTYPES[dtype])
        self.codebook = load_codebook(Path(codebook_path)).to(device)
        self.budget_s = budget_s or BUDGET_S[self.encoder.device.type]

    def __call__(self, row: pa.Table) -> pa.Table:
        """One shard in, one shard out."""
        if self.threads is not None:
            # Here and not at construction: OpenMP keeps the number by thread, and Ray Data calls from another one than
            # it constructs in (1.5 of 2 cores were used).
            torch.set_num_threads(self.threads)
        started = time.perf_counter()
        table = unnest(row, "utterances", WAVEFORMS)
        waveforms = pcm_views(table.column("pcm").combine_chunks())
        present = [index for index, waveform in enumerate(waveforms) if waveform is not None]
        frames: list[NDArray[np.int64] | None] = [None] * len(waveforms)
        encoded = self.frame_units([waveform for waveform in waveforms if waveform is not None])
        for index, units in zip(present, encoded, strict=True):
            frames[index] = units
        shard, attempt = (row.column(name)[0].as_py() for name in ("shard", "attempt"))
        out = nest(shard, attempt, utterances=units_table(table, frames))
        out = out.append_column("encode_seconds", pa.array([time.perf_counter() - started], pa.float64()))
        return out.append_column("encode_budget_s", pa.array([self.budget_s], pa.float64()))

    def frame_units(self, waveforms: Sequence[NDArray[np.int16]]) -> list[NDArray[np.int64]]:
        """The unit of every frame, [T_i] per waveform [n_i], in their order. MachineFault when features overflow."""
        lengths = [len(waveform) for waveform in waveforms]
        units: dict[int, NDArray[np.int64]] = {}
        groups = micro_batches(lengths, self.budget_s)
        while groups:
            group = groups[0]
            try:
                units.update(zip(group, self._encode([waveforms[index] for index in group]), strict=True))
                groups.pop(0)
                continue
            except torch.OutOfMemoryError:
                if len(group) == 1:
                    raise
            # Outside the handler: while it runs, the exception keeps the tensors of the failed call alive.
            torch.cuda.empty_cache()
            self.budget_s /= 2
            rest = [index for group in groups for index in group]
            again = micro_batches([lengths[index] for index in rest], self.budget_s)
            groups = [[rest[position] for position in group] for group in again]
        return [units[index] for index in range(len(waveforms))]

    def _encode(self, waveforms: Sequence[NDArray[np.int16]]) -> list[NDArray[np.int64]]:
        features = self.encoder.features(waveforms)
        packed = torch.cat(features)
        # fp16 may overflow where the weights have outlier channels, and the argmin of NaN is a unit like any other.
        if not torch.isfinite(packed).all():
            raise MachineFault(f"the encoder's features are not finite in {self.encoder.dtype}; use dtype float32")
        units = assign(packed, self.codebook, self.encoder.dtype).cpu().numpy()
        ends = np.cumsum([len(part) for part in features])
        return np.split(units, ends[:-1])


def pcm_views(pcm: pa.LargeBinaryArray) -> list[NDArray[np.int16] | None]:
    """Little-endian int16 samples [n_i] of each value, or None where it is null: views of Arrow's memory, no copies."""
    _, offsets, data = pcm.buffers()
    if len(pcm) == 0:
        return []
    bounds = np.frombuffer(offsets, np.int64)[pcm.offset : pcm.offset + len(pcm) + 1]
    samples = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    valid = pcm.is_valid().to_pylist()
    return [samples[bounds[i] : bounds[i + 1]].view("<i2") if ok else None for i, ok in enumerate(valid)]


def units_table(waveforms: pa.Table, frames: Sequence[NDArray[np.int64] | None]) -> pa.Table:
    """tables.UNITS rows for WAVEFORMS rows and their frame units [T_i] (None: no units), in the same order."""
    collapsed = [None if part is None else collapse(part) for part in frames]
    columns = {
        "units": _lists([None if pair is None else pair[0] for pair in collapsed]),
        "run_lengths": _lists([None if pair is None else pair[1] for pair in collapsed]),
        "num_frames": pa.array([None if part is None else len(part) for part in frames], pa.int32()),
    }
    kept = {name: waveforms.column(name) for name in UNITS.names if name not in columns}
    return pa.table({**kept, **columns}).select(UNITS.names).cast(UNITS)


def _lists(values: Sequence[NDArray[np.int16] | None]) -> pa.ListArray:
    lengths = [0 if value is None else len(value) for value in values]
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    flat = np.concatenate([np.empty(0, np.int16), *(value for value in values if value is not None)])
    missing = pa.array([value is None for value in values], pa.bool_())
    return pa.ListArray.from_arrays(offsets, pa.array(flat), mask=missing)
