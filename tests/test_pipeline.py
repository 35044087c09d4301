"""Several stages in one actor, called as Ray calls it: from several threads."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from spire_ray import pipeline
from spire_ray.pipeline import _in_turn
from spire_ray.pools import unit_pools
from spire_ray.resources import Cluster

Seen = list[tuple[str, str, int]]


def stage(name: str, seen: Seen, seconds: float = 0.05) -> type[Any]:
    """Adds up a column, and tells when it begins and ends with which shard."""

    def init(self: Any, add: int) -> None:
        self.add = add

    def call(self: Any, row: pa.Table) -> pa.Table:
        shard = row.column("shard")[0].as_py()
        seen.append((name, "begins", shard))
        time.sleep(seconds)
        seen.append((name, "ends", shard))
        return row.append_column(name, pa.array([self.add]))

    return type(name, (), {"__init__": init, "__call__": call})


def row(shard: int) -> pa.Table:
    return pa.table({"shard": [shard]})


def made(*stages: type[Any], one_at_a_time: bool) -> Callable[[pa.Table], pa.Table]:
    given = [(one, {"add": number}) for number, one in enumerate(stages)]
    all_of_them, settings = _in_turn(given, one_at_a_time)
    assert all_of_them.__name__ == "+".join(one.__name__ for one in stages)
    actor: Callable[[pa.Table], pa.Table] = all_of_them(**settings)
    return actor


def test_a_shard_goes_through_each() -> None:
    seen: Seen = []
    actor = made(stage("read", seen), stage("encode", seen), one_at_a_time=True)
    assert actor(row(7)).to_pylist() == [{"shard": 7, "read": 0, "encode": 1}]


def test_on_cpus_one_is_read_while_another_is_encoded_and_no_two_are_encoded() -> None:
    seen: Seen = []
    actor = made(stage("read", seen), stage("encode", seen, 0.2), one_at_a_time=True)
    with ThreadPoolExecutor(2) as calls:
        list(calls.map(actor, map(row, range(3))))
    encoded = [what for name, what, _ in seen if name == "encode"]
    assert encoded == ["begins", "ends"] * 3
    first_ends = seen.index(("encode", "ends", min(shard for name, _, shard in seen if name == "encode")))
    assert sum(name == "read" and what == "ends" for name, what, _ in seen[:first_ends]) == 2


def test_on_gpus_two_shards_may_be_in_one_stage() -> None:
    both = threading.Barrier(2, timeout=30)

    class Meets:
        def __call__(self, row: pa.Table) -> pa.Table:
            both.wait()
            return row

    actor, settings = _in_turn([(Meets, {})] * 2, one_at_a_time=False)
    with ThreadPoolExecutor(2) as calls:
        assert list(calls.map(actor(**settings), [row(0), row(1)])) == [row(0), row(1)]


@pytest.mark.parametrize("one_at_a_time", [True, False])
def test_what_is_stopped_goes_no_further(one_at_a_time: bool) -> None:
    seen: Seen = []

    class Stopped:
        def __call__(self, row: pa.Table) -> pa.Table:
            return row.slice(0, 0)

    actor, settings = _in_turn([(Stopped, {}), (stage("encode", seen), {"add": 1})], one_at_a_time)
    assert actor(**settings)(row(1)).num_rows == 0
    assert not seen


class Asked:
    """Stands for a Ray Dataset: keeps what each of its stages is asked for with."""

    def __init__(self) -> None:
        self.stages: dict[str, Mapping[str, Any]] = {}

    def map_batches(self, stage: type[Any], **settings: Any) -> "Asked":
        self.stages[stage.__name__] = settings
        return self


@pytest.mark.parametrize(
    ("cluster", "stages"),
    [
        (Cluster(8, 0, 8), {"ReadShard+encode+commit": (2, 2)}),
        (Cluster(8, 2, 8), {"ReadShard": (6, 1), "encode+commit": (2, 2)}),
    ],
)
def test_two_shards_at_a_time_are_in_threads_of_their_own(
    cluster: Cluster, stages: Mapping[str, tuple[int, int]]
) -> None:
    asked, seen = Asked(), list[tuple[str, str, int]]()
    then: list[Any] = [(stage("encode", seen), {"add": 1}), (stage("commit", seen), {"add": 2})]
    pipeline._from_audio(asked, {}, then, unit_pools(cluster))  # type: ignore[arg-type]
    strategies = {name: settings["compute"] for name, settings in asked.stages.items()}
    assert {
        name: (strategy.max_size, strategy.max_concurrent_calls_per_actor) for name, strategy in strategies.items()
    } == stages
    for name, (_, at_a_time) in stages.items():
        # Without it Ray Data gives the calls of a stage one thread, whatever the actor's concurrency.
        assert strategies[name].enable_true_multi_threading is (at_a_time > 1)
