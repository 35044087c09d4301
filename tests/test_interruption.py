"""Killed, stopped and resumed, in processes of their own: the tables end as if nothing had happened."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
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


def read_ids(part: bytes) -> list[str]:
    ids: list[str] = pq.read_table(io.BytesIO(part)).column("utterance_id").to_pylist()
    return ids


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


@pytest.mark.timeout(900)
def test_a_run_killed_while_it_generates_ends_with_whole_tables_and_the_same_units(
    bundle: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    text = ["--languages", "de", "--max-tokens", "64"]
    killed = start(manifest, out, bundle, "speech-to-text", 0.03, *text)
    wait_for_a_part(out, killed, "transcripts")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    units, transcripts = parts(out), parts(out, "transcripts")
    assert len(transcripts) < len(units)

    last = start(manifest, out, bundle, "speech-to-text", 0.03, *text)
    messages = last.communicate(timeout=400)[1]
    assert last.returncode == 0, messages
    assert parts(out) == units
    assert parts(out, "transcripts").items() >= transcripts.items()
    for table in ("transcripts", "translations"):
        ids = [id_ for part in parts(out, table).values() for id_ in read_ids(part)]
        assert sorted(ids) == sorted(id_ for part in units.values() for id_ in read_ids(part))


def engine_processes(session: int) -> list[int]:
    """vLLM's own engine processes among those a driver has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes() + (folder / "comm").read_bytes()
            if b"EngineCore" in title and os.getsid(int(folder.name)) == session:
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found


@pytest.mark.timeout(900)
def test_an_engine_that_dies_is_started_again_and_its_shards_are_done(
    bundle: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # as on GPUs: the engine is a process of its own
    text = ["--languages", "de", "--max-tokens", "64", "--deterministic"]
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    process = start(manifest, out, bundle, "speech-to-text", 0.03, *text)
    wait_for_a_part(out, process, "transcripts")
    (engine,) = engine_processes(process.pid)
    os.kill(engine, signal.SIGKILL)
    messages = process.communicate(timeout=600)[1]
    assert process.returncode == 0, messages
    assert "0 errors" in messages.splitlines()[-1]

    clean = start(manifest, undisturbed, bundle, "speech-to-text", 0.03, *text)
    clean.communicate(timeout=400)
    for table in ("transcripts", "translations"):
        columns = ["utterance_id", "text", "error"]
        assert pq.read_table(out / table, columns=columns) == pq.read_table(undisturbed / table, columns=columns)
