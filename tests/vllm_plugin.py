"""A vLLM plugin for tests: its CPU build takes Ray's GPUs, which are made up, for devices of its own.

With it vLLM runs an engine over a placement group as it does on real GPUs, each worker on a CPU of its bundle's node.
It is found by the entry point that `install` writes, in a folder that must be in PYTHONPATH of every node.
"""

import os
from pathlib import Path

OF_NODE = "VLLM_PLUGIN_NODE"


def register() -> str:
    """Called by vLLM. The platform, as its name."""
    if node := os.environ.get(OF_NODE):
        # Of several nodes on one machine a driver joins the head; the engine's process is to join its actor's.
        from ray._private import services

        services.find_node_ids = lambda: {node}
    return "vllm_on_made_up_gpus.OnMadeUpGpus"


def install(folder: Path) -> str:
    """What PYTHONPATH must have."""
    about = folder / "on_made_up_gpus-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: on-made-up-gpus\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[vllm.platform_plugins]\non_made_up_gpus = vllm_plugin:register\n")
    return f"{folder}{os.pathsep}{Path(__file__).parent}"
