"""The first centroids, and new ones for clusters that nothing is near to: both drawn as k-means++ draws them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

CANDIDATES = 256  # to re-seed clusters with, of each holder; 0.5 MB at D = 1024


@torch.inference_mode()
def seed_centroids(frames: NDArray[np.float16], clusters: int, seed: int, device: str = "cpu") -> NDArray[np.float32]:
    """`clusters` of the frames [M, D], far from one another: float32 [K, D]. The same for equal arguments.

    Greedy k-means++ (Arthur and Vassilvitskii, 2007): each next one is the best of 2 + ln(K) candidates, drawn in
    proportion to the squared distance to what is chosen already. Where fewer frames differ than `clusters`, the rest
    repeat. ValueError for fewer frames than clusters.
    """
    if len(frames) < clusters:
        raise ValueError(f"{clusters} centroids of {len(frames)} frames")
    random = np.random.default_rng(seed)
    x = torch.tensor(frames, device=device).float()  # a copy: Ray's arrays are read-only
    x -= x.double().mean(dim=0).float()  # distances are of what differs: HuBERT has channels far from 0
    norms = x.square().sum(dim=1)
    chosen = [int(random.integers(len(frames)))]
    nearest = _squared_distances(x, norms, torch.tensor(chosen, device=device))[0]
    trials = 2 + int(math.log(clusters))
    for draws in random.random((clusters - 1, trials)):
        heap = nearest.double().cumsum(dim=0)
        at = torch.searchsorted(heap, torch.from_numpy(draws).to(device) * heap[-1], right=True)
        candidates = at.clamp(max=len(frames) - 1)
        distances = torch.minimum(_squared_distances(x, norms, candidates), nearest)
        best = int(distances.sum(dim=1, dtype=torch.float64).argmin())
        nearest = distances[best]
        chosen.append(int(candidates[best]))
    return frames[chosen].astype(np.float32)


def _squared_distances(x: torch.Tensor, norms: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """[len(of), M], from the rows `of` to all rows."""
    distances = torch.addmm(norms, x[of], x.T, alpha=-2) + norms[of, None]
    distances.clamp_(min=0)
    distances[torch.arange(len(of), device=of.device), of] = 0  # rounding must not let a chosen frame be drawn again
    return distances


@dataclass(frozen=True, eq=False)
class Candidates:
    """Frames [R, D] to re-seed a cluster with: their keys, squared distances to the nearest centroid, and `races`.

    In the order of distance / race, falling, where the race is an exponential number made of the key: a draw in
    proportion to the distance (Efraimidis and Spirakis, 2006), as k-means++ makes, that does not depend on where a
    frame lies. The farthest frames of all would be outliers, whose clusters stay starved.
    """

    frames: NDArray[np.float16]
    keys: NDArray[np.uint64]
    distances: NDArray[np.float64]
    races: NDArray[np.float64]

    def __add__(self, other: "Candidates") -> "Candidates":
        """The first CANDIDATES of both."""
        return Candidates(
            np.concatenate([self.frames, other.frames]),
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.distances, other.distances]),
            np.concatenate([self.races, other.races]),
        ).first()

    def first(self) -> "Candidates":
        """The first CANDIDATES of these, in their order; of equals the smaller key."""
        at = np.lexsort((self.keys, -self.distances / self.races))[:CANDIDATES]
        return Candidates(self.frames[at], self.keys[at], self.distances[at], self.races[at])

    def choose(self, count: int) -> NDArray[np.float32]:
        """Up to `count` of them, float32 [n, D], each taken into account for the next; none that a centroid equals."""
        frames = self.frames.astype(np.float32)
        distances = self.distances
        chosen: list[int] = []
        while len(chosen) < count and np.any(distances > 0):
            best = int(np.argmax(distances / self.races))
            chosen.append(best)
            distances = np.minimum(distances, np.square(frames - frames[best], dtype=np.float64).sum(axis=1))
        return frames[chosen]


def exponentials(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """A standard exponential number per key: of the key mixed again (splitmix64), since keys have a bound."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    drawn: NDArray[np.float64] = -np.log(((mixed >> np.uint64(11)) + 0.5) / 2.0**53)
    return drawn.astype(np.float32)
