"""Text: killed while it is generated, or its engine is, and the tables end as if nothing had happened."""

import io
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from test_interruption import parts, start, wait_for_a_part

# Not in `make test`, for its minutes: test_s3_run.py goes on with such an OUT, test_isolation.py has engines that die.
pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]
TEXT = ["--languages", "de", "--max-tokens", "64"]


def read_ids(part: bytes) -> list[str]:
    ids: list[str] = pq.read_table(io.BytesIO(part)).column("utterance_id").to_pylist()
    return ids


def test_a_run_killed_while_it_generates_ends_with_whole_tables_and_the_same_units(
    bundle: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = start(manifest, out, bundle, "speech-to-text", 0.03, *TEXT)
    wait_for_a_part(out, killed, "transcripts")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    units, transcripts = parts(out), parts(out, "transcripts")
    assert len(transcripts) < len(units)

    last = start(manifest, out, bundle, "speech-to-text", 0.03, *TEXT)
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


def test_an_engine_that_dies_is_started_again_and_its_shards_are_done(
    bundle: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # as on GPUs: the engine is a process of its own
    text = [*TEXT, "--deterministic"]
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
