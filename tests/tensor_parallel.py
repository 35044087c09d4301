"""A job whose engines are real ones on CPUs, of made-up GPUs: `python tests/tensor_parallel.py FOLDER COMMAND …`.

Without an --address the GPUs are this machine's, as many as MADE_UP_GPUS says. Each engine's actor writes
FOLDER/PID.json when it has started: the `node` that it is on, and all `nodes` of its group.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.util import get_current_placement_group, placement_group_table

from spire_ray import pipeline, resources
from spire_ray.cli import main
from spire_ray.engine import EngineSettings
from spire_ray.generate import GenerateText
from vllm_plugin import OF_NODE


def watched(folder: Path) -> type[GenerateText]:
    """The stage, which tells where it is."""

    class Watched(GenerateText):
        def __init__(self, **settings: Any) -> None:
            node = os.environ[OF_NODE] = ray.get_runtime_context().get_node_id()
            super().__init__(**settings)
            nodes = list(placement_group_table(get_current_placement_group())["bundles_to_node_id"].values())
            (folder / f"{os.getpid()}.json").write_text(json.dumps({"node": node, "nodes": nodes}))

    Watched.__name__ = GenerateText.__name__
    return Watched


def for_device(device: str, tensor_parallel_size: int = 1) -> EngineSettings:
    """The settings of CPUs, and few requests at a time, so that a node can be lost while there are some."""
    return EngineSettings(
        "cpu",
        "float32",
        max_num_seqs=8,
        enforce_eager=True,
        block_size=32,
        kv_cache_memory_bytes=64 << 20,
        tensor_parallel_size=tensor_parallel_size,
        threads=1,
    )


def with_gpus(init: Any, gpus: int) -> Any:
    """How Ray is started here, with GPUs."""
    return lambda address, settings: init(address, {**settings, **({"num_gpus": gpus} if address == "local" else {})})


if __name__ == "__main__":
    resources._init = with_gpus(resources._init, int(os.environ.get("MADE_UP_GPUS", "0")))
    EngineSettings.for_device = for_device  # type: ignore[method-assign, assignment]
    pipeline.GenerateText = watched(Path(sys.argv[1]))  # type: ignore[misc]
    sys.exit(main(sys.argv[2:]))
