"""Ray on one machine or a cluster: joining it, what it has, and what it is asked for."""

import logging
import os
import shutil
import socket
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
RAY_ROOM = 100 << 20  # bytes: a session's logs and sockets take tens of MB
ANSWER_S = 10.0
CPUS_OF_A_NEW_NODE = 4  # at the least, where there is no node to tell by
CPUS_WITH_A_GPU = 4  # three readers for its encoder, and the half CPU that feeds it: see pools.py


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
        """How many engines find a place that share their tensors between `gpus_each` GPUs.

        Each in one node; of the GPUs that are left over those of several nodes make up the others.
        """
        inside = self.engines_within_nodes(gpus_each)
        return inside + (self.gpus - inside * gpus_each) // gpus_each

    def engines_within_nodes(self, gpus_each: int) -> int:
        """How many of them have all their GPUs in one node."""
        return sum(gpus // gpus_each for gpus in self.gpus_of_nodes or (self.gpus,))


@dataclass(frozen=True)
class Wanted:
    """What a run wants of a cluster, whether it has it or not; 0: what there is.

    What is not there is asked for by the actors that find no place: autoscalers count those.
    """

    cpus: int = 0
    gpus: int = 0

    def on(self, there: Cluster) -> Cluster:
        """The cluster that the run is made for: with nodes that `there` is still to get, or without what is too much.

        Two runs on a cluster would else have each other's GPUs for theirs, and ask for twice as many again and again.
        """
        aim = there
        if self.gpus:
            in_nodes = there.gpus_of_nodes or (there.gpus,) * bool(there.gpus)
            aim = replace(aim, gpus=self.gpus, gpus_of_nodes=_in_nodes(self.gpus, in_nodes, max(in_nodes, default=1)))
        if cpus := self.cpus or max(int(there.cpus), CPUS_WITH_A_GPU * self.gpus) * bool(self.gpus):
            in_nodes = there.cpus_of_nodes or (int(there.cpus),) * bool(there.cpus)
            node_cpus = there.node_cpus if there.cpus else CPUS_OF_A_NEW_NODE
            in_nodes = _in_nodes(cpus, in_nodes, node_cpus)
            aim = replace(aim, cpus=cpus, node_cpus=min(node_cpus, cpus), cpus_of_nodes=in_nodes)
        return aim


def _in_nodes(total: int, there: tuple[int, ...], of_a_new_node: int) -> tuple[int, ...]:
    """The nodes that `total` is spread over: those that are `there`, the largest first, then new ones."""
    taken: list[int] = []
    for node in sorted(there, reverse=True):
        taken.append(min(node, total - sum(taken)))
    while (left := total - sum(taken)) > 0:
        taken.append(min(of_a_new_node, left))
    return tuple(sorted(size for size in taken if size))


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
    _check_answers(address)
    with _quiet(tell=address == "local"):
        try:
            _init(address, settings)
        except (ConnectionError, RuntimeError, ValueError) as fault:
            raise UserError(f"no Ray cluster answers at {address}: {fault}; {TOKEN}") from fault
        except Exception as fault:
            raise MachineFault(f"Ray does not start here: {fault}") from fault
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It takes a stage that is ended on purpose (churn.py) for a fault of Ray's own; of others the driver tells.
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)
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


def _check_answers(address: str) -> None:
    """UserError where nobody listens. Ray itself tries for a quarter of an hour, and no signal ends it."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "://" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as fault:
        raise UserError(f"no Ray cluster answers at {address}: {fault}") from fault


@contextmanager
def _quiet(tell: bool) -> Iterator[None]:
    """Keeps back what Ray's start prints: its C++ part writes to the descriptor itself. `tell`: all, if it fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            if tell:
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
