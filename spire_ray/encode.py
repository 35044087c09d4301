"""The stage that makes units of waveforms: HuBERT features, the nearest centroid of each frame, runs collapsed."""

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from spire_ray.codebook import assign, codebook_shape, load_codebook
from spire_ray.codebook_card import FEATURES, read_card, refuse_other
from spire_ray.errors import UserError
from spire_ray.hubert import SAMPLE_RATE
from spire_ray.hubert_weights import check_weights, read_config, weights_sha256
from spire_ray.parity import BOUNDS, FIRST_S, ParityGate
from spire_ray.pcm import pcm_views
from spire_ray.shard_encoder import ShardEncoder
from spire_ray.shards import this_actor
from spire_ray.tables import PARITY, UNITS, WAVEFORMS, nest, unnest
from spire_ray.units import collapse


def check_codebook(encoder_folder: str, codebook_path: str, layer: int) -> None:
    """UserError unless the encoder serves `layer`, and the codebook fits its features by its dimension and its card.

    Of the encoder its config is read, its weights' header, and its weights where there is a card that names them.
    """
    dimension = codebook_shape(Path(codebook_path))[1]
    width = read_config(Path(encoder_folder), layer).hidden_size
    if dimension != width:
        raise UserError(f"codebook {codebook_path} has dimension {dimension}, the encoder's features have {width}")
    check_weights(Path(encoder_folder))
    card = read_card(Path(codebook_path))
    if card is None:
        return
    refuse_other(Path(codebook_path), card, {"layer": layer} | FEATURES)
    if "encoder" in card.must_match():
        refuse_other(Path(codebook_path), card, {"encoder": weights_sha256(Path(encoder_folder))})


@dataclass
class _Encoded:
    """What became of a shard's waveforms, by their index."""

    units: dict[int, NDArray[np.int64]] = field(default_factory=dict)  # of every frame [T_i]
    features: dict[int, torch.Tensor] = field(default_factory=dict)  # [T_i, D], of those that are to be compared
    in_float32: bool = False  # a second time, because the features overflowed


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
        redone_in_float32: bool, whether half precision overflowed
        parity: struct, the fields of `parity.Parity` for this shard
        actor: string, host and process
        gpu_utilisation: float64, percent at the end of this call; null without a GPU or nvidia-ml-py
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
        parity_bound: float | None = None,
    ) -> None:
        """Loads the encoder and the codebook on `device` (default: CUDA where there is one). UserError.

        budget_s: seconds of audio per micro-batch, by default what suits the device; rounding may depend on it in
        half precision. threads: of torch on the CPU, by default as many as torch finds. parity_bound: share of frames
        that may have another unit than in float32, by default what suits the dtype.
        """
        check_codebook(encoder_folder, codebook_path, layer)
        self.threads = threads
        self.shard_encoder = ShardEncoder(Path(encoder_folder), layer, device, dtype, budget_s)
        self.encoder = self.shard_encoder.encoder
        self.codebook = load_codebook(Path(codebook_path)).to(self.encoder.device)
        bound = BOUNDS[dtype] if parity_bound is None else parity_bound
        first_s = FIRST_S[self.encoder.device.type]
        self.gate = ParityGate(lambda alone: self.shard_encoder.exact.features(alone), self.codebook, bound, first_s)
        self.device = self.shard_encoder.device  # two shards may be in flight

    def __call__(self, row: pa.Table) -> pa.Table:
        """One shard in, one shard out. MachineFault when too many units differ from those of float32."""
        if self.threads is not None:
            # Here and not at construction: OpenMP keeps the number by thread, and Ray Data calls from another one than
            # it constructs in (1.5 of 2 cores were used).
            torch.set_num_threads(self.threads)
        started = time.perf_counter()
        table = unnest(row, "utterances", WAVEFORMS)
        views = pcm_views(table.column("pcm").combine_chunks())
        present = [index for index, view in enumerate(views) if view is not None]
        waveforms = [view for view in views if view is not None]
        ids = table.column("utterance_id").to_pylist()
        with self.device:
            chosen = self.gate.choose(
                [ids[index] for index in present], [len(waveform) / SAMPLE_RATE for waveform in waveforms]
            )
        encoded = self._encode_shard(waveforms, chosen)
        with self.device:
            parity = self.gate.check(
                [waveforms[index] for index in chosen],
                [encoded.units[index] for index in chosen],
                [encoded.features[index] for index in chosen],
            )
        frames: list[NDArray[np.int64] | None] = [None] * len(views)
        for position, index in enumerate(present):
            frames[index] = encoded.units[position]
        shard, attempt = (row.column(name)[0].as_py() for name in ("shard", "attempt"))
        out = nest(shard, attempt, utterances=units_table(table, frames))
        told = {
            "encode_seconds": pa.array([time.perf_counter() - started], pa.float64()),
            "encode_budget_s": pa.array([self.shard_encoder.budget_s], pa.float64()),
            "redone_in_float32": pa.array([encoded.in_float32], pa.bool_()),
            "parity": pa.array([asdict(parity)], PARITY),
            "actor": pa.array([this_actor()], pa.string()),
            "gpu_utilisation": pa.array([gpu_utilisation(self.encoder.device)], pa.float64()),
        }
        for name, column in told.items():
            out = out.append_column(name, column)
        return out

    def frame_units(self, waveforms: Sequence[NDArray[np.int16]]) -> list[NDArray[np.int64]]:
        """The unit of every frame, [T_i] per waveform [n_i], in their order. MachineFault when features overflow."""
        units = self._encode_shard(waveforms, ()).units
        return [units[index] for index in range(len(waveforms))]

    def _encode_shard(self, waveforms: Sequence[NDArray[np.int16]], kept: Collection[int]) -> _Encoded:
        """Units of all, features of those `kept`."""
        encoded = _Encoded()

        def use(group: Sequence[int], features: torch.Tensor, lengths: list[int], dtype: torch.dtype) -> None:
            units = assign(features, self.codebook, dtype).cpu().numpy()
            encoded.units.update(zip(group, np.split(units, np.cumsum(lengths)[:-1]), strict=True))
            parts = zip(group, torch.split(features, lengths), strict=True)
            encoded.features.update((index, part.clone()) for index, part in parts if index in kept)

        encoded.in_float32 = self.shard_encoder.encode(waveforms, use)
        return encoded


def gpu_utilisation(device: torch.device) -> float | None:
    """Percent of the last sampling period in which `device` computed; None without a GPU or without nvidia-ml-py."""
    if device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device))
    except (ModuleNotFoundError, RuntimeError):
        return None


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
