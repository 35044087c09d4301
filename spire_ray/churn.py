"""Nodes that are lost, and nodes that join, while a stage runs: whether its actors still suit the cluster.

Where nodes join, the running stage is given more actors, if those are such as it has. Ray Data starts a lost actor
again and keeps its shards for it, for ever where it has no place any more: a node that is replaced costs its shards
alone, but one that is not keeps them, and can leave readers without a CPU whose encoders wait for them with GPUs in
their hands. So a stage that stands still on fewer or other nodes, or could have other actors, is begun anew for the
shards that are left, with actors for the nodes there are. Ray Data's execution callbacks are where that can be done.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.actor_pool_map_operator import _ActorPool
from ray.exceptions import RayError

from spire_ray.pools import Pool
from spire_ray.resources import Cluster, of_this_cluster

LOOK_EVERY_S = 5.0
MORE_AFTER_S = 10.0  # a node may have joined in place of one that is not yet believed lost
ANEW_AFTER_S = 30.0  # nodes join one after another: not anew for each
STILL_S = 30.0  # without a shard, and twice the longest wait for one so far
IDLE_S = 5.0  # between two stages a shard is nobody's for a moment
STILL_AT_FIRST_S = 120.0  # before the first shard: models are loaded


class ClusterChanged(Exception):
    """The actors of the running stage do not suit the cluster any more."""


class Watch(ExecutionCallback):
    """Gives a stage more actors, or ends it, when the cluster is not the one it is `made_for`.

    `made_for` is then what it has actors for; `changed`, of a stage that was ended, what there was instead. A stage may
    have actors for more, what is `wanted` of an autoscaler: they wait for a place.

    Where all nodes together have fewer GPUs than `gpus_needed`, and with less than a CPU, there is nothing but to wait.
    When `stopped`, the shards that run are let commit; once none runs, the stage ends.
    """

    def __init__(
        self,
        made_for: Cluster,
        pools_of: Callable[[Cluster], Sequence[Pool]],
        wanted: Callable[[Cluster], Cluster] = lambda there: there,
        gpus_needed: int = 0,
        stopped: Callable[[], bool] = lambda: False,
        look: Callable[[], Cluster] = of_this_cluster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.made_for = made_for
        self.pools_of = pools_of
        self.wanted = wanted
        self.gpus_needed = gpus_needed
        self.stopped = stopped
        self.look = look
        self.clock = clock
        self.changed: Cluster | None = None
        self.looked_at = self.shard_at = clock()
        self.longest_wait_s: float | None = None
        self.other: tuple[Cluster, float] | None = None  # than it was made for, and since when
        self.idle_at: float | None = None  # when a stopped stage was first seen with nothing to do

    def __reduce__(self) -> "tuple[type[Watch], tuple[Any, ...]]":
        """Ray Data sends its settings, and this with them, to its actors, where it watches nothing."""
        return Watch, (self.made_for, None)

    def committed(self, busy_s: float = 0.0) -> None:
        """A shard has ended, which was under work for `busy_s`: several that end together say little of the next."""
        now = self.clock()
        # The first wait is the models' too.
        wait_s = 0.0 if self.longest_wait_s is None else now - self.shard_at
        self.longest_wait_s = max(busy_s, wait_s, self.longest_wait_s or 0.0)
        self.shard_at = now

    def check(self, running: Sequence[_ActorPool] = ()) -> None:
        """More actors for the `running` pools, or ClusterChanged when the stage had better begin anew, or end."""
        now = self.clock()
        if self.stopped():
            self._end_once_idle(running, now)
            return
        if now - self.looked_at < LOOK_EVERY_S:
            return
        self.looked_at = now
        try:
            there = self.look()
        except RayError:  # the head is busy: there will be another look
            return
        if there.shape == self.made_for.shape:
            self.other = None
            return
        if self.other is None or self.other[0].shape != there.shape:
            self.other = there, now
        if there.cpus < 1 or not self._has_gpus(there):
            return
        wanted = self.pools_of(self.wanted(there))
        if not self._lost(there) and self._may_have(wanted, running):
            if now - self.other[1] >= MORE_AFTER_S:
                self.made_for, self.other = there, None
                self._give(wanted, running)
        elif self._better_anew(there, now - self.other[1], now - self.shard_at):
            self.changed = there
            raise ClusterChanged

    def _end_once_idle(self, running: Sequence[_ActorPool], now: float) -> None:
        """ClusterChanged when nothing that lives has worked for a while: nodes or models are waited for."""
        states = [state for pool in running for state in pool._running_actors.values()]
        if any(state.num_tasks_in_flight and not state.is_restarting for state in states):
            self.idle_at = None
            return
        self.idle_at = now if self.idle_at is None else self.idle_at
        if now - self.idle_at >= IDLE_S:
            self.changed = self.made_for
            raise ClusterChanged

    def _has_gpus(self, there: Cluster) -> bool:
        return not self.gpus_needed or there.engines_of(self.gpus_needed) > 0

    def _lost(self, there: Cluster) -> bool:
        """Whether there is less room than there was. More may be asked for, but that may take its time to come."""
        was = self.made_for
        if there.device != was.device:  # those of CPUs are other pools
            return False
        if self.gpus_needed and there.engines_within_nodes(self.gpus_needed) < was.engines_within_nodes(
            self.gpus_needed
        ):
            return True
        pairs = zip(self.pools_of(there), self.pools_of(was), strict=True)
        return any(now.size < had.size for now, had in pairs)

    def _may_have(self, wanted: Sequence[Pool], running: Sequence[_ActorPool]) -> bool:
        """Whether the `running` pools are the `wanted` ones or smaller, of actors that reserve the same."""
        if len(wanted) != len(running):
            return False
        for pool, has in zip(wanted, running, strict=True):
            each = has.per_actor_resource_usage()  # which Ray Data has rounded
            num_gpus = 0 if pool.in_groups else pool.num_gpus
            if (each.cpu, each.gpu) != (round(pool.num_cpus, 5), round(num_gpus, 5)):
                return False
            if pool.size < has.max_size():
                return False
        return True

    def _give(self, wanted: Sequence[Pool], running: Sequence[_ActorPool]) -> None:
        for pool, has in zip(wanted, running, strict=True):  # Ray Data starts what a pool has not: below its least
            has._config = replace(has._config, min_size=pool.size, initial_size=pool.size, max_size=pool.size)

    def _better_anew(self, there: Cluster, other_for_s: float, still_s: float) -> bool:
        was = self.made_for
        # As many CPUs and GPUs on other nodes are no more: an actor for 4 CPUs has no place where 8 became 6 and 2.
        # Nor are CPUs where there are GPUs: they make no more encoders or engines, and come and go with an autoscaler.
        grown = there.gpus > was.gpus or (there.cpus > was.cpus and not was.gpus)
        if grown and there.cpus >= was.cpus and there.gpus >= was.gpus:
            return other_for_s >= ANEW_AFTER_S
        wait_s = self.longest_wait_s
        return still_s > (STILL_AT_FIRST_S if wait_s is None else max(STILL_S, 2 * wait_s))

    def on_execution_step(self, executor: Any) -> None:
        """Ray Data's call, some times a second, in the thread that runs the dataset."""
        running = [pool for operator in executor._topology for pool in operator.get_autoscaling_actor_pools()]
        try:
            self.check(running)
        except ClusterChanged:
            # Those that have no place would wait for one for ever, and take it from the new ones.
            for pool in running:
                for actor in (*pool._running_actors, *pool._pending_actors.values()):
                    with suppress(RayError, ValueError):
                        ray.kill(actor)
            raise

    @contextmanager
    def on(self) -> Iterator[None]:
        """Datasets that are made in this block are watched."""
        callbacks: list[Any] = DataContext.get_current().custom_execution_callback_classes

        def this() -> "Watch":  # Ray Data wants a class without arguments
            return self

        callbacks.append(this)
        try:
            yield
        finally:
            callbacks.remove(this)
