"""What the actors reserve fits into what the cluster has: otherwise Ray would wait for ever."""

import pytest

from spire_ray import resources
from spire_ray.resources import Cluster, Pool


def reserved(*pools: Pool) -> tuple[float, float]:
    return sum(pool.size * pool.num_cpus for pool in pools), sum(pool.size * pool.num_gpus for pool in pools)


CLUSTERS = [
    Cluster(cpus, gpus, node_cpus)
    for cpus in (2, 3, 4, 8, 30, 64, 512)
    for gpus in (0, 1, 2, 4, 8, 16)
    for node_cpus in (1, 2, 4, 64)
    if gpus <= cpus and node_cpus <= cpus
]


@pytest.mark.parametrize("gpus_each", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("cluster", CLUSTERS, ids=str)
def test_both_pipelines_fit_into_any_cluster(cluster: Cluster, gpus_each: float) -> None:
    encoders, engines = resources.encoder_pool(cluster, gpus_each), resources.engine_pool(cluster)
    units = (resources.reader_pool(cluster, encoders), encoders, resources.commit_pool(encoders))
    text = (resources.loader_pool(engines), engines, resources.commit_pool(engines))
    for pools in (units, text):
        used_cpus, used_gpus = reserved(*pools)
        assert used_cpus <= cluster.cpus
        assert used_gpus in (0, pytest.approx(cluster.gpus))
        assert all(pool.size >= 1 for pool in pools)
    if not cluster.gpus:
        assert encoders.num_cpus <= cluster.node_cpus
        assert encoders.threads is not None
        assert encoders.size * encoders.threads <= cluster.cpus


def test_encoders_share_gpus_as_asked() -> None:
    cluster = Cluster(cpus=64, gpus=4, node_cpus=64)
    assert [resources.encoder_pool(cluster, share).size for share in (1, 0.5, 0.4, 0.25, 0.1)] == [4, 8, 8, 16, 40]
    assert resources.encoder_pool(cluster, 0.5).num_gpus == 0.5


def test_without_an_address_or_a_cluster_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **settings: object) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(resources.UserError, match=r"no Ray cluster answers at 127.0.0.1:1: nobody answers"):
        resources.connect("127.0.0.1:1")
