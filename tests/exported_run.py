"""A corpus and a run of it to export, and what a test asks of an export."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pytest
import soundfile

from in_process import run_in_process, small_checkpoint
from sounds import pcm16, sound
from spire_ray.cli import main

RATE = 16_000
LANGUAGES = ("de", "fr")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole files, pieces of a recording, stereo at another rate; one that is no audio and one without a reference."""
    folder = tmp_path_factory.mktemp("corpus")
    soundfile.write(folder / "a.wav", pcm16(1.3, 1), RATE, subtype="PCM_16")
    soundfile.write(folder / "long.wav", pcm16(12, 2), RATE, subtype="PCM_16")
    soundfile.write(folder / "b.flac", sound(2.1, 44_100, 2, 3), 44_100)
    (folder / "broken.wav").write_bytes(b"no sound at all" * 99)
    spoken = [
        {"id": "x/a.b", "audio": "a.wav", "text": "eins \u2028 <zwei>", "speaker": "s1", "translation_de": "ä"},
        {"id": "b", "audio": "b.flac", "text": "three"},
        {"id": "broken", "audio": "broken.wav", "text": "four"},
        {"id": "mute", "audio": "a.wav"},
        {"id": "p1", "audio": "long.wav", "start": 0.5, "end": 3.123, "text": "five", "recording_id": "long"},
        {"id": "p2", "audio": "long.wav", "start": 3.123, "end": 12.0, "text": "six", "recording_id": "long"},
    ]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spoken))
    return folder


@pytest.fixture(scope="module")
def out(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of several shards, of stand-ins for the models; the commands of these tests run in this process too."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch, small_checkpoint(folder / "checkpoint"))
        command = ["speech-to-text", corpus / "m.jsonl", folder / "out", "--checkpoint", "any", "--languages"]
        assert main([*map(str, command), *LANGUAGES, "--shard-minutes", "0.06"]) == 0
        yield folder / "out"


@contextmanager
def away(*files: Path) -> Iterator[None]:
    """Without these files of the corpus."""
    for file in files:
        file.rename(file.with_name(file.name + ".away"))
    try:
        yield
    finally:
        for file in files:
            file.with_name(file.name + ".away").replace(file)


def texts(out: Path) -> dict[str, dict[str, str]]:
    """What the run generated, by utterance and language, without errors."""
    selected = " UNION ALL ".join(
        f"SELECT utterance_id, {language}, text FROM read_parquet('{out}/{table}/*.parquet') WHERE error IS NULL"
        for table, language in (("transcripts", "'en'"), ("translations", "target_language"))
    )
    found: dict[str, dict[str, str]] = {}
    for name, language, text in duckdb.sql(selected).fetchall():
        found.setdefault(name, {})[language] = text
    return found


def export(*command: object) -> int:
    return main(["export", *map(str, command)])


@pytest.fixture
def in_memory() -> Iterator[Any]:
    """Object storage that lies in this process."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    capsys.readouterr()
    assert export(*command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line
