"""k-means over frames that lie in shares on several holders: Lloyd's iterations whose result does not depend on which.

Frames are float16 and are summed in float64. A float16 number is a multiple of 2^-24, so such a sum is exact up to
2^29 = 5e8 whatever its order: on CPUs the same frames give the same centroids, to the bit, for any number of holders.
On CUDA that was not tried: products over chunks of other lengths may choose another of two nearly equal centroids.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spire_ray.nearest import Centroids, Nearest, chunks
from spire_ray.seeding import CANDIDATES, Candidates, exponentials

STARVED = 0.01  # of the mean count of a cluster: fewer frames than that and it is re-seeded, as an empty one is
FIRST_PER_CLUSTER = 50  # frames of the first sub-sample that Lloyd's iterations run on
GROWTH = 4  # of a sub-sample over the one before
COARSER = 10  # what a sub-sample brings last is lost on the next one: there the tolerance is so many times as large


@dataclass(frozen=True, eq=False)
class Sums:
    """What one holder, or by `+` all, found of given centroids: all that an iteration needs, in numpy.

    counts int64 [K] and sums float64 [K, D] of the frames nearest to each, inertia the sum of their squared distances.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    inertia: float
    frames: int
    worst: Candidates

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.counts + other.counts,
            self.sums + other.sums,
            self.inertia + other.inertia,
            self.frames + other.frames,
            self.worst + other.worst,
        )


@dataclass(frozen=True, eq=False)
class _Kept:
    """Training frames [n, D] by rising key, `races` float32 [n] on the same device, keys uint64 [n] on the host."""

    frames: torch.Tensor
    races: torch.Tensor
    keys: NDArray[np.uint64]


class Frames:
    """One holder's share of the frames, float16 on its device.

    Keys are the frames' hashes: distinct, and for training frames uniform in [0, key_bound).
    """

    def __init__(self, dim: int, device: str = "cpu", key_bound: int = 2**64) -> None:
        self.dim, self.device, self.key_bound = dim, torch.device(device), key_bound
        self._training: dict[int, _Kept] = {}
        self._held_out: dict[int, torch.Tensor] = {}

    def add(
        self,
        shard: int,
        frames: NDArray[np.float16],
        keys: NDArray[np.uint64],
        held_out: NDArray[np.bool_],
    ) -> None:
        """Keep the frames [n, D] of a shard, with keys [n]; a shard that is there already is not added again."""
        if shard in self._held_out:
            return
        order = np.flatnonzero(~held_out)
        order = order[np.argsort(keys[order])]
        kept = keys[order]
        races = torch.from_numpy(exponentials(kept)).to(self.device)
        self._training[shard] = _Kept(torch.from_numpy(frames[order]).to(self.device), races, kept)
        self._held_out[shard] = torch.from_numpy(frames[held_out]).to(self.device)

    def sizes(self) -> tuple[int, int]:
        """How many frames there are to train on, and how many are held out."""
        return sum(len(part.keys) for part in self._training.values()), sum(map(len, self._held_out.values()))

    def smallest(self, count: int) -> tuple[NDArray[np.uint64], NDArray[np.float16]]:
        """The up to `count` training frames with the smallest keys: keys [n] rising, frames [n, D]."""
        keys = self.smallest_keys(count)
        return self.up_to(keys[-1]) if len(keys) else self.up_to(np.uint64(0))

    def smallest_keys(self, count: int) -> NDArray[np.uint64]:
        """The up to `count` smallest keys of training frames, [n] rising; `count` is above 0."""
        keys = np.concatenate([np.empty(0, np.uint64), *(part.keys[:count] for part in self._training.values())])
        return np.sort(np.partition(keys, count - 1)[:count] if len(keys) > count else keys)

    def up_to(self, key: np.uint64) -> tuple[NDArray[np.uint64], NDArray[np.float16]]:
        """The training frames with keys up to `key`, and that one: keys [n] rising, frames [n, D]."""
        parts = [self._training[shard] for shard in sorted(self._training)]
        ends = [int(np.searchsorted(part.keys, key, side="right")) for part in parts]
        # Cut before they are put together: all frames together may be too many for the device twice.
        frames = [part.frames[:end] for part, end in zip(parts, ends, strict=True)]
        keys = np.concatenate([np.empty(0, np.uint64), *(p.keys[:end] for p, end in zip(parts, ends, strict=True))])
        order = np.argsort(keys, kind="stable")
        none = torch.empty(0, self.dim, dtype=torch.float16, device=self.device)
        return keys[order], torch.cat([none, *frames]).cpu().numpy()[order]

    @torch.inference_mode()
    def step(self, centroids: Centroids, share: float = 1.0) -> Sums:
        """The training frames by their nearest of centroids [K, D]; only those whose keys lie in the first `share`."""
        nearest = Nearest(centroids, self.device)
        shape = (len(centroids), self.dim)
        counts = torch.zeros(shape[0], dtype=torch.int64, device=self.device)
        sums = torch.zeros(shape, dtype=torch.float64, device=self.device)
        pieces = self._first(share)
        distances = [torch.empty(0, device=self.device)]
        for chunk in chunks([part.frames for part in pieces], nearest.rows):
            units, of_chunk = nearest(chunk)
            counts += torch.bincount(units, minlength=shape[0])
            sums.index_add_(0, units, chunk.double())
            distances.append(of_chunk)
        every = torch.cat(distances)
        inertia = float(every.sum(dtype=torch.float64))
        return Sums(counts.cpu().numpy(), sums.cpu().numpy(), inertia, len(every), self._worst(pieces, every))

    @torch.inference_mode()
    def held_out_inertia(self, centroids: Centroids) -> tuple[float, int]:
        """Sum of the squared distances of the frames held out to their nearest centroids, and how many frames."""
        nearest = Nearest(centroids, self.device)
        parts = [self._held_out[shard] for shard in sorted(self._held_out)]
        sums = [float(nearest(chunk)[1].sum(dtype=torch.float64)) for chunk in chunks(parts, nearest.rows)]
        return math.fsum(sums), sum(map(len, parts))

    def _first(self, share: float) -> list[_Kept]:
        """Of each shard, in the order of their numbers, the frames with keys in the first `share`."""
        parts = [self._training[shard] for shard in sorted(self._training)]
        if share >= 1:
            return parts
        ends = [int(np.searchsorted(part.keys, np.uint64(share * self.key_bound))) for part in parts]
        return [_Kept(p.frames[:end], p.races[:end], p.keys[:end]) for p, end in zip(parts, ends, strict=True)]

    def _worst(self, pieces: Sequence[_Kept], distances: torch.Tensor) -> Candidates:
        if not len(distances):
            return Candidates(np.empty((0, self.dim), np.float16), np.empty(0, np.uint64), np.empty(0), np.empty(0))
        races = torch.cat([piece.races for piece in pieces])
        priorities = distances / races
        least = torch.topk(priorities, min(CANDIDATES, len(priorities))).values.min()
        rows = (priorities >= least).nonzero()[:, 0]  # more than CANDIDATES where some are equal: keys decide
        at, starts = rows.cpu().numpy(), np.cumsum([0, *(len(piece.keys) for piece in pieces)])
        where = np.searchsorted(starts, at, side="right") - 1
        frames = torch.stack([pieces[i].frames[row] for i, row in zip(where, at - starts[where], strict=True)])
        keys = np.concatenate([piece.keys for piece in pieces])[at]
        served = [each[rows].double().cpu().numpy() for each in (distances, races)]
        return Candidates(frames.cpu().numpy(), keys, served[0], served[1]).first()


@dataclass(frozen=True, eq=False)
class Iteration:
    """What one iteration made, and all that the next one needs.

    centroids float32 [K, D] are new; counts int64 [K] and inertia (mean per frame) are those of the centroids before,
    over the `share` of frames it ran on; held_out (mean per frame; None: nothing is held out) is that of the new ones.
    moved: how far the centroids moved, relative to how far they lie from their mean. reseeded: clusters. calm: how
    many iterations in a row brought little. done: no iteration follows.
    """

    number: int
    centroids: Centroids
    counts: NDArray[np.int64]
    inertia: float
    held_out: float | None
    moved: float
    reseeded: int
    share: float
    calm: int
    done: bool


def growing_shares(frames: int, clusters: int) -> tuple[float, ...]:
    """Shares of the training frames to iterate on in turn, ending with 1: each sub-sample GROWTH times the last."""
    shares = [1.0]
    while shares[0] * frames / GROWTH >= FIRST_PER_CLUSTER * clusters:
        shares.insert(0, shares[0] / GROWTH)
    return tuple(shares)


def lloyd(
    step: Callable[[Centroids, float], Sums],
    held_out: Callable[[Centroids], tuple[float, int]],
    start: Centroids | Iteration,
    shares: Sequence[float] = (1.0,),
    max_iterations: int = 100,
    tolerance: float = 1e-4,
) -> Iterator[Iteration]:
    """Lloyd's iterations from the centroids `start`, or from where an earlier run stopped.

    `step(centroids, share)` and `held_out(centroids)` are those of `Frames`, summed over all holders. On each of the
    `shares` until an iteration lowers the held-out inertia by less than COARSER times `tolerance`, and then on all
    frames until two in a row lower it by less than `tolerance` and re-seed nothing. The last of `max_iterations`
    re-seeds nothing either: a centroid that no frame was assigned to yet is not an end.
    """
    at = start if isinstance(start, Iteration) else _before_first(start, shares[0])
    while not at.done:
        share, calm, was = at.share, at.calm, at.held_out
        if share < 1 and calm:
            share, calm = next(each for each in shares if each > share), 0
        sums = step(at.centroids, share)
        number = at.number + 1
        centroids, reseeded = _means(sums, at.centroids, reseed=number < max_iterations)
        total, count = held_out(centroids)
        after, inertia = total / count if count else None, sums.inertia / max(sums.frames, 1)
        now = inertia if after is None else after
        if after is None:  # of other frames than before, or of none, it says nothing
            was = at.inertia if at.number and share == at.share else None
        little = tolerance * (COARSER if share < 1 else 1)
        calm = calm + 1 if was is not None and was - now <= little * was else 0
        if share >= 1 and reseeded:
            calm = 0
        moved = float(np.linalg.norm(centroids - at.centroids) / _spread(at.centroids))
        done = number >= max_iterations or (share >= 1 and calm >= 2)
        at = Iteration(number, centroids, sums.counts, inertia, after, moved, reseeded, share, calm, done)
        yield at


def _before_first(centroids: Centroids, share: float) -> Iteration:
    none = np.zeros(len(centroids), np.int64)
    return Iteration(0, centroids, none, math.inf, None, 0.0, 0, share, 0, False)


def _spread(centroids: Centroids) -> float:
    return float(np.linalg.norm(centroids - centroids.mean(axis=0, dtype=np.float64))) or 1.0


def _means(sums: Sums, centroids: Centroids, reseed: bool) -> tuple[Centroids, int]:
    """The means of the clusters, float32, and how many clusters were re-seeded because they are dead or starved."""
    filled = np.maximum(sums.counts, 1)[:, None]
    means = np.where(sums.counts[:, None] > 0, sums.sums / filled, centroids).astype(np.float32)
    poor = np.flatnonzero(sums.counts < max(1.0, STARVED * sums.frames / len(centroids)))
    seeds = sums.worst.choose(len(poor) if reseed else 0)
    means[poor[: len(seeds)]] = seeds
    return means, len(seeds)


def update_minibatch(centroids: Centroids, seen: NDArray[np.int64], sums: Sums) -> tuple[Centroids, NDArray[np.int64]]:
    """Centroids after one more round of frames, and the frames [K] each has seen: c = (n c + sum) / (n + count).

    As MiniBatchKMeans has it (Sculley, 2010); nothing is re-seeded.
    """
    now = seen + sums.counts
    weighted = seen[:, None] * centroids.astype(np.float64) + sums.sums
    means = np.where(now[:, None] > 0, weighted / np.maximum(now, 1)[:, None], centroids)
    return means.astype(np.float32), now
