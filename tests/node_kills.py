"""Kills parts of a Ray cluster of three nodes while a job runs on it: `python tests/node_kills.py --kills 10`.

The nodes are processes of this machine: a head without CPUs and two workers with two each. At seeded moments one of
these is ended without a word: an encoder (SIGKILL to the worker process), a node (its raylet with all it
started; another joins 2 s later, as spot machines are replaced) or the driver. The job must end with the tables of an
undisturbed run, by itself, or when the same command is given again. Nothing may take longer than LIMIT_S.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import soundfile
from ray._private import services
from ray.cluster_utils import Cluster

import checker
from bundle import make_bundle
from conftest import RATE, sound
from ray_nodes import AGENT_PORTS, free_ports

KINDS = ("encoder", "node", "driver")
ENCODER = "MapBatches(ReadShard+EncodeUnits"
SHARDS, SECONDS = 6, 110.0
LIMIT_S = 1200
NODE_START_S = 180
SPIRE_RAY = [sys.executable, "-c", "import sys; from spire_ray.cli import main; sys.exit(main())"]


def node(cpus: int) -> dict[str, Any]:
    """What a node is started with."""
    ports = dict(zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True))
    return {"num_cpus": cpus, "object_store_memory": 100 << 20, **ports}


def wait_longer_for_nodes() -> None:
    """Ray gives a node 30 s to start, and no setting changes that: with two busy cores it can take longer."""
    get_node = services.get_node

    def patient(*asked: Any) -> Any:
        deadline = time.monotonic() + NODE_START_S
        while True:
            try:
                return get_node(*asked)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    services.get_node = patient


@dataclass
class Campaign:
    """A cluster, a job, and what was done to them."""

    folder: Path
    cluster: Cluster
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    reruns: int = 0
    slowest_s: float = 0.0

    def start(self, out: Path) -> "subprocess.Popen[bytes]":
        """A driver, as a user starts it."""
        words = ["tokenize", str(self.folder / "corpus"), str(out), "--checkpoint", str(self.folder / "bundle")]
        words += ["--shard-minutes", str(SECONDS / 60), "--address", self.cluster.address]
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen([*SPIRE_RAY, *words], stdout=said, stderr=said)

    def finish(self, out: Path) -> None:
        """A job that nothing happens to."""
        driver = self.start(out)
        assert driver.wait(LIMIT_S) == 0, self.said()

    def said(self) -> str:
        """The end of what the drivers said."""
        return (self.folder / "said").read_text(errors="replace")[-3000:]

    def disturbed(self, out: Path, kinds: Sequence[str], clean: dict[str, bytes]) -> int:
        """A job during which one of each of `kinds` is killed, and which is run again if it does not end well.

        Returns how many were: the job may have been over before the last.
        """
        began = time.monotonic()
        driver = self.start(out)
        kinds = list(itertools.takewhile(lambda kind: self._disturb(kind, driver, out), kinds))
        if (code := driver.wait(LIMIT_S)) != 0:
            assert parts(out).items() <= clean.items(), "something half, or other, is visible"
            print(f"{', '.join(kinds)}: the driver ended with {code}, the same command again", flush=True)
            self.reruns += 1
            self.finish(out)
        took = time.monotonic() - began
        self.slowest_s = max(self.slowest_s, took)
        print(f"{', '.join(kinds)}: {took:.0f} s", flush=True)
        return len(kinds)

    def _disturb(self, kind: str, driver: "subprocess.Popen[bytes]", out: Path) -> bool:
        """Kill one when there is work to disturb: encoders have been loaded, and with luck a shard has committed.

        Whether that was before the job was over: what is counted has happened, and under a job.
        """
        deadline = time.monotonic() + LIMIT_S
        wanted = self.chance.randrange(2)
        while not (actors(ENCODER) and len(parts(out)) >= wanted):
            if driver.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        time.sleep(self.chance.uniform(0, 2.0))
        while driver.poll() is None:
            if self._kill(kind, driver):
                self.kills[kind] += 1
                return True
            time.sleep(0.1)
        return False

    def _kill(self, kind: str, driver: "subprocess.Popen[bytes]") -> bool:
        """Whether there was one to kill."""
        if kind == "driver":
            driver.kill()
        elif kind == "node":
            lost = self.chance.choice(sorted(self.cluster.worker_nodes, key=lambda one: str(one.unique_id)))
            self.cluster.remove_node(lost, allow_graceful=False)
            time.sleep(2)
            self.cluster.add_node(**node(2))
        elif found := actors(ENCODER):
            self.chance.choice(found).send_signal(signal.SIGKILL)
        else:
            return False  # it is being started again
        return True


def actors(title: str) -> list[psutil.Process]:
    """The processes of this cluster's actors of one stage, which Ray names by it."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue  # it has ended meanwhile
    return sorted(found, key=lambda process: process.pid)


def parts(out: Path) -> dict[str, bytes]:
    """The committed units."""
    return {path.name: path.read_bytes() for path in (out / "units").glob("part-*.parquet")}


def main() -> int:
    """The campaign. Exit code 0 when every job ended whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--in-one-job", type=int, default=1, metavar="N", help="kills under each job (1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wait_longer_for_nodes()
    began = time.monotonic()
    # Short: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        for n in range(SHARDS):
            soundfile.write(folder / "corpus" / f"{n}.wav", sound(SECONDS, n), RATE, subtype="PCM_16")
        make_bundle(folder / "bundle")
        head = {**node(0), "include_dashboard": False, "temp_dir": name + "/ray"}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                cluster.add_node(**node(2))
            campaign = Campaign(folder, cluster, random.Random(options.seed))
            run(campaign, (options.kinds * options.kills)[: options.kills], options.in_one_job)
        finally:
            cluster.shutdown()
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(campaign.kills.items()))
    print(
        f"{campaign.kills.total()} kills ({kinds}) in {time.monotonic() - began:.0f} s, all whole; "
        f"{campaign.reruns} run again; the slowest took {campaign.slowest_s:.0f} s"
    )
    return 0


def run(campaign: Campaign, kills: Sequence[str], in_one_job: int) -> None:
    """One undisturbed job, then those in which `kills` happen."""
    campaign.finish(campaign.folder / "clean")
    clean = parts(campaign.folder / "clean")
    assert len(clean) == SHARDS
    for number in itertools.count():
        if campaign.kills.total() == len(kills):
            return
        out = campaign.folder / f"out-{number}"
        first = campaign.kills.total()
        assert campaign.disturbed(out, kills[first : first + in_one_job], clean), "the job was over at once"
        assert parts(out) == clean, "a job did not end as the undisturbed one"
        assert checker.main([str(out)]) == 0


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main())
