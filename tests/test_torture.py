"""Of `make torture`: real runs with real Ray, killed at seeded random moments, again and again; not of `make test`.

A short form of it is: test_interruption.py kills one run of each kind,
test_crash_points.py simulates every death, test_disk_full.py every moment for a disk to be full.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import checker
from test_interruption import SHARDS, long_corpus, parts, start, wait_for_a_part

__all__ = ["long_corpus"]  # a fixture
pytestmark = pytest.mark.torture
SLOWEST_S = 120.0


def finish(process: "subprocess.Popen[str]") -> str:
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 0, said
    return said


def test_a_run_that_is_killed_again_and_again(long_corpus: Path, bundle: Path, tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("TORTURE_SEED", "0")))
    began = time.monotonic()
    finish(start(long_corpus, tmp_path / "clean", bundle))
    usual = min(time.monotonic() - began, SLOWEST_S)
    clean = parts(tmp_path / "clean")
    assert len(clean) == SHARDS

    out = tmp_path / "out"
    kills = finished = committed = 0
    while kills < int(os.environ.get("TORTURE_KILLS", "3")):
        process = start(long_corpus, out, bundle)
        after = chance.uniform(0.1, 1.0) * usual
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the driver with everything it started
            process.communicate()
            kills += 1
            there = parts(out)
            assert there.items() <= clean.items()
            assert len(there) >= committed, "a committed part is gone"
            committed = len(there)
            print(f"kill {kills} after {after:.0f} s: {committed} of {SHARDS} shards", flush=True)
            continue
        finish(process)
        assert parts(out) == clean
        assert checker.main([str(out)]) == 0
        finished, committed = finished + 1, 0
        shutil.rmtree(out)
    finish(start(long_corpus, out, bundle))
    assert parts(out) == clean
    assert checker.main([str(out)]) == 0
    print(f"{kills} kills, {finished + 1} runs finished, all whole")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real disk of this size, which root alone may mount."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_an_out_that_fills_up(long_corpus: Path, bundle: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    finish(start(long_corpus, clean, bundle))
    with small_disk(tmp_path / "disk", "64k") as out:
        full = start(long_corpus, out, bundle)
        last = full.communicate(timeout=900)[1].splitlines()[-1]
        assert full.returncode == 1, last
        assert last.startswith(f"spire-ray: fault: {out}/")
        assert last.endswith("No space left on device")
        assert parts(out).items() < parts(clean).items()
        subprocess.run(["mount", "-o", "remount,size=64m", out], check=True)
        finish(start(long_corpus, out, bundle))
        assert parts(out) == parts(clean)
        assert checker.main([str(out)]) == 0
    print(last)


def test_a_disk_of_ray_and_of_temporary_files_that_fills_up(
    long_corpus: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too small from the start: one line. Full while the run is on its way: it ends well, or the next one does."""
    clean, out = tmp_path / "clean", tmp_path / "out"
    finish(start(long_corpus, clean, bundle))
    for size in ("64m", "256m"):
        with small_disk(Path(f"/tmp/full-{os.getpid()}-{size}"), size) as disk:  # Ray's sockets want a short path
            monkeypatch.setenv("RAY_TMPDIR", str(disk))
            monkeypatch.setenv("TMPDIR", str(disk))
            process = start(long_corpus, out, bundle)
            if size == "64m":
                said = process.communicate(timeout=900)[1].splitlines()
                assert (process.returncode, len(said)) == (1, 1), said
                assert f"{disk} has" in said[0]
                print(said[0])
                continue
            wait_for_a_part(out, process)
            with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while filler.write(bytes(1 << 20)):
                    pass
            said = process.communicate(timeout=900)[1].splitlines()
            print(f"full after a part: exit {process.returncode}, {said[-1]}")
            assert process.returncode in (0, 1)
            assert parts(out).items() <= parts(clean).items()
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.delenv("TMPDIR")
    finish(start(long_corpus, out, bundle))
    assert parts(out) == parts(clean)
    assert checker.main([str(out)]) == 0
