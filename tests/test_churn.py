"""When a stage begins anew on other nodes: told from what the cluster has, at moments of a clock that is not real."""

from typing import Any

import pytest
from ray.data._internal.actor_autoscaler.autoscaling_actor_pool import AutoscalingActorConfig
from ray.data._internal.execution.interfaces import ExecutionResources
from ray.data._internal.execution.operators.actor_pool_map_operator import _ActorPool

from spire_ray.churn import ClusterChanged, Watch
from spire_ray.pools import Pool, text_pools, unit_pools
from spire_ray.resources import Cluster, Wanted


class Ward:
    """A watch over a cluster that a test changes, and time that passes at its word."""

    def __init__(self, cpus: float, gpus: int = 0, gpus_needed: int = 1, wanted: Wanted | None = None) -> None:
        self.now = 0.0
        self.there = Cluster(cpus, gpus, 2)
        self.running: list[Any] = []
        self.watch = Watch(
            self.there,
            lambda cluster: [Pool(int(cluster.cpus), 0.97, 0)],
            wanted=wanted.on if wanted else lambda there: there,
            gpus_needed=gpus_needed if gpus or (wanted and wanted.gpus) else 0,
            look=lambda: self.there,
            clock=lambda: self.now,
        )

    def has(self, cpus: float, gpus: int = 0) -> None:
        self.there = Cluster(cpus, gpus, 2)

    def ended_within(self, seconds: float, a_shard_every: float | None = None) -> float | None:
        """How many seconds from now the stage is ended, None when not within `seconds`."""
        began, shard_at = self.now, self.now
        while self.now < began + seconds:
            self.now += 1
            if a_shard_every and self.now - shard_at >= a_shard_every:
                shard_at = self.now
                self.watch.committed()
            try:
                self.watch.check(self.running)
            except ClusterChanged:
                assert self.watch.changed == (self.watch.made_for if self.watch.stopped() else self.there)
                return self.now - began
        return None


def test_a_cluster_that_stays_as_it_was_is_left_alone() -> None:
    assert Ward(5).ended_within(10_000) is None


def test_after_a_loss_the_rest_goes_on_and_only_standing_still_ends_it() -> None:
    ward = Ward(5)
    assert ward.ended_within(200, a_shard_every=10) is None
    ward.has(3)
    assert ward.ended_within(600, a_shard_every=10) is None
    assert ward.ended_within(600) == pytest.approx(30, abs=6)


def test_slow_shards_are_waited_for() -> None:
    ward = Ward(5)
    assert ward.ended_within(1_000, a_shard_every=100) is None
    ward.has(3)
    assert ward.ended_within(1_000) == pytest.approx(200, abs=6)


def test_a_node_that_is_replaced_in_time_costs_nothing() -> None:
    ward = Ward(5)
    for _ in range(20):
        assert ward.ended_within(50, a_shard_every=10) is None
        ward.has(3)
        assert ward.ended_within(10) is None
        ward.has(5)


def test_a_loss_while_models_are_loaded_is_waited_out_longer() -> None:
    ward = Ward(5)
    ward.has(3)
    assert ward.ended_within(1_000) == pytest.approx(120, abs=6)


def test_nodes_that_stay_are_used_and_those_that_still_come_are_waited_for() -> None:
    ward = Ward(5)
    for cpus in (7, 9, 11):
        ward.has(cpus)
        assert ward.ended_within(20, a_shard_every=5) is None
    assert ward.ended_within(60, a_shard_every=5) == pytest.approx(15, abs=6)


def test_without_the_gpus_that_an_engine_needs_there_is_only_waiting() -> None:
    ward = Ward(16, 4, gpus_needed=2)
    assert ward.ended_within(100, a_shard_every=10) is None
    for gpus in (0, 1):
        ward.has(16, gpus)
        assert ward.ended_within(2_000) is None
    ward.has(16, 2)
    assert ward.ended_within(60) == pytest.approx(5, abs=6)


def test_with_no_cpu_left_there_is_only_waiting() -> None:
    ward = Ward(4)
    ward.has(0)
    assert ward.ended_within(2_000) is None


def test_cpus_alone_are_no_reason_to_load_models_on_gpus_again() -> None:
    ward = Ward(16, 4)
    ward.has(48, 4)
    assert ward.ended_within(2_000, a_shard_every=10) is None
    assert ward.ended_within(600) == pytest.approx(30, abs=6), "of an engine for two GPUs, 2 and 2 may be 3 and 1 now"


def test_shards_that_end_together_do_not_make_the_next_look_late() -> None:
    ward = Ward(5)
    for _ in range(4):
        ward.watch.committed(busy_s=150)
    ward.has(3)
    assert ward.ended_within(280) is None
    assert ward.ended_within(60) is not None


def test_a_run_that_was_told_to_stop_lets_its_shards_commit() -> None:
    """Also when what loaded them has ended: Ray Data lets go of actors that have nothing more to do."""
    ward = Ward(5)
    loaders, engines, commits = ward.running = [pool_of_ray_data(2, 0.97) for _ in range(3)]
    loaders._running_actors = {}
    working, committing = State(4), State(0)
    engines._running_actors, commits._running_actors = {0: working, 1: State(0)}, {0: committing}
    ward.watch.stopped = lambda: True
    ward.has(9)
    assert ward.ended_within(200) is None
    working.num_tasks_in_flight = 0
    assert ward.ended_within(3) is None
    committing.num_tasks_in_flight = 1
    assert ward.ended_within(200) is None
    committing.num_tasks_in_flight = 0
    assert ward.ended_within(30) == pytest.approx(5, abs=2)


class State:
    """Of an actor, as Ray Data keeps it."""

    def __init__(self, shards: int, is_restarting: bool = False) -> None:
        self.num_tasks_in_flight = shards
        self.is_restarting = is_restarting


@pytest.mark.parametrize(
    "actors",
    [
        pytest.param([[], []], id="none was ever there"),
        pytest.param([[State(0)], []], id="only what loads shards"),
        pytest.param([[State(0)], [State(4, is_restarting=True)]], id="its node is gone"),
    ],
)
def test_a_run_that_is_stopped_while_it_waits_for_nodes_ends(actors: list[list[State]]) -> None:
    ward = Ward(0)
    ward.running = [pool_of_ray_data(2, 0.97), pool_of_ray_data(2, 0.97)]
    for pool, states in zip(ward.running, actors, strict=True):
        pool._running_actors = dict(enumerate(states))
    assert ward.ended_within(2_000) is None
    ward.watch.stopped = lambda: True
    assert ward.ended_within(30) == pytest.approx(5, abs=2)


def test_what_is_asked_of_an_autoscaler_is_waited_for_and_used_as_it_comes() -> None:
    """The actors are there from the beginning, and Ray starts each where it finds a place."""
    ward = Ward(0, wanted=Wanted(gpus=3))
    ward.watch.pools_of = unit_pools
    ward.running = [pool_of_ray_data(9, 1), pool_of_ray_data(3, 0, 1)]
    ward.there = Cluster(0, 0, 1)
    assert ward.ended_within(1_000) is None
    for nodes in (1, 2, 3):
        ward.there = Cluster(8 * nodes, nodes, 8, cpus_of_nodes=(8,) * nodes, gpus_of_nodes=(1,) * nodes)
        assert ward.ended_within(1_000, a_shard_every=10) is None
        assert [pool.max_size() for pool in ward.running] == [9, 3]
    ward.there = Cluster(16, 2, 8, cpus_of_nodes=(8, 8), gpus_of_nodes=(1, 1))  # one is taken away, none comes
    assert ward.ended_within(600, a_shard_every=10) is None
    assert ward.ended_within(600) == pytest.approx(30, abs=6), "those that are left make room for what it had"


def test_a_first_gpu_beside_cpus_is_no_reason_to_begin_anew() -> None:
    ward = Ward(0, wanted=Wanted(gpus=8))
    ward.watch.pools_of = unit_pools
    ward.there = ward.watch.made_for = Cluster(16, 0, 16, cpus_of_nodes=(16,))
    ward.running = [pool_of_ray_data(24, 1), pool_of_ray_data(8, 0, 1)]
    assert ward.ended_within(1_000) is None
    ward.there = Cluster(24, 1, 8, cpus_of_nodes=(8, 16), gpus_of_nodes=(1,))
    assert ward.ended_within(1_000, a_shard_every=20) is None


def test_a_group_in_one_node_that_is_replaced_by_smaller_ones_begins_anew() -> None:
    """Its actor waits for a node with as many GPUs."""
    ward = Ward(8, 2, gpus_needed=2)
    ward.watch.pools_of = lambda cluster: text_pools(cluster, 2)
    ward.running = [pool_of_ray_data(1, 0) for _ in range(3)]
    ward.there = ward.watch.made_for = Cluster(8, 2, 8, gpus_of_nodes=(2,))
    assert ward.ended_within(100, a_shard_every=10) is None
    ward.there = Cluster(8, 2, 4, gpus_of_nodes=(1, 1))
    assert ward.ended_within(600) == pytest.approx(30, abs=6)


def test_cpus_are_asked_for_too() -> None:
    ward = Ward(4, wanted=Wanted(cpus=16))
    ward.watch.pools_of = unit_pools
    ward.there = ward.watch.made_for = Cluster(4, 0, 4, cpus_of_nodes=(4,))
    ward.running = [pool_of_ray_data(4, 3.97)]
    for nodes in (2, 3, 4):
        ward.there = Cluster(4 * nodes, 0, 4, cpus_of_nodes=(4,) * nodes)
        assert ward.ended_within(1_000, a_shard_every=10) is None
    ward.there = Cluster(20, 0, 4, cpus_of_nodes=(4,) * 5)  # another run's, perhaps
    assert ward.ended_within(1_000, a_shard_every=10) is None
    assert ward.running[0].max_size() == 4


def test_as_many_cpus_on_nodes_too_small_for_an_encoder_are_a_change_too() -> None:
    ward = Ward(16)
    ward.there = ward.watch.made_for = Cluster(16, 0, 8, cpus_of_nodes=(8, 8))
    assert ward.ended_within(100, a_shard_every=10) is None
    ward.there = Cluster(16, 0, 2, cpus_of_nodes=(2, 6, 8))
    assert ward.ended_within(600, a_shard_every=10) is None
    assert ward.ended_within(600) == pytest.approx(30, abs=6)


def test_fewer_gpus_than_an_engine_has_do_not_count() -> None:
    ward = Ward(16, 8, gpus_needed=4)
    ward.there = Cluster(16, 3, 2, gpus_of_nodes=(1, 2))
    assert ward.ended_within(2_000) is None


def pool_of_ray_data(size: int, cpus: float, gpus: float | None = None) -> _ActorPool:
    """One that has nothing to do; to `scale` it would need Ray."""
    each = ExecutionResources(cpu=cpus, gpu=gpus)
    return _ActorPool(None, AutoscalingActorConfig(size, size, size, 2, 2, each))  # type: ignore[arg-type]


def test_where_nodes_join_a_stage_of_the_same_actors_is_given_more_of_them() -> None:
    ward = Ward(2)
    ward.running = [pool_of_ray_data(2, 0.97)]
    assert ward.ended_within(100, a_shard_every=10) is None
    for cpus in (3, 5):
        ward.has(cpus)
        assert ward.ended_within(8, a_shard_every=3) is None
        assert ward.running[0].max_size() < cpus, "one that it replaces may not be believed lost yet"
        assert ward.ended_within(12, a_shard_every=3) is None
        assert (ward.running[0].min_size(), ward.running[0].max_size()) == (cpus, cpus)
        assert ward.watch.made_for == ward.there
    assert ward.ended_within(2_000, a_shard_every=10) is None
    ward.has(2)  # those that joined are lost again
    assert ward.ended_within(600) == pytest.approx(30, abs=6)


@pytest.mark.parametrize("running", [[(2, 3.97)], [(9, 0.97)], [(2, 0.97), (2, 0.97)]])
def test_a_stage_of_other_actors_begins_anew(running: list[tuple[int, float]]) -> None:
    ward = Ward(2)
    ward.running = [pool_of_ray_data(*one) for one in running]
    ward.has(5)
    assert ward.ended_within(1_000, a_shard_every=10) == pytest.approx(35, abs=6)
    assert [pool.max_size() for pool in ward.running] == [size for size, _ in running]


def test_engines_of_several_gpus_are_given_more_too() -> None:
    """In placement groups: their actors reserve nothing themselves."""
    ward = Ward(16, 4, gpus_needed=2)
    ward.watch.pools_of = lambda cluster: text_pools(cluster, 2)
    ward.running = [pool_of_ray_data(size, 0) for size in (2, 2, 2)]
    ward.there = Cluster(16, 8, 4, gpus_of_nodes=(4, 4))
    assert ward.ended_within(100, a_shard_every=10) is None
    assert [pool.max_size() for pool in ward.running] == [2, 4, 2]


def test_cpus_that_come_and_go_beside_gpus_are_no_reason_to_begin_anew_and_hide_no_gpus() -> None:
    ward = Ward(64, 4)
    ward.watch.pools_of = unit_pools
    ward.running = [pool_of_ray_data(12, 1), pool_of_ray_data(4, 0, 1)]
    for cpus, nodes in ((128, (64, 64)), (64, (64,)), (64, (32, 32))):
        ward.there = Cluster(cpus, 4, 32, cpus_of_nodes=nodes)
        assert ward.ended_within(1_000) is None, "a first shard may take longer than any wait"
    ward.there = Cluster(96, 12, 32, cpus_of_nodes=(32, 64))
    assert ward.ended_within(20) is None
    assert [pool.max_size() for pool in ward.running] == [36, 12]
