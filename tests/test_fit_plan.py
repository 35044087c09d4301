"""Before a fit: what its actors reserve, in which rounds a corpus is taken, its fingerprint by content."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spire_ray import plan as plan_module
from spire_ray import pools
from spire_ray.corpus import read_corpus
from spire_ray.cut import cut
from spire_ray.errors import UserError
from spire_ray.fit_plan import corpus_sha256, refuse_overfull, rounds_that_fit, split_rounds
from spire_ray.plan import Shard, write_plan
from spire_ray.resources import Cluster
from spire_ray.store import Store
from test_pools import CLUSTERS, reserved

SECONDS = st.lists(st.floats(0.1, 4000), min_size=1, max_size=40)


def shards_of(seconds: list[float]) -> list[Shard]:
    return [Shard(index, 0, 1, each) for index, each in enumerate(seconds)]


@given(seconds=SECONDS, holders=st.integers(1, 5), capacity=st.integers(1, 10**6), kept=st.floats(0.01, 50))
def test_no_holder_gets_more_than_fits_unless_a_round_is_one_shard(
    seconds: list[float], holders: int, capacity: int, kept: float
) -> None:
    shards = shards_of(seconds)
    rounds = rounds_that_fit(shards, 3, kept, holders, capacity)
    parts = split_rounds(shards, 3, rounds)
    assert sorted(shard.index for part in parts for shard in part) == list(range(len(shards)))
    assert len(parts) == rounds
    for part in parts:
        for holder in range(holders):
            load = sum(shard.seconds for shard in part if shard.index % holders == holder) * kept
            assert load <= capacity * (1 + 1e-9) or len(part) == 1 or rounds == len(shards)


def test_what_fits_is_one_round_in_order() -> None:
    shards = shards_of([100.0] * 8)
    assert rounds_that_fit(shards, 0, 50, holders=2, capacity=20_000) == 1
    assert split_rounds(shards, 0, 1) == [shards]


def test_rounds_are_alike_in_length_and_drawn_by_the_seed() -> None:
    shards = shards_of([600.0] * 100)
    assert rounds_that_fit(shards, 0, 50, holders=1, capacity=10**6) in (3, 4)
    parts = split_rounds(shards, 0, 4)
    assert [len(part) for part in parts] == [25] * 4
    assert parts == split_rounds(shards, 0, 4)
    assert parts != split_rounds(shards, 1, 4)
    assert all(part != shards[25 * index : 25 * index + 25] for index, part in enumerate(parts))


def test_the_fingerprint_is_of_the_content_and_not_of_place_or_shards(
    mended: Path, corpus: Path, tmp_path: Path
) -> None:
    def fingerprint(folder: Path, minutes: float, name: str) -> str:
        store = Store(str(tmp_path / name))
        write_plan(store, cut(read_corpus(str(folder)), minutes), {"corpus": str(folder)})
        return corpus_sha256(store)

    first = fingerprint(corpus, 0.05, "a")
    assert first == fingerprint(mended, 5, "b")
    (mended / "speaker0" / "take-0.wav").unlink()
    assert first != fingerprint(mended, 5, "c")


def test_the_fingerprint_does_not_tell_the_parts_of_a_plan(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = []
    for number, shards_per_part in enumerate((1000, 2, 1)):
        monkeypatch.setattr(plan_module, "SHARDS_PER_PART", shards_per_part)
        store = Store(str(tmp_path / str(number)))
        write_plan(store, cut(read_corpus(str(corpus)), 0.02), {"corpus": "c"})
        marks.append((len(store.find("plan")) > 1, corpus_sha256(store)))
    assert marks == [(shards, marks[0][1]) for shards in (False, True, True)]


def test_a_load_beyond_the_devices_is_refused() -> None:
    shards = shards_of([100.0] * 8)
    refuse_overfull([shards], 50, holders=2, capacity=20_000)
    with pytest.raises(UserError, match=r"40,000 frames are for one of 1 device.*room for 20,000 each.*or more"):
        refuse_overfull([shards], 50, holders=1, capacity=20_000)
    alone = shards_of([1000.0])  # cannot be divided into rounds
    assert rounds_that_fit(alone, 0, 50, holders=1, capacity=20_000) == 1
    with pytest.raises(UserError, match="shorter shards"):
        refuse_overfull([alone], 50, holders=1, capacity=20_000)


@pytest.mark.parametrize("cluster", CLUSTERS, ids=str)
def test_holders_and_encoders_fit_into_any_cluster(cluster: Cluster) -> None:
    encoders = pools.encoder_pool(cluster)
    holders, sharing = pools.holder_pool(encoders), pools.sharing(encoders)
    readers = [pools.reader_pool(cluster, encoders)] if cluster.gpus else []
    used_cpus, used_gpus = reserved(*readers, sharing, holders)
    assert used_cpus <= cluster.cpus
    assert used_gpus == pytest.approx(cluster.gpus)
    assert holders.size == sharing.size == encoders.size
    assert holders.device == sharing.device == encoders.device
    if cluster.gpus:
        assert 2 * holders.num_gpus > 1  # no two on one GPU
        assert holders.num_gpus + sharing.num_gpus == 1
