"""What the actors reserve fits into what the cluster has: otherwise Ray would wait for ever."""

from dataclasses import replace

import pytest

from spire_ray.errors import UserError
from spire_ray.pools import Pool, encoder_pool, engine_pool, holder_pool, text_pools, unit_pools
from spire_ray.resources import Cluster, Wanted
from spire_ray.settings import EngineOptions


def reserved(*pools: Pool) -> tuple[float, float]:
    return sum(pool.size * pool.num_cpus for pool in pools), sum(pool.size * pool.num_gpus for pool in pools)


CLUSTERS = [
    Cluster(cpus, gpus, node_cpus)
    for cpus in (1, 2, 3, 4, 8, 30, 64, 512)
    for gpus in (0, 1, 2, 4, 8, 16)
    for node_cpus in (1, 2, 4, 64)
    if gpus <= cpus and node_cpus <= cpus
]


@pytest.mark.parametrize("gpus_each", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("cluster", CLUSTERS, ids=str)
def test_both_pipelines_fit_into_any_cluster(cluster: Cluster, gpus_each: float) -> None:
    units, encoders = unit_pools(cluster, gpus_each), encoder_pool(cluster, gpus_each)
    for pools in (units, text_pools(cluster)):
        used_cpus, used_gpus = reserved(*pools)
        assert used_cpus <= cluster.cpus
        assert used_gpus in (0, pytest.approx(cluster.gpus))
        assert all(pool.size >= 1 for pool in pools)
    if not cluster.gpus:
        assert encoders.num_cpus <= cluster.node_cpus
        assert encoders.threads is not None
        assert encoders.size * encoders.threads <= cluster.cpus


def placed(nodes: list[dict[str, float]], *pools: Pool) -> bool:
    """Whether all actors find a place when Ray puts each pool, in this order, on the nodes with the most room."""
    for pool in pools:
        for _ in range(pool.size):
            fitting = [node for node in nodes if node["cpus"] >= pool.num_cpus and node["gpus"] >= pool.num_gpus]
            if not fitting:
                return False
            node = max(fitting, key=lambda node: node["cpus"])
            node["cpus"] -= pool.num_cpus
            node["gpus"] -= pool.num_gpus
    return True


EQUAL_NODES = [
    (cpus,) * count for cpus in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 30, 31, 64) for count in (1, 2, 5)
]
MIXED_NODES = [(4, 7, 7, 7), (3, 8, 8, 8), (1, 30), (4, 64)]


@pytest.mark.parametrize("cpus", EQUAL_NODES + MIXED_NODES, ids=str)
def test_encoders_fill_the_nodes_and_none_takes_in_that_of_another(cpus: tuple[int, ...]) -> None:
    encoders = encoder_pool(Cluster(sum(cpus), 0, min(cpus), cpus_of_nodes=cpus))
    nodes = [{"cpus": float(count), "gpus": 0.0} for count in cpus]
    assert placed(nodes, encoders), encoders
    assert not placed(nodes, replace(encoders, size=1)), "one more than a node has threads for"
    assert encoders.size >= sum(count // 4 for count in cpus)
    if len(set(cpus)) == 1:
        assert encoders.size * (encoders.threads or 0) >= 0.8 * sum(cpus)
    assert placed([{"cpus": float(count), "gpus": 0.0} for count in cpus], holder_pool(encoders), encoders)


@pytest.mark.parametrize(("cpu_nodes", "gpu_node"), [(1, (8, 8)), (4, (4, 8)), (2, (1, 1)), (0, (16, 8))])
def test_readers_leave_the_gpus_to_the_encoders(cpu_nodes: int, gpu_node: tuple[int, int]) -> None:
    cpus, gpus = gpu_node
    nodes = [{"cpus": 32.0, "gpus": 0.0} for _ in range(cpu_nodes)] + [{"cpus": float(cpus), "gpus": float(gpus)}]
    cluster = Cluster(sum(node["cpus"] for node in nodes), gpus, min(32, cpus))
    assert placed([dict(node) for node in nodes], *unit_pools(cluster))
    assert placed([dict(node) for node in nodes], *text_pools(cluster))


@pytest.mark.parametrize(
    ("tensor_parallel", "gpu_nodes", "within", "over"),
    [
        (1, (2, 2), 4, 0),
        (2, (2, 2), 2, 0),
        (2, (3, 3), 2, 1),
        (4, (8, 2), 2, 0),
        (4, (8, 2, 2), 2, 1),
        (2, (1, 1, 4), 2, 1),
        (2, (1, 1, 1, 1, 2), 1, 2),
        (2, (1, 1, 1), 0, 1),
        (2, (1,), 0, 0),
    ],
)
def test_an_engine_is_in_one_node_or_else_in_several(
    tensor_parallel: int, gpu_nodes: tuple[int, ...], within: int, over: int
) -> None:
    cluster = Cluster(16, sum(gpu_nodes), 4, gpus_of_nodes=gpu_nodes)
    assert cluster.engines_within_nodes(tensor_parallel) == within
    assert cluster.engines_of(tensor_parallel) == within + over
    if within + over:
        pool = engine_pool(cluster, tensor_parallel)
        assert (pool.size, pool.num_gpus, pool.in_groups) == (within + over, tensor_parallel, tensor_parallel > 1)
        nodes = [{"cpus": 4.0, "gpus": float(gpus)} for gpus in gpu_nodes] + [{"cpus": 4.0, "gpus": 0.0}]
        assert placed(nodes, replace(pool, size=within))
        EngineOptions(tensor_parallel_size=tensor_parallel).check_fits(cluster.gpus)


def test_an_engine_that_the_cluster_cannot_hold_is_refused() -> None:
    options = EngineOptions(tensor_parallel_size=2)
    for gpus in (0, 1):
        with pytest.raises(UserError, match=rf"^--tensor-parallel 2 needs as many GPUs, but there are {gpus}$"):
            options.check_fits(gpus)


def test_more_actors_than_shards_are_not_made() -> None:
    pools = [pool.of_at_most(3) for pool in unit_pools(Cluster(cpus=64, gpus=8, node_cpus=64))]
    assert [pool.size for pool in pools] == [3, 3]
    assert [pool.of_at_most(100) for pool in pools] == pools


@pytest.mark.parametrize("cluster", CLUSTERS, ids=str)
def test_a_run_that_wants_nothing_takes_what_is_there(cluster: Cluster) -> None:
    assert Wanted().on(cluster) == cluster
    fewer = Wanted(cpus=1).on(cluster)
    assert (fewer.cpus, fewer.node_cpus, fewer.gpus) == (1, 1, cluster.gpus)


@pytest.mark.parametrize("gpus_each", [1.0, 0.5])
@pytest.mark.parametrize("node", [(8, 1), (4, 1), (2, 1), (32, 8)])
def test_the_actors_are_the_same_or_more_while_the_gpus_that_were_asked_for_come(
    node: tuple[int, int], gpus_each: float
) -> None:
    """Otherwise the stage would begin anew with each node."""
    wanted, (cpus, gpus) = Wanted(gpus=16), node
    made = [*unit_pools(wanted.on(Cluster(0, 0, 1)), gpus_each), *text_pools(wanted.on(Cluster(0, 0, 1)))]
    assert [pool.size for pool in made] == ([48, 16, 3, 16, 3] if gpus_each == 1 else [56, 32, 3, 16, 3])
    for nodes in range(1, 16 // gpus + 1):
        there = Cluster(cpus * nodes, gpus * nodes, cpus, cpus_of_nodes=(cpus,) * nodes, gpus_of_nodes=(gpus,) * nodes)
        now = [*unit_pools(wanted.on(there), gpus_each), *text_pools(wanted.on(there))]
        for pool, had in zip(now, made, strict=True):
            assert (pool.num_cpus, pool.num_gpus) == (had.num_cpus, had.num_gpus)
            assert pool.size >= had.size
        made = now


@pytest.mark.parametrize(
    ("there", "asked", "of_nodes"),
    [((), 3, (1, 1, 1)), ((2,), 7, (1, 2, 2, 2)), ((8,), 16, (8, 8)), ((2, 8), 8, (8,)), ((2, 8), 3, (3,))],
)
def test_the_nodes_that_a_run_wants_are_such_as_there_are(
    there: tuple[int, ...], asked: int, of_nodes: tuple[int, ...]
) -> None:
    """Fewer than there are, too: of two runs on a cluster neither asks for the nodes that are the other's."""
    aim = Wanted(gpus=asked).on(Cluster(8.0 * len(there), sum(there), 8, gpus_of_nodes=there))
    assert (aim.gpus, aim.gpus_of_nodes) == (asked, of_nodes)


def test_encoders_on_cpus_that_are_still_to_come() -> None:
    assert encoder_pool(Wanted(cpus=32).on(Cluster(0, 0, 1))).size == 8
    some = Wanted(cpus=32).on(Cluster(12, 0, 6, cpus_of_nodes=(6, 6)))
    assert (encoder_pool(some).size, encoder_pool(some).threads) == (10, 3)


def test_kinds_of_gpus_are_taken_alike() -> None:
    cluster = Cluster(64, 6, 16, ("accelerator_type:A100", "accelerator_type:H200"), gpus_of_nodes=(2, 4))
    assert encoder_pool(cluster).size == engine_pool(cluster).size == 6


@pytest.mark.parametrize(
    ("cpu_nodes", "gpu_nodes", "off_gpus"), [((8, 8), (1, 1), False), ((8, 8, 16), (1, 1), True), ((32,), (4,), False)]
)
def test_readers_are_on_nodes_without_gpus_where_there_are_some(
    cpu_nodes: tuple[int, ...], gpu_nodes: tuple[int, ...], off_gpus: bool
) -> None:
    cluster = Cluster(sum(cpu_nodes), sum(gpu_nodes), 8, gpus_of_nodes=gpu_nodes, cpus_of_nodes=cpu_nodes)
    readers, encoders = unit_pools(cluster)
    assert (readers.off_gpus, encoders.off_gpus) == (off_gpus, False)


def test_encoders_share_gpus_as_asked() -> None:
    cluster = Cluster(cpus=64, gpus=4, node_cpus=64)
    assert [encoder_pool(cluster, share).size for share in (1, 0.5, 0.4, 0.25, 0.1)] == [4, 8, 8, 16, 40]
    assert encoder_pool(cluster, 0.5).num_gpus == 0.5
