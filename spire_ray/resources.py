"""Ray on one machine or a cluster, and how many actors of which size its GPUs and CPUs carry."""

import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Before ray is imported: no usage reports, and no exporters, which crash workers (NeMo Curator PR 1842).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OTEL_SDK_DISABLED", "true")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray prints an error for each restartable actor of Ray Data (ray issue 53727), into the live line.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
from ray._private import ray_constants

from spire_ray.errors import MachineFault, UserError

TOKEN = "where it asks for its token, set RAY_AUTH_MODE=token and put the token into ~/.ray/auth_token"
CPUS_PER_ENCODER = 4  # without GPUs: beyond 4 threads an encoder gains less than a second actor does
# A GPU's actor feeds it, and readers leave it that. It reserves nothing: readers spread over all nodes and start first,
# so that on a machine of few CPUs and many GPUs it would wait for a CPU for ever.
GPU_ACTOR_CPUS = 0.5
# While a codebook is fitted a GPU is shared: more than half of it is the holder's, so that no two are on one.
HOLDER_GPUS, SHARED_ENCODER_GPUS = 0.6, 0.4
# It idles while others encode. An encoder on CPUs leaves room for 30, for that may be spread unevenly over nodes.
HOLDER_CPUS, HOLDERS_CPUS = 0.001, 0.03
RAY_ROOM = 100 << 20  # bytes: a session's logs and sockets take tens of MB
READERS_PER_GPU = 3  # MP3 at 4,000x per core feeds an encoder at 12,000x; silero's threads (activity.py) are beside it


@dataclass(frozen=True)
class Cluster:
    """What Ray has."""

    cpus: float
    gpus: int
    node_cpus: int  # of the smallest node that has any
    accelerators: tuple[str, ...] = ()
    memory: float = 0.0  # bytes that Ray lends to actors, of all nodes
    gpus_of_nodes: tuple[int, ...] = ()  # of each node that has any; empty: all are in one
    cpus_of_nodes: tuple[int, ...] = ()  # likewise

    @property
    def shape(self) -> tuple[float, int, tuple[int, ...], tuple[int, ...]]:
        """What actors find a place by: CPUs and GPUs, in all and node by node."""
        return self.cpus, self.gpus, self.cpus_of_nodes, self.gpus_of_nodes

    @property
    def device(self) -> str:
        """Where models run: cuda where there are GPUs, else cpu."""
        return "cuda" if self.gpus else "cpu"

    def engines_of(self, gpus_each: int) -> int:
        """How many engines that share their tensors between `gpus_each` GPUs of a node find a place."""
        return sum(gpus // gpus_each for gpus in self.gpus_of_nodes or (self.gpus,))


@dataclass(frozen=True)
class Pool:
    """`size` actors, each reserving `num_cpus` and `num_gpus`, with `threads` threads each (None: torch's choice)."""

    size: int
    num_cpus: float
    num_gpus: float
    threads: int | None = None

    @property
    def device(self) -> str:
        """Where its actors compute."""
        return "cuda" if self.num_gpus else "cpu"


def connect(address: str | None) -> Cluster:
    """Join the cluster at `address` (or RAY_ADDRESS), else start Ray on this machine alone, bound to loopback.

    UserError when there is no cluster at `address`, MachineFault when Ray has no room for its files here.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {}
    if address == "local":
        _check_room(ray_folder())
        # Ray makes the machine's outward address of 127.0.0.1, and listens on every interface, unless this says that
        # there is no cluster: in this process by the constant, in those it starts by the variable.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        ray_constants.ENABLE_RAY_CLUSTER = False
        settings = {
            "num_cpus": len(os.sched_getaffinity(0)),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    with _quiet():
        try:
            _init(address, settings)
        except (ConnectionError, RuntimeError, ValueError) as fault:
            raise UserError(f"no Ray cluster answers at {address}: {fault}; {TOKEN}") from fault
        except Exception as fault:
            raise MachineFault(f"Ray does not start here: {fault}") from fault
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return of_this_cluster()


def _init(address: str, settings: Mapping[str, Any]) -> None:
    """On a busy machine a node may not be up after the 30 s that Ray waits: by then what it reads lies in memory.

    What the first attempt has started idles until this process ends.
    """
    for attempt in (1, 2):
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, namespace="spire_ray", **settings)
            return
        except Exception as fault:  # of no class of its own
            if attempt == 2 or "timed out during startup" not in str(fault):
                raise


def ray_folder() -> str:
    """Where Ray on this machine keeps its logs, and what does not fit into memory."""
    return os.environ.get("RAY_TMPDIR") or "/tmp"


def _check_room(folder: str) -> None:
    there = Path(folder)
    while not there.exists():  # Ray makes it
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < RAY_ROOM:
        raise MachineFault(f"{folder} has {free >> 20} MB free: Ray keeps its files there, or where RAY_TMPDIR says")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what Ray's start prints, unless it fails: its C++ part writes to the descriptor itself."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def of_this_cluster() -> Cluster:
    """The resources of the cluster this process has joined."""
    totals: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus = tuple(sorted(int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1))
    return Cluster(
        cpus=float(totals.get("CPU", 0)),
        gpus=int(totals.get("GPU", 0)),
        node_cpus=min(cpus, default=1),
        accelerators=tuple(sorted(name for name in totals if name.startswith("accelerator_type:"))),
        memory=float(totals.get("memory", 0)),
        gpus_of_nodes=tuple(sorted(int(node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1)),
        cpus_of_nodes=cpus,
    )


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
    """Readers enough for encoders on GPUs, within the CPUs those leave."""
    feeding = encoders.size * encoders.num_gpus * GPU_ACTOR_CPUS
    spare = cluster.cpus - feeding
    if spare < 1:
        return Pool(1, num_cpus=0.25, num_gpus=0)
    return Pool(min(READERS_PER_GPU * encoders.size, int(spare)), num_cpus=1, num_gpus=0)


def engine_pool(cluster: Cluster, tensor_parallel_size: int = 1) -> Pool:
    """One engine to a GPU, or to as many as share its tensors; without GPUs one engine on all CPUs of its node."""
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
