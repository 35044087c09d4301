"""cluster/slurm.sh with stand-ins for Slurm and for Ray's symmetric-run, which start what the real ones start.

tests/slurm_nodes.sh is the real Slurm, two nodes of it; what was run there is told in cluster/README.md.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

import checker

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(600)
# Two tasks, with what Slurm tells each of them; a step beside them (--overlap) is one.
SRUN = """#!/bin/bash
step=2
while [[ $1 == --* ]]; do [ "$1" = --overlap ] && step=1; shift; done
[ $step = 1 ] && exec "$@"
trap 'kill $(jobs -p)' TERM
for task in 0 1; do
  SLURM_PROCID=$task SLURM_NODEID=$task SLURMD_NODENAME=node$((task + 1)) SLURM_NTASKS=2 "$@" &
done
wait %1; code=$?
wait
exit $code
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
  "show hostnames") printf 'node1\\nnode2\\n';;
  "requeue 77") touch "$SPIRE/requeued";;
  *) exit 1;;
esac
"""
# `ray symmetric-run OPTIONS -- COMMAND`: the command on the head, nothing but a node elsewhere; a code of its own.
RAY = """#!/bin/bash
[ "$SLURM_PROCID" = 0 ] || exit 0
stat --format=%a "$(dirname "$RAY_AUTH_TOKEN_PATH")" > "$SPIRE/token"
while [ "$1" != -- ]; do echo "$1" >> "$SPIRE/ray"; shift; done
shift
"$@"
"""
# The real command, in one process and without models; it looks at its flag after each shard, as the stages do. Where
# a file `held` is, the signal finds it after HELD_AT shards, however fast the machine is.
HELD_AT = 3
DRIVER = """#!{python}
import os, signal, sys, time
from pathlib import Path
import pytest
import torch
from in_process import Rows, Unstopped, run_in_process, small_checkpoint
from spire_ray import pipeline
from spire_ray.cli import main
from spire_ray.driver import Driver

class Stop(Unstopped):
    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: self.requested.set())
        return self

stop = Stop()
held = Path(os.environ["SPIRE"]) / "held"

class Held(Rows):
    def iter_rows(self):
        for done, row in enumerate(super().iter_rows(), 1):
            yield row
            while held.exists() and done == {held_at} and not stop.requested.is_set():
                time.sleep(0.02)
            if stop.requested.is_set():
                return

torch.manual_seed(0)  # the same codebook each time
patch = pytest.MonkeyPatch()
run_in_process(patch, small_checkpoint(Path(os.environ["SPIRE"]) / f"checkpoint-{{os.getpid()}}"))
patch.setattr(pipeline, "_source", Held)
patch.setattr(Driver, "stop", stop)
sys.exit(main())
"""


@pytest.fixture
def spire(tmp_path: Path) -> Path:
    """The folder that all nodes see."""
    folder = tmp_path / "spire"
    bin_ = folder / ".venv" / "bin"
    bin_.mkdir(parents=True)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "ray": RAY}.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    (bin_ / "python").symlink_to(sys.executable)
    return folder


def install_driver(spire: Path, text: str) -> None:
    path = spire / ".venv" / "bin" / "spire-ray"
    path.write_text(text)
    path.chmod(0o755)


def batch(spire: Path, *words: object) -> subprocess.Popen[str]:
    told = {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
    }
    env = {**os.environ, **told, "SPIRE": str(spire), "HOME": str(spire), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.Popen(
        ["bash", ROOT / "cluster" / "slurm.sh", *map(str, words)], env=env, text=True, stdout=subprocess.PIPE
    )


def ended(job: subprocess.Popen[str]) -> int:
    job.communicate(timeout=200)
    return job.returncode


def wait_for(what: str, found: Path, at_least: int = 1) -> None:
    for _ in range(4000):  # 200 s: a busy machine imports slowly
        if len(list(found.glob(what))) >= at_least:
            return
        time.sleep(0.05)
    raise AssertionError(f"{what}: not in {found}")


def wait_for_its_process(spire: Path) -> None:
    """Until the script can tell the driver of a signal: before that it ends the cluster instead."""
    for _ in range(4000):
        if any(path.read_text().strip() for path in spire.glob(".ray/*/driver")):
            return
        time.sleep(0.05)
    raise AssertionError("the driver's process was not written down")


def left_behind(spire: Path) -> list[str]:
    """Of the job's own folder: its token, the driver's process, its code."""
    return [str(path) for path in spire.glob(".ray/*")]


def test_a_job_out_of_time_queues_itself_and_goes_on(spire: Path, tmp_path: Path) -> None:
    install_driver(spire, DRIVER.format(python=sys.executable, held_at=HELD_AT))
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    for number in range(12):
        soundfile.write(sounds / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 16_000), 16_000)
    command = ["tokenize", sounds, out, "--checkpoint", "any", "--shard-minutes", "0.01"]
    (spire / "held").touch()
    job = batch(spire, *command)
    wait_for("part-*", out / "units", at_least=HELD_AT)
    job.send_signal(signal.SIGUSR1)
    assert ended(job) == 75
    assert len(list((out / "units").glob("part-*"))) == HELD_AT
    assert (spire / "requeued").exists()
    assert (spire / "token").read_text() == "700\n"
    started = (spire / "ray").read_text().split("\n")
    assert started[:5] == ["symmetric-run", "--address", "node1:20077", "--min-nodes", "2"]
    assert left_behind(spire) == []
    (spire / "requeued").unlink()
    (spire / "held").unlink()
    assert ended(batch(spire, *command)) == 0
    assert not (spire / "requeued").exists()
    assert checker.main([str(out)]) == 0
    assert len(list((out / "units").glob("part-*"))) == 12


@pytest.mark.parametrize(
    ("driver", "code"),
    [
        ("trap 'exit 75' TERM; touch $SPIRE/runs; while :; do sleep 0.05; done", 75),  # scancel --signal=TERM --batch
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 2", 2),
        ("kill -KILL $$", 137),
    ],
)
def test_the_drivers_exit_code_is_the_jobs(spire: Path, driver: str, code: int) -> None:
    install_driver(spire, f"#!/bin/bash\n{driver}\n")
    job = batch(spire, "tokenize", "in", "out")
    if code == 75:
        wait_for("runs", spire)
        wait_for_its_process(spire)
        job.send_signal(signal.SIGTERM)
    assert ended(job) == code
    assert not (spire / "requeued").exists()
    assert left_behind(spire) == []


@pytest.mark.parametrize(("told", "code", "queued"), [([], 1, False), ([signal.SIGUSR1], 75, True)])
def test_a_cluster_that_does_not_start(spire: Path, told: Sequence[signal.Signals], code: int, queued: bool) -> None:
    """By itself that is a fault; told to stop, a job that had not begun is one to run again."""
    ray = spire / ".venv" / "bin" / "ray"
    ray.write_text(f"#!/bin/bash\ntouch $SPIRE/starts\n{'exec sleep 60' if told else 'exit 1'}\n")
    job = batch(spire, "tokenize", "in", "out")
    wait_for("starts", spire)
    for one in told:
        job.send_signal(one)
    assert ended(job) == code
    assert (spire / "requeued").exists() == queued
    assert left_behind(spire) == []


def test_a_job_without_a_corpus_says_how_it_is_called(spire: Path) -> None:
    assert ended(batch(spire, "tokenize")) == 2
