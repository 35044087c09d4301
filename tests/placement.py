"""A job whose stages say where Ray has put them: `python tests/placement.py FOLDER ACTORS SECONDS COMMAND …`.

COMMAND is one of spire-ray's, with its options. Readers and commits are the real ones; an encoder and an engine that
are a line of arithmetic stand for the models, so that the GPUs may be such as `ray start --num-gpus` makes up. ACTORS,
a JSON object, is how many there must be of a stage; the stage does no shard before they are all there. An encoder
takes SECONDS more for a shard than it needs, so that what was read waits for it. Each actor writes
FOLDER/STAGE-ID.json: `node_gpus` and `node_cpus` of the node that it is on, the `cpus` and `gpus` that it holds,
`devices`, the names of its GPUs, and `group`: the GPUs of the node of each GPU in its placement group.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch
from ray.util import get_current_placement_group, placement_group_table

from in_process import Arithmetic, Echo, small_checkpoint
from spire_ray import commands, pipeline, run
from spire_ray.cli import main
from spire_ray.shards import ReadShard

LIMIT_S = 150  # for all actors of a stage to come


def placed(stage: type[Any], name: str, folder: Path, wanted: int, seconds: float) -> type[Any]:
    """`stage`, of which each actor tells where it is."""

    def init(self: Any, **settings: Any) -> None:
        stage.__init__(self, **settings)
        here = ray.get_runtime_context()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        has = {one["NodeID"]: one["Resources"] for one in nodes}
        node = has[here.get_node_id()]
        group = get_current_placement_group()
        of_group = placement_group_table(group)["bundles_to_node_id"].values() if group else ()
        held: Mapping[str, float] = here.get_assigned_resources()
        told = {"node_cpus": node.get("CPU", 0), "node_gpus": node.get("GPU", 0)}
        told |= {"cpus": held.get("CPU", 0), "gpus": held.get("GPU", 0)}
        told |= {"group": [has[one].get("GPU", 0) for one in of_group]}
        text = json.dumps(told | {"devices": here.get_accelerator_ids().get("GPU", [])})
        part = folder / f"{here.get_actor_id()}.part"
        part.write_text(text)
        part.rename(folder / f"{name}-{here.get_actor_id()}.json")

    def call(self: Any, row: pa.Table) -> pa.Table:
        deadline = time.monotonic() + LIMIT_S
        while len(there := list(folder.glob(f"{name}-*.json"))) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(there)} of {wanted} actors of {name} found a place")
            time.sleep(0.1)
        time.sleep(seconds)
        return stage.__call__(self, row)

    return type(name, (stage,), {"__init__": init, "__call__": call})


def run_placed(folder: Path, actors: Mapping[str, int], seconds: float, words: list[str]) -> int:
    """The command, in this process. Its exit code."""
    torch.manual_seed(0)  # the same codebook each time
    checkpoint = small_checkpoint(folder / "checkpoint")
    stages = {"ReadShard": ReadShard, "EncodeUnits": Arithmetic, "GenerateText": Echo}
    with pytest.MonkeyPatch.context() as patch:
        for name, stage in stages.items():
            took = seconds if name == "EncodeUnits" else 0.0
            patch.setattr(pipeline, name, placed(stage, name, folder, actors.get(name, 0), took))
        for module in (run, commands):
            patch.setattr(module, "resolve", lambda *named, **needed: checkpoint)
        patch.setattr(run, "check_vocabulary", lambda *given, **clusters: None)
        return main(words)


if __name__ == "__main__":
    sys.exit(run_placed(Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
