"""Which frames of a corpus a codebook is fitted on, and the stage that encodes a shard and keeps those.

A frame's key is 64 bits that the seed, the utterance's id and the frame's number decide, and nothing else: neither the
order of the shards, nor their size, nor how many actors there are. The lowest keys are kept to train on, and the slice
of keys next to them is held out.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from spire_ray.commit import NAMED_FAULTS
from spire_ray.encode import gpu_utilisation
from spire_ray.errors import MachineFault
from spire_ray.pcm import pcm_views
from spire_ray.shard_encoder import ShardEncoder
from spire_ray.shards import shard_of, this_actor
from spire_ray.tables import WAVEFORMS, reason_of, unnest

KEYS = 2**64
HELD_OUT = 20  # training frames to one held out: 5 %
MAX_HELD_OUT = 200_000  # frames: of so many the mean squared distance is known to a few parts in a thousand
FRAMES_PER_S = 50
# Called with a shard's number, frames float16 [n, D], keys uint64 [n], and whether each is held out [n].
Keep = Callable[[int, NDArray[np.float16], NDArray[np.uint64], NDArray[np.bool_]], None]

_SAMPLED = pa.schema(
    [
        ("shard", pa.int32()),
        ("attempt", pa.int32()),
        ("utterances", pa.int64()),
        ("audio_s", pa.float64()),
        ("reasons", pa.list_(pa.string())),
        ("faults", pa.list_(pa.string())),
        ("committed_at", pa.float64()),
        ("busy_s", pa.float64()),
        ("actor", pa.string()),
        ("encode_budget_s", pa.float64()),
        ("redone_in_float32", pa.bool_()),
        ("gpu_utilisation", pa.float64()),
    ]
)


def frame_keys(seed: int, utterance_id: str, frames: int) -> NDArray[np.uint64]:
    """The keys of an utterance's frames, uint64 [frames]: splitmix64, its state being BLAKE2b of the seed and the id.

    Key t is output t of that generator (Steele, Lea and Flood, 2014), so any frame's key is computed by itself.
    """
    digest = hashlib.blake2b(f"{seed}\0{utterance_id}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        state = np.uint64(int.from_bytes(digest, "little"))
        keys = state + np.arange(1, frames + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


@dataclass(frozen=True)
class Sample:
    """Frames with keys below `training` are trained on, those from there to below `held_out` are held out."""

    seed: int
    training: int  # 0 to 2^64
    held_out: int  # from `training` to 2^64

    @classmethod
    def of(cls, seed: int, frames: int, planned: int) -> "Sample":
        """About `frames` of those `planned`, and 5 % as many (at most 200,000) held out; all, where they are fewer."""
        held_out = min(min(frames, planned) // HELD_OUT, MAX_HELD_OUT)
        frames = min(frames, planned - held_out)
        return cls(seed, frames * KEYS // planned, (frames + held_out) * KEYS // planned)

    def choose(self, utterance_id: str, frames: int) -> tuple[NDArray[np.intp], NDArray[np.uint64], NDArray[np.bool_]]:
        """Of an utterance's frames those that are kept: their numbers [n], keys [n] and whether each is held out."""
        keys = frame_keys(self.seed, utterance_id, frames)
        kept = np.flatnonzero(_below(keys, self.held_out))
        return kept, keys[kept], ~_below(keys[kept], self.training)


def _below(keys: NDArray[np.uint64], bound: int) -> NDArray[np.bool_]:
    # 2^64 itself is no uint64.
    return keys <= np.uint64(bound - 1) if bound else np.zeros(len(keys), np.bool_)


class SampleFrames:
    """Waveforms of a shard to features, of which the chosen frames go to `keep` and nothing goes on.

    Input columns:
        shard, attempt: int32
        utterances: large_list of tables.WAVEFORMS rows
    Output columns:
        those of commit.Summary without ready_at, parity and the counts of tokens; committed_at: when they were kept
    """

    def __init__(
        self,
        encoder_folder: str,
        layer: int,
        sample: Sample,
        keep: Keep,
        device: str | None = None,
        dtype: str = "float32",
        threads: int | None = None,
    ) -> None:
        """Loads the encoder as `encode.EncodeUnits` does. UserError."""
        self.shard_encoder = ShardEncoder(Path(encoder_folder), layer, device, dtype)
        self.sample = sample
        self.keep = keep
        self.threads = threads

    def __call__(self, row: pa.Table) -> pa.Table:
        """One shard in, one row about it out. MachineFault when its features do not fit float16."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)  # at every call, as in EncodeUnits
        started = time.perf_counter()
        shard, attempt = shard_of(row)
        table = unnest(row, "utterances", WAVEFORMS)
        in_float32 = self._keep_frames(shard, table)
        failed = table.filter(pc.is_valid(table.column("error"))).select(["utterance_id", "error"]).to_pylist()
        told = {
            "shard": shard,
            "attempt": attempt,
            "utterances": table.num_rows,
            "audio_s": pc.sum(table.filter(pc.is_null(table.column("error"))).column("duration_s")).as_py() or 0.0,
            "reasons": [reason_of(each["error"]) for each in failed],
            "faults": [f"{each['utterance_id']}: {each['error']}" for each in failed[:NAMED_FAULTS]],
            "committed_at": time.time(),
            "busy_s": time.perf_counter() - started,
            "actor": this_actor(),
            "encode_budget_s": self.shard_encoder.budget_s,
            "redone_in_float32": in_float32,
            "gpu_utilisation": gpu_utilisation(self.shard_encoder.encoder.device),
        }
        return pa.Table.from_pylist([told], schema=_SAMPLED)

    def _keep_frames(self, shard: int, table: pa.Table) -> bool:
        ids = table.column("utterance_id").to_pylist()
        views = pcm_views(table.column("pcm").combine_chunks())
        present = [index for index, view in enumerate(views) if view is not None]
        kept: dict[int, tuple[NDArray[np.float16], NDArray[np.uint64], NDArray[np.bool_]]] = {}

        def use(group: Sequence[int], features: torch.Tensor, lengths: list[int], dtype: torch.dtype) -> None:
            chosen = [self.sample.choose(ids[present[p]], n) for p, n in zip(group, lengths, strict=True)]
            starts = np.cumsum([0, *lengths[:-1]])
            rows = np.concatenate([start + numbers for start, (numbers, _, _) in zip(starts, chosen, strict=True)])
            # One gather and one copy for the micro-batch: each of them waits for the device.
            picked = features[torch.from_numpy(rows).to(features.device)].half().cpu().numpy()
            parts = np.split(picked, np.cumsum([len(keys) for _, keys, _ in chosen])[:-1])
            for position, part, (_, keys, held_out) in zip(group, parts, chosen, strict=True):
                kept[position] = (part, keys, held_out)

        in_float32 = self.shard_encoder.encode([view for view in views if view is not None], use)
        if kept:
            # In the order of the rows, whatever the micro-batches were.
            columns = zip(*(kept[position] for position in range(len(present))), strict=True)
            frames, keys, held_out = (np.concatenate(column) for column in columns)
            if not np.isfinite(frames).all():
                raise MachineFault("features of this encoder and layer are beyond 65,504, which float16 cannot hold")
            self.keep(shard, frames, keys, held_out)
        return in_float32
