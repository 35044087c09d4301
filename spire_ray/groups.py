"""Engines of several GPUs: each has a placement group of Ray's, in one node where one has so many, else in several.

vLLM starts a worker on each GPU of the group that its actor is in. Tensors cross the network between nodes at every
layer, so that more GPUs than a node has are for a model that does not fit otherwise.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray.util import get_current_placement_group, placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from spire_ray.engine import ENVIRONMENT
from spire_ray.resources import of_this_cluster

LOOK_EVERY_S = 1.0
LOSS_IS_KNOWN_S = 20.0  # Ray's own setting of health checks: 15 s


class Groups:
    """The groups of a stage's actors."""

    def __init__(self) -> None:
        self.made: list[PlacementGroup] = []
        self.within_nodes = 0

    def of(self, gpus: int) -> Callable[[], dict[str, Any]]:
        """What Ray Data asks of each actor that it starts: where it belongs, a new group of so many GPUs."""
        return partial(self._place, gpus)

    def _place(self, gpus: int) -> dict[str, Any]:
        in_one_node = self.within_nodes < of_this_cluster().engines_within_nodes(gpus)
        group = placement_group([{"GPU": 1}] * gpus, strategy="STRICT_PACK" if in_one_node else "PACK")
        self.made.append(group)
        self.within_nodes += in_one_node
        inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
        # Those of the actor are its workers' too; vLLM itself hands them variables only after they have imported it.
        variables = {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}
        return {"scheduling_strategy": inside, "runtime_env": {"env_vars": variables}}

    def remove(self) -> None:
        """What they hold is free again, and the actors in them are gone."""
        while self.made:
            remove_placement_group(self.made.pop())
        self.within_nodes = 0


def join_group() -> set[str]:
    """In an actor of a group, before its engine starts: waits until all GPUs of the group are there. Their nodes.

    Ray starts an actor again on the nodes that are left when one of its group is lost, and vLLM does not wait for
    another. For some seconds the group is told to be whole with a node in it that is dead.
    """
    group = get_current_placement_group()
    assert group is not None, "an engine of several GPUs is made in a group"
    while not (nodes := _whole(group)):
        time.sleep(LOOK_EVERY_S)
    # The engine's process joins Ray by itself, and would take whichever Ray of this machine started last.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    return nodes


def is_lost(nodes: set[str]) -> bool:
    """Whether one of them is, some seconds from now, when its loss is known."""
    time.sleep(LOSS_IS_KNOWN_S)
    return not nodes <= _alive()


def _whole(group: PlacementGroup) -> set[str]:
    about = placement_group_table(group)
    nodes = set(about["bundles_to_node_id"].values())
    return nodes if about["state"] == "CREATED" and nodes <= _alive() else set()


def _alive() -> set[str]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"] for node in nodes if node["Alive"]}
