"""How many actors of which size the GPUs and CPUs of a cluster carry, stage by stage."""

import math
from dataclasses import dataclass, replace

from spire_ray.resources import Cluster

CPUS_PER_ENCODER = 4  # without GPUs: beyond 4 threads an encoder gains less than a second actor does
# A GPU's actor feeds it, and readers leave it that. It reserves nothing: readers spread over all nodes and start first,
# so that on a machine of few CPUs and many GPUs it would wait for a CPU for ever.
GPU_ACTOR_CPUS = 0.5
# While a codebook is fitted a GPU is shared: more than half of it is the holder's, so that no two are on one.
HOLDER_GPUS, SHARED_ENCODER_GPUS = 0.6, 0.4
# It idles while others encode. An encoder on CPUs leaves room for 30, for that may be spread unevenly over nodes.
HOLDER_CPUS, HOLDERS_CPUS = 0.001, 0.03
READERS_PER_GPU = 3  # MP3 at 4,000x per core feeds an encoder at 12,000x; silero's threads (activity.py) are beside it


@dataclass(frozen=True)
class Pool:
    """`size` actors, each reserving `num_cpus` and `num_gpus`, with `threads` threads each (None: torch's choice).

    Several GPUs are reserved for an actor by a placement group, one by the actor itself.
    """

    size: int
    num_cpus: float
    num_gpus: float
    threads: int | None = None
    off_gpus: bool = False  # on nodes without GPUs, as far as these have room

    @property
    def device(self) -> str:
        """Where its actors compute."""
        return "cuda" if self.num_gpus else "cpu"

    @property
    def in_groups(self) -> bool:
        """Whether each actor is in a placement group, and reserves no GPU itself."""
        return self.num_gpus > 1

    def of_at_most(self, shards: int) -> "Pool":
        """The pool for so many shards: more actors would load their models, and hold what they reserve, for nothing."""
        return replace(self, size=min(self.size, shards))


def encoder_pool(cluster: Cluster, gpus_each: float = 1.0) -> Pool:
    """One encoder to a GPU, or to a share of one; without GPUs one to at most four CPUs, which reads for itself."""
    if cluster.gpus:
        # Ray puts an actor on one GPU, so that 0.4 makes two to a GPU and leaves a fifth of it.
        return Pool(cluster.gpus * int(1 / gpus_each + 1e-9), num_cpus=0, num_gpus=gpus_each)
    # As many as fill a node: of two nodes with 6 CPUs, three encoders with 4 threads leave one without a place.
    threads = cluster.node_cpus // -(-cluster.node_cpus // CPUS_PER_ENCODER)
    share = cluster.node_cpus / (cluster.node_cpus // threads)  # 15 CPUs: five with three threads, not four
    size = sum(int(cpus / share + 1e-9) for cpus in cluster.cpus_of_nodes or (cluster.cpus,))
    # All of its share but the holders': when its node is lost, an encoder must not double up with another.
    num_cpus = math.floor(100 * (share - HOLDERS_CPUS) + 1e-9) / 100
    return Pool(max(1, size), num_cpus, num_gpus=0, threads=threads)


def holder_pool(encoders: Pool) -> Pool:
    """Holders of frames, as many as there are encoders and on the same GPUs, which `sharing` leaves room for."""
    num_gpus = HOLDER_GPUS if encoders.num_gpus else 0
    return Pool(encoders.size, HOLDER_CPUS, num_gpus, encoders.threads)


def sharing(encoders: Pool) -> Pool:
    """The encoders, each beside a holder on its GPU."""
    return replace(encoders, num_gpus=SHARED_ENCODER_GPUS if encoders.num_gpus else 0)


def cutter_pool(cluster: Cluster) -> Pool:
    """One to a CPU: it decodes and listens on one thread."""
    return Pool(max(1, int(cluster.cpus)), num_cpus=0.75, num_gpus=0)


def reader_pool(cluster: Cluster, encoders: Pool) -> Pool:
    """Readers enough for encoders on GPUs, within the CPUs those leave, on nodes without GPUs where there are some."""
    feeding = encoders.size * encoders.num_gpus * GPU_ACTOR_CPUS
    spare = cluster.cpus - feeding
    if spare < 1:
        return Pool(1, num_cpus=0.25, num_gpus=0)
    off_gpus = len(cluster.cpus_of_nodes) > len(cluster.gpus_of_nodes)
    return Pool(min(READERS_PER_GPU * encoders.size, int(spare)), num_cpus=1, num_gpus=0, off_gpus=off_gpus)


def engine_pool(cluster: Cluster, tensor_parallel_size: int = 1) -> Pool:
    """One engine to a GPU, or to as many as share its tensors; without GPUs one engine on all CPUs of a node."""
    if cluster.gpus:
        engines = max(1, cluster.engines_of(tensor_parallel_size))
        return Pool(engines, num_cpus=0, num_gpus=tensor_parallel_size)
    return Pool(1, num_cpus=1, num_gpus=0)


def small_pool(models: Pool) -> Pool:
    """What loads a shard's units for models, or commits what they make: milliseconds, and all shards pass it.

    One actor to eight models, and one more: a node may be lost unnoticed for 15 s. They reserve nothing, so that they
    find a place on what is left then.
    """
    return Pool(min(models.size, 1 + -(-models.size // 8)), num_cpus=0, num_gpus=0)


def unit_pools(cluster: Cluster, gpus_per_encoder: float = 1.0) -> list[Pool]:
    """From audio to units, stage by stage: see `fed`."""
    return fed(cluster, encoder_pool(cluster, gpus_per_encoder))


def fed(cluster: Cluster, encoders: Pool) -> list[Pool]:
    """GPUs are fed by readers on any node. On CPUs, where reading is the small part, an encoder reads for itself."""
    return [reader_pool(cluster, encoders), encoders] if encoders.num_gpus else [encoders]


def text_pools(cluster: Cluster, tensor_parallel_size: int = 1) -> list[Pool]:
    """From units to text, stage by stage: what loads shards, engines, what commits."""
    engines = engine_pool(cluster, tensor_parallel_size)
    return [small_pool(engines), engines, small_pool(engines)]


def segment_pools(cluster: Cluster) -> list[Pool]:
    """From recordings to segments, stage by stage: what listens, what commits."""
    cutters = cutter_pool(cluster)
    return [cutters, small_pool(cutters)]
