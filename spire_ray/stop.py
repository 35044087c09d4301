"""Ctrl-C and SIGTERM: running shards commit, no new one begins, and the run ends within a bound."""

import inspect
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spire_ray.errors import Interrupted

GRACE_SECONDS = 300  # spot machines give 30 to 120 s: what has not committed by then is done again


class _Flag:
    def __init__(self) -> None:
        self.up = False

    def raise_(self) -> None:
        self.up = True

    def is_up(self) -> bool:
        return self.up


class StopSignal:
    """In its `with` block the first signal raises a flag all stages look at; a second, or GRACE_SECONDS, ends it."""

    def __init__(self) -> None:
        # Beside the driver: on a node that is lost, it would take every stage with it. With soft=True, on a busy
        # machine of three nodes, it was once on another.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        flag = ray.remote(_Flag).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        self.flag: Any = flag.remote()
        self.requested = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        # Not from the handler itself: it may interrupt Ray's client while that holds its own locks.
        threading.Thread(target=self._forward, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _forward(self) -> None:
        self.requested.wait()
        self.flag.raise_.remote()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested.is_set():
            raise Interrupted("stopped at once")
        self.requested.set()
        signal.alarm(GRACE_SECONDS)

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"running shards did not commit within {GRACE_SECONDS} s")


def unless_stopped(stage: type[Any]) -> type[Any]:
    """`stage`, but from the moment the run is told to stop a shard goes no further: the stage returns no row for it.

    The class takes one more keyword, `flag` (the handle `StopSignal.flag`), keeps its name for Ray's displays, and adds
    the column `ready_at` to what it returns: when it was loaded, float64 seconds since the epoch.
    """

    class Stoppable:
        def __init__(self, flag: Any, **settings: Any) -> None:
            self.flag = flag
            self.stage = stage(**settings)
            self.ready_at = pa.array([time.time()], pa.float64())

    def call(self: Any, row: pa.Table) -> pa.Table:
        if ray.get(self.flag.is_up.remote()):
            return _no_row(row)
        return self.stage(row).append_column("ready_at", self.ready_at)

    async def call_async(self: Any, row: pa.Table) -> pa.Table:
        if await self.flag.is_up.remote():
            return _no_row(row)
        return (await self.stage(row)).append_column("ready_at", self.ready_at)

    asynchronous = inspect.iscoroutinefunction(stage.__call__)
    return type(stage.__name__, (Stoppable,), {"__call__": call_async if asynchronous else call})


def _no_row(row: pa.Table) -> pa.Table:
    return row.select(["shard", "attempt"]).slice(0, 0)
