"""How much of what its nodes could do a job does while they come and go: `python tests/goodput.py --minutes 30`.

Two nodes of one CPU each, each on a core of its own, so that a lost node is half of the capacity; the head has none. A
node is ended without a word every --node-every seconds and another joins --join-after seconds later, as spot machines
are replaced; the driver is killed every --driver-every seconds and started again at once. Goodput is the time of its
nodes that the job would have taken undisturbed, from a driver's start to its end, over the time of the nodes that it
had. Undisturbed, it would have had the start of a short job before it, and the speed that it had itself from 30 s after
something happened until something happened again: machines that are shared change their speed by a tenth within
minutes, and a job of 2,600 shards was no slower than one of 200 before and after it. Told beside it: by the speeds of
a short job before and of one after. A node is there from when Ray has it until it is ended. The units must be those of
the undisturbed job. For a figure, the machine must be idle otherwise.
"""

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import soundfile
from ray.cluster_utils import Cluster

import checker
from bundle import make_bundle
from conftest import RATE, sound
from node_kills import SPIRE_RAY, node, wait_longer_for_nodes

SOUNDS, SECONDS = 8, 110.0  # different ones, and each is a shard
CLEAN = 12 * SOUNDS  # shards of an undisturbed job
LIMIT_S = 3600.0  # beyond the minutes asked for
SETTLED_S = 30.0  # a driver's start, with its workers'


@dataclass
class Churn:
    """A cluster whose nodes come and go, and how much of it there was."""

    folder: Path
    cluster: Cluster
    chance: random.Random
    kills: int = 0
    drivers: int = 0
    node_seconds: float = 0.0
    joins_at: list[float] = field(default_factory=list)
    moments: list[tuple[float, int]] = field(default_factory=list)  # of an event, and the nodes from then on
    began: float = 0.0
    counted: float = 0.0
    out: Path | None = None

    def say(self, what: str) -> None:
        """A line, with the seconds since the job began and the shards that were done."""
        self.moments.append((time.time(), len(self.cluster.worker_nodes)))
        done = len(list((self.out / "units").glob("part-*"))) if self.out else 0
        print(f"{time.monotonic() - self.began:5.0f} s: {what}; {done} shards done", flush=True)

    def count(self, nodes: int) -> None:
        """So many there have been since the last count."""
        now = time.monotonic()
        self.node_seconds += (now - self.counted) * nodes
        self.counted = now

    def join(self) -> None:
        """A node on the core that has none."""
        here = os.sched_getaffinity(0)
        cores = sorted(here)[:2]
        taken = {core for one in self.cluster.worker_nodes for core in os.sched_getaffinity(raylet(one))}
        os.sched_setaffinity(0, {next(core for core in cores if core not in taken)})  # which its processes inherit
        try:
            self.cluster.add_node(**node(1))
        finally:
            os.sched_setaffinity(0, here)

    def lose(self, join_after: float) -> None:
        """One node ends; another is due."""
        if nodes := sorted(self.cluster.worker_nodes, key=raylet):
            self.cluster.remove_node(self.chance.choice(nodes), allow_graceful=False)
            self.say("a node is lost")
            self.joins_at.append(time.monotonic() + join_after)
            self.kills += 1

    def start(self, corpus: str, out: Path) -> "subprocess.Popen[bytes]":
        """A driver, as a user starts it."""
        words = ["tokenize", str(self.folder / corpus), str(out), "--checkpoint", str(self.folder / "bundle")]
        words += ["--shard-minutes", str(SECONDS / 60), "--address", self.cluster.address]
        self.drivers += 1
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen([*SPIRE_RAY, *words], stdout=said, stderr=said)

    def run(self, out: Path, options: argparse.Namespace) -> float:
        """The disturbed job. Returns how long it took, in seconds."""
        self.out = out
        self.began = self.counted = began = time.monotonic()
        self.moments.append((time.time(), 2))
        node_at, driver_at = began + options.node_every, began + options.driver_every
        driver = self.start("corpus", out)
        while (code := driver.poll()) is None or code != 0:
            now = time.monotonic()
            assert now - began < 60 * options.minutes + LIMIT_S, "the job does not end"
            self.count(alive := len(self.cluster.worker_nodes))
            if code is not None:  # a fault: the same command again, as a scheduler would
                self.say(f"the driver ended with {code}")
                driver = self.start("corpus", out)
            elif now >= driver_at:
                self.say("a driver is killed")
                driver.kill()
                driver.wait()
                driver, driver_at = self.start("corpus", out), now + options.driver_every
            if self.joins_at and now >= self.joins_at[0]:
                self.joins_at.pop(0)
                self.join()
                self.count(alive)  # Ray has it from here on
                self.say("a node has joined")
            elif now >= node_at:
                self.lose(options.join_after)
                node_at = now + options.node_every
            time.sleep(0.2)
        return time.monotonic() - began


def raylet(one: object) -> int:
    """A node's first process."""
    return int(one.all_processes["raylet"][0].process.pid)  # type: ignore[attr-defined]


def make_sounds(folder: Path) -> None:
    """The corpus of the undisturbed job."""
    folder.mkdir()
    for number in range(SOUNDS):
        soundfile.write(folder / f"{number:06}.wav", sound(SECONDS, number), RATE, subtype="PCM_16")


def repeat_sounds(sounds: Path, folder: Path, files: int) -> None:
    """The same over and over, in `files` files."""
    folder.mkdir()
    for number in range(files):
        os.link(sounds / f"{number % SOUNDS:06}.wav", folder / f"{number:06}.wav")


def units(out: Path) -> dict[int, list[int]]:
    """The units of each file by its number."""
    rows = pq.read_table(out / "units", columns=["utterance_id", "units"]).to_pylist()
    return {int(row["utterance_id"].partition(".")[0]): row["units"] for row in rows}


def rtfx(out: Path) -> float:
    """Of two nodes at work: audio per second, the first and the last tenth of the shards left aside.

    Neither while one of two models is still loaded nor while one has nothing left to do.
    """
    moments = sorted(part.stat().st_mtime for part in (out / "units").glob("part-*"))
    first, last = len(moments) // 10, len(moments) * 9 // 10
    return (last - first) * SECONDS / (moments[last] - moments[first])


def rtfx_between(out: Path, moments: list[tuple[float, int]]) -> float:
    """As `rtfx`, while nothing happened: from SETTLED_S after one of `moments` to the next, 10 s or more."""
    parts = [part.stat().st_mtime for part in (out / "units").glob("part-*")]
    quiet = [(one + SETTLED_S, two) for (one, nodes), (two, _) in pairwise(moments) if nodes == 2]
    spans = [(first, last) for first, last in quiet if last - first >= 10]
    audio = SECONDS * sum(first <= moment < last for moment in parts for first, last in spans)
    return audio / sum(last - first for first, last in spans) if spans else math.nan


def main() -> int:
    """The job. Exit code 0 when it ended whole, with the goodput that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of the job, were nothing lost (30)")
    parser.add_argument("--node-every", type=float, default=60.0, metavar="S")
    parser.add_argument("--join-after", type=float, default=10.0, metavar="S")
    parser.add_argument("--driver-every", type=float, default=600.0, metavar="S")
    parser.add_argument("--at-least", type=float, default=0.85, help="goodput (0.85)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wait_longer_for_nodes()
    with tempfile.TemporaryDirectory(prefix="gp-", dir="/tmp") as name:  # short: sockets lie in it
        folder = Path(name)
        make_bundle(folder / "bundle")
        cluster = Cluster(
            initialize_head=True, head_node_args={**node(0), "include_dashboard": False, "temp_dir": name + "/ray"}
        )
        try:
            return measured(Churn(folder, cluster, random.Random(options.seed)), options)
        finally:
            cluster.shutdown()


@dataclass(frozen=True)
class Undisturbed:
    """A job on two nodes that nothing happened to."""

    rtfx: float  # at work
    start_s: float  # and its end: what it took beside its audio at that speed

    def node_seconds(self, audio_s: float, rtfx: float | None = None) -> float:
        """What it would have taken of its nodes for so much."""
        return 2 * (self.start_s + audio_s / (rtfx or self.rtfx))


def undisturbed(churn: Churn, name: str) -> Undisturbed:
    """One of CLEAN shards."""
    out, began = churn.folder / name, time.monotonic()
    assert churn.start("clean", out).wait(LIMIT_S) == 0, (churn.folder / "said").read_text()[-3000:]
    took = time.monotonic() - began
    found = Undisturbed(rtfx(out), took - CLEAN * SECONDS / rtfx(out))
    print(f"undisturbed: RTFx {found.rtfx:.1f} on two nodes, {found.start_s:.1f} s beside", flush=True)
    return found


def measured(churn: Churn, options: argparse.Namespace) -> int:
    """An undisturbed job for the speed, then the disturbed one, and another undisturbed one."""
    churn.join()
    churn.join()
    make_sounds(churn.folder / "sounds")
    repeat_sounds(churn.folder / "sounds", churn.folder / "clean", CLEAN)
    before = undisturbed(churn, "out-before")
    files = max(SOUNDS, round(60 * options.minutes * before.rtfx / SECONDS))
    repeat_sounds(churn.folder / "sounds", churn.folder / "corpus", files)
    churn.drivers = 0
    out = churn.folder / "out"
    took, drivers = churn.run(out, options), churn.drivers
    expected = units(churn.folder / "out-before")
    assert units(out) == {number: expected[number % SOUNDS] for number in range(files)}, "other units"
    assert checker.main([str(out)]) == 0
    for _ in churn.joins_at:
        churn.join()
    after = undisturbed(churn, "out-after")
    audio_s, between = files * SECONDS, rtfx_between(out, churn.moments)
    goodput = before.node_seconds(audio_s, between) / churn.node_seconds
    by_others = [one.node_seconds(audio_s) / churn.node_seconds for one in (before, after)]
    print(
        f"{files} shards of {SECONDS:g} s in {took:.0f} s, {churn.kills} nodes lost, {drivers - 1} drivers started "
        f"again, all whole; nodes there {churn.node_seconds / took:.2f} of 2; goodput {goodput:.3f} of their time at "
        f"its own RTFx of {between:.1f} ({by_others[0]:.3f} at that of the job before, {by_others[1]:.3f} after)"
    )
    return int(not goodput >= options.at_least)  # nor is it where nothing was quiet for long enough


if __name__ == "__main__":
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "1000"}  # as in cluster/
    sys.exit(main())
