"""Units: killed, stopped and resumed, in processes of their own, the tables end as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from conftest import RATE, sound

SHARDS = 6
SPIRE_RAY = [sys.executable, "-c", "import sys; from spire_ray.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    for index in range(SHARDS):
        soundfile.write(folder / f"{index}.wav", sound(110.0, index), RATE, subtype="PCM_16")
    return folder


def start(
    corpus: Path, out: Path, bundle: Path, command: str = "tokenize", shard_minutes: float = 1, *options: str
) -> "subprocess.Popen[str]":
    words = [command, str(corpus), str(out), "--checkpoint", str(bundle), "--shard-minutes", str(shard_minutes)]
    return subprocess.Popen([*SPIRE_RAY, *words, *options], stderr=subprocess.PIPE, text=True, start_new_session=True)


def parts(out: Path, table: str = "units") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / table).glob("part-*.parquet")}


def wait_for_a_part(out: Path, process: "subprocess.Popen[str]", table: str = "units") -> None:
    deadline = time.monotonic() + 400
    while not parts(out, table):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.timeout(900)
def test_a_killed_and_a_stopped_run_resume_to_the_bytes_of_an_undisturbed_one(
    long_corpus: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = start(long_corpus, out, bundle)
    wait_for_a_part(out, killed)
    os.killpg(killed.pid, signal.SIGKILL)  # the driver with everything it started
    killed.communicate()
    after_kill = parts(out)
    assert 1 <= len(after_kill) < SHARDS

    stopped = start(long_corpus, out, bundle)
    deadline = time.monotonic() + 200
    while len(parts(out)) == len(after_kill):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal sends Ctrl-C: to the driver and all it started
    messages = stopped.communicate(timeout=400)[1]
    assert stopped.returncode == 75, messages
    assert messages.strip().splitlines()[-1].endswith("run the same command again to go on")
    after_stop = parts(out)
    assert len(after_kill) < len(after_stop) < SHARDS
    assert not (out / "units" / "_SUCCESS").exists()

    last = start(long_corpus, out, bundle)
    assert "0 errors" in last.communicate(timeout=400)[1]
    assert last.returncode == 0
    assert (out / "units" / "_SUCCESS").exists()

    clean = start(long_corpus, tmp_path / "clean", bundle)
    clean.communicate(timeout=400)
    assert clean.returncode == 0
    assert len(parts(out)) == SHARDS
    assert parts(out) == parts(tmp_path / "clean")
