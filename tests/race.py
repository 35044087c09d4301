"""Kills real processes with SIGKILL at random moments, two at a time on one OUT: `python tests/race.py`.

Each process runs the whole job as in_process.py has it, so that a run takes tens of milliseconds and hundreds of kills
a minute. Whenever a run has been let finish, the checker looks at OUT and its tables are compared, byte for byte, with
those of a run that nothing happened to; then another OUT is begun. Equal seeds give equal times to kill at.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
import soundfile

import checker
from conftest import sound
from in_process import run_in_process, small_checkpoint
from spire_ray.cli import main as spire_ray

LANGUAGES = ["de", "fr"]


def start(corpus: Path, out: Path) -> int:
    """A process that runs the job on OUT; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = run_job(corpus, out)
    finally:
        os._exit(code)


def run_job(corpus: Path, out: Path) -> int:
    """The command, in this process; its exit code."""
    options = ["--checkpoint", "any", "--languages", *LANGUAGES, "--shard-minutes", "0.02"]
    return spire_ray(["speech-to-text", str(corpus), str(out), *options])


def contents(out: Path) -> dict[str, bytes]:
    """Every object that must be the same after any number of deaths."""
    kept = ("plan", "units", "transcripts", "translations", "plan.json", "units.json", "text.json")
    return {
        name: path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
        and not path.name.startswith(".tmp-")
        and (name := path.relative_to(out).as_posix()).partition("/")[0] in kept
    }


def main() -> int:
    """The campaign. Exit code 0 when every finished run was whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="an empty one (a temporary one, removed at the end)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.folder:
        return campaign(options.folder, options.kills, random.Random(options.seed))
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        return campaign(Path(folder), options.kills, random.Random(options.seed))


def campaign(folder: Path, wanted: int, chance: random.Random) -> int:
    """Kills until there were as many as `wanted`, and lets runs finish in between."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for seed, name in enumerate("abc"):
        soundfile.write(corpus / f"{name}.wav", sound(1.0, seed), 16_000, subtype="PCM_16")
    (corpus / "d.wav").write_bytes(b"no sound" * 5000)
    run_in_process(pytest.MonkeyPatch(), small_checkpoint(folder / "checkpoint"))
    began = time.monotonic()
    assert os.waitpid(start(corpus, folder / "clean"), 0)[1] == 0
    usual = time.monotonic() - began
    clean = contents(folder / "clean")

    kills = finished = 0
    while kills < wanted:
        out = folder / f"out-{finished}"
        for _ in range(chance.randint(1, 6)):
            racers = [start(corpus, out) for _ in range(2)]
            for racer in racers:
                time.sleep(chance.uniform(0, usual / 2))
                os.kill(racer, signal.SIGKILL)
                kills += os.WIFSIGNALED(os.waitpid(racer, 0)[1])
            assert contents(out).items() <= clean.items(), "something half, or other, is visible"
        assert [os.waitpid(racer, 0)[1] for racer in [start(corpus, out) for _ in range(2)]] == [0, 0]
        assert contents(out) == clean, "a run did not end as the undisturbed one"
        assert checker.main([str(out), "--languages", *LANGUAGES]) == 0
        finished += 1
    print(f"{kills} kills in {time.monotonic() - began:.0f} s, {finished} runs finished, all whole")
    return 0


if __name__ == "__main__":
    sys.exit(main())
