"""Whether the units made are those of float32: some utterances are encoded again, alone, in float32, and compared."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spire_ray.codebook import Codebook, assign
from spire_ray.errors import MachineFault

SAMPLED = 0.001  # of all utterances, by a hash of the id: every attempt checks the same ones
FIRST_S = {"cpu": 10.0, "cuda": 120.0}  # of audio in an actor's first shards: 1 to 3 s of work
BOUNDS = {"float32": 0.02, "float16": 0.02, "bfloat16": 0.05}  # share of frames that may have another unit
MIN_FRAMES = 500  # 10 s: of fewer a single frame would be a large share


@dataclass(frozen=True)
class Parity:
    """Counts over the utterances that were compared."""

    utterances: int = 0
    frames: int = 0
    other_units: int = 0  # frames whose unit is another in float32
    squared_error: float = 0.0  # of the features, against float32
    squared_norm: float = 0.0  # of the float32 features

    def __add__(self, other: "Parity") -> "Parity":
        mine, theirs = asdict(self), asdict(other)
        return Parity(**{name: mine[name] + theirs[name] for name in mine})

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> "Parity":
        """From what `as_dict` made, other keys left aside."""
        return cls(**{name: recorded[name] for name in cls.__annotations__ if name in recorded})

    @property
    def share(self) -> float:
        """Frames with another unit, of all compared."""
        return self.other_units / self.frames if self.frames else 0.0

    @property
    def feature_error(self) -> float:
        """Relative: the norm of the difference of the features over the norm of those in float32."""
        return float(np.sqrt(self.squared_error / self.squared_norm)) if self.squared_norm else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For runs/ID.json and run.json."""
        return {**asdict(self), "share": self.share, "feature_error": self.feature_error}


def draw(utterance_id: str) -> float:
    """A number in [0, 1) that only the id decides."""
    return int.from_bytes(hashlib.sha256(utterance_id.encode()).digest()[:8]) / 2**64


def first_few(ids: Sequence[str], seconds: Sequence[float], at_most_s: float) -> list[int]:
    """Indices of utterances in the order of their draw, as many as fit into `at_most_s`; the shortest if none does."""
    chosen: list[int] = []
    for index in sorted(range(len(ids)), key=lambda index: draw(ids[index])):
        if seconds[index] <= at_most_s:
            at_most_s -= seconds[index]
            chosen.append(index)
    return chosen or sorted(range(len(ids)), key=lambda index: seconds[index])[:1]


class ParityGate:
    """Compares with float32, adds up what one actor has compared, and stops the run above `bound`."""

    def __init__(
        self,
        exact: Callable[[Sequence[NDArray[np.int16]]], list[torch.Tensor]],
        codebook: Codebook,
        bound: float,
        first_s: float,
    ) -> None:
        """exact: float32 features [T, D] of waveforms [n]; called with one at a time. first_s: see FIRST_S."""
        self.exact = exact
        self.codebook = codebook
        self.bound = bound
        self.first_s = first_s
        self.total = Parity()

    def choose(self, ids: Sequence[str], seconds: Sequence[float]) -> list[int]:
        """Which of a shard's utterances to compare: the hash decides, and until a comparison has passed a few more.

        Each of two shards in flight brings its own: the second may be done before the first.
        """
        chosen = {index for index, utterance_id in enumerate(ids) if draw(utterance_id) < SAMPLED}
        if ids and self.first_s:
            chosen.update(first_few(ids, seconds, self.first_s))
        return sorted(chosen)

    def check(
        self,
        waveforms: Sequence[NDArray[np.int16]],
        units: Sequence[NDArray[np.int64]],
        features: Sequence[torch.Tensor],
    ) -> Parity:
        """Compare utterances as they were encoded in their batches. MachineFault once too many frames differ."""
        found = Parity()
        for waveform, made, approximate in zip(waveforms, units, features, strict=True):
            (exact,) = self.exact([waveform])
            other = int(np.sum(assign(exact, self.codebook).cpu().numpy() != made))
            error = (approximate.double() - exact.double()).square().sum()
            found += Parity(1, len(made), other, float(error), float(exact.double().square().sum()))
        self.total += found
        if self.total.other_units > self.bound * max(self.total.frames, MIN_FRAMES):
            raise MachineFault(
                f"{self.total.share:.2%} of {self.total.frames} frames have another unit than in float32, each "
                f"utterance alone (bound: {self.bound:.0%}), "
                f"and the features are off by {self.total.feature_error:.1e}: try --dtype float32 in another OUT"
            )
        if found.utterances:
            self.first_s = 0.0
        return found
