"""The actors that hold the frames of a fit on their own devices, and what they compute together.

A shard's frames are with holder number shard % n, whoever encoded it. Sums are added up on the driver in the order of
the holders.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError

from spire_ray.errors import MachineFault
from spire_ray.faults import fault_behind
from spire_ray.kmeans import Frames, Sums
from spire_ray.nearest import Centroids
from spire_ray.pools import Pool
from spire_ray.resources import Cluster
from spire_ray.seeding import seed_centroids

# Of what is free: the rest is the encoder's on a GPU, and on both for the scores of a chunk.
SHARE_OF_GPU, SHARE_OF_MEMORY = 0.5, 0.5
START_SECONDS = 600  # a node that an autoscaler adds takes minutes
BYTES_BESIDE = 24  # of a frame: key, distance, and what orders them


class Holder:
    """One share of the frames: `kmeans.Frames` in a process of its own."""

    def __init__(self, device: str, threads: int | None) -> None:
        self.device = device
        if threads is not None:
            torch.set_num_threads(threads)
        self.frames = Frames(1, device)

    def room(self) -> int | None:
        """Bytes free for frames on its GPU; None on a CPU, whose memory holders share."""
        return int(torch.cuda.mem_get_info()[0] * SHARE_OF_GPU) if self.device == "cuda" else None

    def begin(self, dim: int, key_bound: int) -> None:
        """Forget all frames, and take such of `dim` and with training keys below `key_bound`."""
        self.frames = Frames(dim, self.device, key_bound)

    def add(
        self, shard: int, frames: NDArray[np.float16], keys: NDArray[np.uint64], held_out: NDArray[np.bool_]
    ) -> None:
        """As `Frames.add`."""
        self.frames.add(shard, frames, keys, held_out)

    def sizes(self) -> tuple[int, int]:
        """As `Frames.sizes`."""
        return self.frames.sizes()

    def smallest_keys(self, count: int) -> NDArray[np.uint64]:
        """As `Frames.smallest_keys`."""
        return self.frames.smallest_keys(count)

    def up_to(self, key: np.uint64) -> tuple[NDArray[np.uint64], NDArray[np.float16]]:
        """As `Frames.up_to`."""
        return self.frames.up_to(key)

    def step(self, centroids: Centroids, share: float) -> Sums:
        """As `Frames.step`."""
        return self.frames.step(centroids, share)

    def held_out_inertia(self, centroids: Centroids) -> tuple[float, int]:
        """As `Frames.held_out_inertia`."""
        return self.frames.held_out_inertia(centroids)

    def seed(self, frames: NDArray[np.float16], clusters: int, seed: int) -> Centroids:
        """As `seed_centroids`, on this holder's device."""
        return seed_centroids(frames, clusters, seed, self.device)


class Holders:
    """All holders of a fit. Pickled, it still reaches them: `keep` is called where frames are made."""

    def __init__(self, actors: Sequence[Any], memory: float) -> None:
        self.actors = list(actors)
        self.memory = memory

    @classmethod
    def start(cls, cluster: Cluster, pool: Pool) -> "Holders":
        """Start them, one to a GPU or spread over the nodes. MachineFault when they are not there in START_SECONDS."""
        remote = ray.remote(Holder).options(
            num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, scheduling_strategy="SPREAD"
        )
        holders = cls([remote.remote(pool.device, pool.threads) for _ in range(pool.size)], cluster.memory)
        there = [actor.sizes.remote() for actor in holders.actors]
        _, missing = ray.wait(there, num_returns=len(there), timeout=START_SECONDS)
        if missing:
            holders.end()
            raise MachineFault(
                f"{len(missing)} of {pool.size} actors that hold frames did not start within {START_SECONDS} s: each "
                f"asks for {pool.num_cpus:g} CPU and {pool.num_gpus:g} GPU, which others may have taken"
            )
        _get(there)
        return holders

    def end(self) -> None:
        """Give their devices back."""
        for actor in self.actors:
            ray.kill(actor)

    def capacity(self, dim: int) -> int:
        """How many frames [dim] fit into each holder."""
        rooms = [room for room in self._all("room") if room is not None]
        room = min(rooms) if rooms else self.memory * SHARE_OF_MEMORY / len(self.actors)
        return int(room) // (2 * dim + BYTES_BESIDE)

    def begin(self, dim: int, key_bound: int) -> None:
        """A new set of frames, in place of the last."""
        self._all("begin", dim, key_bound)

    def keep(
        self, shard: int, frames: NDArray[np.float16], keys: NDArray[np.uint64], held_out: NDArray[np.bool_]
    ) -> None:
        """Frames of a shard to their holder; returns when they are there. See `sampling.Keep`."""
        ray.get(self.actors[shard % len(self.actors)].add.remote(shard, frames, keys, held_out))

    def sizes(self) -> tuple[int, int]:
        """Frames to train on, and frames held out."""
        training, held_out = zip(*self._all("sizes"), strict=True)
        return sum(training), sum(held_out)

    def seed(self, sample: int, clusters: int, seed: int) -> Centroids:
        """First centroids [K, D], of the `sample` training frames with the smallest keys of all."""
        # Keys first: `sample` frames of every holder would be 1 GB a holder in this process, at D = 1024.
        last = np.sort(np.concatenate(self._all("smallest_keys", sample)))[:sample][-1]
        found = self._all("up_to", last)
        keys = np.concatenate([keys for keys, _ in found])
        frames = np.concatenate([frames for _, frames in found])
        first = np.argsort(keys, kind="stable")[:sample]
        (centroids,) = _get([self.actors[0].seed.remote(frames[first], clusters, seed)])
        return np.asarray(centroids)

    def step(self, centroids: Centroids, share: float = 1.0) -> Sums:
        """As `Frames.step`, over all."""
        found: list[Sums] = self._all("step", ray.put(centroids), share)
        return sum(found[1:], start=found[0])

    def held_out_inertia(self, centroids: Centroids) -> tuple[float, int]:
        """As `Frames.held_out_inertia`, over all."""
        sums, counts = zip(*self._all("held_out_inertia", ray.put(centroids)), strict=True)
        return sum(sums), sum(counts)

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """What each returns, in their order."""
        calls: list[Callable[..., Any]] = [getattr(actor, method).remote for actor in self.actors]
        return _get([call(*arguments) for call in calls])


def _get(references: list[Any]) -> list[Any]:
    """The answers. MachineFault when a holder has died or could not compute, UserError as it raised it."""
    try:
        answers: list[Any] = ray.get(references)
    except RayError as error:
        raise fault_behind(error) from error
    return answers
