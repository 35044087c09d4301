"""A small job that dies, or whose storage fails, at one point of it; what it must leave, and what must be there after.

Deaths are simulated: from the moment of death nothing of the process reaches the disk any more, neither `finally` nor
what threads were about to do. Fixtures for whoever asks for them.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import checker
from in_process import run_in_process, small_checkpoint
from spire_ray import locations
from spire_ray.cli import main

LANGUAGES = ["de", "fr"]
TABLES = ["plan", "units", "transcripts", "translations"]


class Died(BaseException):
    """The process is gone: nothing in the package may catch this."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sounds of a second, one that cannot be read, in as many shards as there are seconds."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in "abc":
        samples = np.int16(1000 * np.sin(np.arange(16_000) / (20 + ord(name))))
        soundfile.write(folder / f"{name}.wav", samples, 16_000, subtype="PCM_16")
    (folder / "d.wav").write_bytes(b"no sound")
    return folder


@dataclass
class Job:
    """One command on one OUT, and what OUT holds at the end of it."""

    corpus: Path
    out: Path

    def run(self) -> int:
        """The whole job, in this process. Its exit code."""
        options = ["--checkpoint", "any", "--languages", *LANGUAGES, "--shard-minutes", str(1.2 / 60)]
        return main(["speech-to-text", str(self.corpus), str(self.out), *options])

    def contents(self) -> dict[str, bytes]:
        """Every object of the plan, the tables and the frozen settings."""
        found = (path for path in self.out.rglob("*") if path.is_file() and not path.name.startswith(".tmp-"))
        return {
            name: path.read_bytes()
            for path in found
            if (name := path.relative_to(self.out).as_posix()).partition("/")[0] in TABLES or name in FROZEN
        }


FROZEN = ("plan.json", "units.json", "text.json")


@pytest.fixture
def clean(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, bytes]:
    """What a run that nothing happens to leaves; from here on the commands run in process."""
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))
    monkeypatch.setattr(locations, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # these deaths leave the machine running
    whole = Job(corpus, tmp_path / "clean")
    assert whole.run() == 0
    contents = whole.contents()
    assert len([name for name in contents if name.startswith("units/part-")]) >= 3
    assert_whole(whole, contents)
    capsys.readouterr()
    return contents


def assert_whole(job: Job, clean: dict[str, bytes]) -> None:
    """The tables of an undisturbed run, byte for byte, and the checker's word that nothing is missing or twice."""
    assert job.contents() == clean
    checked = checker.Checker(job.out, languages=LANGUAGES)
    checked.check(TABLES[1:])
    assert not checked.wrong, checked.report(TABLES[1:])
    assert (checked.rows["plan"], checked.rows["units"], checked.rows["translations"]) == (4, 4, 8)
    for name in ("run.json", "README.md"):
        assert (job.out / name).is_file(), f"{name} is missing from a finished run"


def assert_nothing_half(job: Job, clean: dict[str, bytes]) -> None:
    """At any moment: what is visible is whole and as it will be, and _SUCCESS lies only beside all parts."""
    there = job.contents()
    assert there.items() <= clean.items()
    for table in TABLES[1:]:
        if f"{table}/_SUCCESS" in there:
            assert {name for name in clean if name.startswith(table)} <= there.keys()


@dataclass
class Faults:
    """Counts a run's operations, and does what is asked at one of them."""

    at: int
    happen: Callable[[Callable[[], Any]], Any]
    count: int = 0
    where: str = ""

    def operation(self, name: str, call: Callable[[], Any]) -> Any:
        self.count += 1
        if self.count - 1 != self.at:
            return call()
        self.where = name
        return self.happen(call)


class Dead:
    """A process that has died: every operation of it fails, in whatever order its code unwinds."""

    def __init__(self) -> None:
        self.dead = False

    def before(self, call: Callable[[], Any]) -> Any:
        self.dead = True
        raise Died

    def after(self, call: Callable[[], Any]) -> Any:
        with suppress(FileNotFoundError):
            call()
        self.dead = True
        raise Died
