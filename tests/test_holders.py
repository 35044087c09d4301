"""What the driver asks of the actors that hold frames; plain objects stand for the actors."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spire_ray import holders as holders_module
from spire_ray.errors import MachineFault
from spire_ray.holders import Holder, Holders
from spire_ray.pools import Pool
from spire_ray.resources import Cluster
from spire_ray.seeding import seed_centroids


class Actor:
    """A holder whose methods are called as an actor's are; `fetched` counts the frames that left it."""

    def __init__(self, dim: int) -> None:
        self.holder = Holder("cpu", None)
        self.holder.begin(dim, 2**64)
        self.fetched = 0

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Any:
            found = getattr(self.holder, name)(*arguments)
            if name == "up_to":
                self.fetched += len(found[0])
            return found

        return SimpleNamespace(remote=remote)


def test_seeding_fetches_the_sample_and_no_frame_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders_module, "_get", list)
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(900, 6)).astype(np.float16)
    keys = rng.permutation(900).astype(np.uint64)
    actors = [Actor(6) for _ in range(3)]
    for shard in range(9):
        mine = slice(100 * shard, 100 * shard + 100)
        actors[shard % 3].holder.add(shard, frames[mine], keys[mine], np.zeros(100, np.bool_))
    centroids = Holders(actors, 0).seed(200, 8, 5)
    assert sum(actor.fetched for actor in actors) == 200
    assert np.array_equal(centroids, seed_centroids(frames[np.argsort(keys)[:200]], 8, 5))


def test_holders_that_find_no_place_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    started = SimpleNamespace(remote=lambda *settings: Actor(1))
    ray = SimpleNamespace(
        remote=lambda kind: SimpleNamespace(options=lambda **asked: started),
        wait=lambda there, num_returns, timeout: (there[:1], there[1:]),
        kill=ended.append,
    )
    monkeypatch.setattr(holders_module, "ray", ray)
    with pytest.raises(MachineFault, match=r"1 of 2 actors .* each asks for 0.03 CPU and 0.6 GPU"):
        Holders.start(Cluster(8, 2, 8), Pool(2, 0.03, 0.6))
    assert len(ended) == 2
