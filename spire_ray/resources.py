"""Ray on one machine or a cluster, and how many actors of which size its GPUs and CPUs carry."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Before ray is imported: no usage reports, and no exporters, which crash workers (NeMo Curator PR 1842).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OTEL_SDK_DISABLED", "true")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray prints an error for each restartable actor of Ray Data (ray issue 53727), into the live line.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray

CPUS_PER_ENCODER = 4  # without GPUs: beyond 4 threads an encoder gains less than a second actor does
READERS_PER_GPU = 3  # MP3 at 4,000x per core feeds an encoder at 12,000x


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


def connect(address: str | None) -> dict[str, float]:
    """Join the cluster at `address` (or RAY_ADDRESS), else start Ray on this machine alone, bound to loopback.

    Returns the cluster's resources by name: CPU, GPU, memory in bytes.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {}
    if address == "local":
        # Two logical CPUs at the least: an encoder, a reader and a commit reserve 1.75 together.
        settings = {
            "num_cpus": max(2, len(os.sched_getaffinity(0))),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    with _quiet():
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, namespace="spire_ray", **settings)
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return of_this_cluster()


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


def of_this_cluster() -> dict[str, float]:
    """The resources of the cluster this process has joined."""
    return {name: float(amount) for name, amount in ray.cluster_resources().items()}  # type: ignore[no-untyped-call]


def encoder_pool(cluster: dict[str, float]) -> Pool:
    """One encoder to a GPU; without GPUs one to four CPUs, leaving a CPU of each four to the readers."""
    if gpus := int(cluster.get("GPU", 0)):
        return Pool(gpus, num_cpus=1, num_gpus=1)
    cpus = int(cluster.get("CPU", 1))
    size = max(1, cpus // CPUS_PER_ENCODER)
    threads = max(1, min(cpus, len(os.sched_getaffinity(0))) // size) if size == 1 else CPUS_PER_ENCODER
    return Pool(size, num_cpus=max(1, threads - 1), num_gpus=0, threads=threads)


def reader_pool(cluster: dict[str, float], encoders: Pool) -> Pool:
    """Readers enough for the encoders, within the CPUs those leave."""
    if encoders.num_gpus:
        spare = int(cluster.get("CPU", 1) - encoders.size * encoders.num_cpus)
        return Pool(max(1, min(READERS_PER_GPU * encoders.size, spare - 1)), num_cpus=1, num_gpus=0)
    return Pool(encoders.size, num_cpus=0.5, num_gpus=0)


def engine_pool(cluster: dict[str, float], tensor_parallel_size: int = 1) -> Pool:
    """One engine to a GPU, or to as many as share its tensors; without GPUs one with all CPUs but reading's."""
    if gpus := int(cluster.get("GPU", 0)):
        return Pool(max(1, gpus // tensor_parallel_size), num_cpus=1, num_gpus=tensor_parallel_size)
    return Pool(1, num_cpus=1, num_gpus=0)


def commit_pool(models: Pool) -> Pool:
    """Commits are small: one actor to eight of the models it serves."""
    return Pool(-(-models.size // 8), num_cpus=0.25, num_gpus=0)


def loader_pool(engines: Pool) -> Pool:
    """Loading a shard's units takes milliseconds: one actor to an engine."""
    return Pool(engines.size, num_cpus=0.5, num_gpus=0)
