"""Jobs whose nodes leave for good, join and are replaced by others: `python tests/changing_nodes.py`.

A head without CPUs and workers, all processes of this machine. Under the first job the worker of two CPUs is ended
without a word and two of one CPU join, where its encoder has no place; under the second one of these is ended, and none
takes its place; under the third another joins. The fourth is on a made-up GPU: an encoder of arithmetic, slower than
the readers, which are on nodes without GPUs; one of those is ended, with what was read there and not yet encoded, and
another joins. Each job must end by itself, with the tables of an undisturbed one; the first and the third must say that
they go on with other actors, and with more.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ray.cluster_utils import Cluster

import checker
from bundle import make_bundle
from goodput import make_sounds, raylet, repeat_sounds
from node_kills import ENCODER, LIMIT_S, Campaign, actors, node, parts, wait_longer_for_nodes

SHARDS = 80  # at some 100 times real time on a core, a minute and a half of work
GPU_SHARDS, ENCODE_S = 60, 0.5
PLACEMENT = Path(__file__).with_name("placement.py")


@dataclass
class OnGpu(Campaign):
    """Jobs whose encoder has a GPU that there is not."""

    def start(self, out: Path) -> "subprocess.Popen[bytes]":
        told = self.folder / f"{out.name}-actors"
        told.mkdir()
        words = ["tokenize", str(self.folder / "small"), str(out), "--checkpoint", "any", "--shard-minutes", "1"]
        command = [sys.executable, str(PLACEMENT), str(told), json.dumps({}), str(ENCODE_S), *words]
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen([*command, "--address", self.cluster.address], stdout=said, stderr=said)


def change(campaign: Campaign, clean: Path, name: str, event: Callable[[], object], told: str) -> int:
    """A job under which `event` happens after its first shard, and which says `told`. How many encoders it had then."""
    out, began = campaign.folder / name, time.monotonic()
    driver = campaign.start(out)
    while not parts(out):
        assert driver.poll() is None, campaign.said()
        time.sleep(0.05)
    at, encoders = len(parts(out)), 0
    event()
    while (code := driver.poll()) is None:
        assert time.monotonic() - began < LIMIT_S, campaign.said()
        encoders = max(encoders, len(actors(ENCODER)))
        time.sleep(0.2)
    said = campaign.said()
    assert code == 0, said
    assert told in said, said
    assert parts(out) == parts(clean), "other tables than those of the undisturbed job"
    assert checker.main([str(out)]) == 0
    print(f"{name} after {at} shards: {time.monotonic() - began:.0f} s; {told or 'nothing told'}", flush=True)
    return encoders


def main() -> int:
    """All jobs. Exit code 0 when they ended whole."""
    wait_longer_for_nodes()
    with tempfile.TemporaryDirectory(prefix="cn-", dir="/tmp") as name:  # short: sockets lie in it
        folder = Path(name)
        make_bundle(folder / "bundle")
        make_sounds(folder / "sounds")
        repeat_sounds(folder / "sounds", folder / "corpus", SHARDS)
        repeat_sounds(folder / "sounds", folder / "small", GPU_SHARDS)
        head = {**node(0), "include_dashboard": False, "temp_dir": name + "/ray"}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            on_cpus(Campaign(folder, cluster, random.Random(0)))
            on_a_gpu(OnGpu(folder, cluster, random.Random(0)))
        finally:
            cluster.shutdown()
    return 0


def on_cpus(campaign: Campaign) -> None:
    """Other nodes, one node fewer, and one more."""
    cluster, clean = campaign.cluster, campaign.folder / "clean"
    large = cluster.add_node(**node(2))
    campaign.finish(clean)

    def replace() -> None:
        cluster.remove_node(large, allow_graceful=False)
        cluster.add_node(**node(1))
        cluster.add_node(**node(1))

    def lose() -> None:
        cluster.remove_node(min(cluster.worker_nodes, key=id), allow_graceful=False)

    told = "{} CPUs and 0 GPUs are now {} and 0: {} actors"
    assert change(campaign, clean, "other nodes", replace, told.format(2, 2, "other")) == 2
    change(campaign, clean, "one fewer", lose, "")
    assert change(campaign, clean, "one more", lambda: cluster.add_node(**node(1)), told.format(1, 2, "more")) == 2


def on_a_gpu(campaign: Campaign) -> None:
    """A reader's node is replaced."""
    cluster, clean = campaign.cluster, campaign.folder / "clean-gpu"
    cluster.add_node(**node(0), num_gpus=1)
    campaign.finish(clean)

    def replace() -> None:
        time.sleep(5)  # some are read
        of_readers = {parent.pid for reader in actors("MapBatches(ReadShard)") for parent in reader.parents()}
        (lost,) = (one for one in cluster.worker_nodes if raylet(one) in of_readers)
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(**node(1))

    change(campaign, clean, "a reader's node", replace, "")


if __name__ == "__main__":
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "1000"}  # as in cluster/
    sys.exit(main())
