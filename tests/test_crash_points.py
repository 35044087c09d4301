"""A run that dies, or whose storage fails, at every single point of it; the same command again makes it whole.

Deaths are simulated: from the moment of death nothing of the process reaches the disk any more, neither `finally` nor
what threads were about to do. test_interruption.py kills real ones.
"""

import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import checker
from in_process import run_in_process, small_checkpoint
from spire_ray import locations, plan, store
from spire_ray.cli import main
from spire_ray.errors import MachineFault
from spire_ray.store import Store

LANGUAGES = ["de", "fr"]
TABLES = ["plan", "units", "transcripts", "translations"]
OPERATIONS = ("get", "find", "create", "replace")


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


def refused(call: Callable[[], Any]) -> Any:
    """The operation does not happen, and the process is told."""
    raise MachineFault("storage: 503 SlowDown")


def unconfirmed(call: Callable[[], Any]) -> Any:
    """The operation happens, and the process is told that it did not."""
    with suppress(FileNotFoundError):
        call()
    raise MachineFault("storage: the connection was reset")


@contextmanager
def disturbed(monkeypatch: pytest.MonkeyPatch, faults: Faults, dead: Dead) -> Iterator[None]:
    """Every operation of a Store goes through `faults`."""
    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            original = getattr(Store, name)

            def operation(self: Store, key: str, *given: Any, _name: str = name, _original: Any = original) -> Any:
                if dead.dead:
                    raise Died
                return faults.operation(f"{_name} {key}", lambda: _original(self, key, *given))

            patch.setattr(Store, name, operation)
        yield


@pytest.mark.parametrize("kind", ["before", "after", "refused", "unconfirmed"])
def test_a_run_that_ends_at_any_operation_of_its_store(
    kind: str, corpus: Path, clean: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    for at in itertools.count():
        dead = Dead()
        happen = {"before": dead.before, "after": dead.after, "refused": refused, "unconfirmed": unconfirmed}[kind]
        faults = Faults(at, happen)
        job = Job(corpus, tmp_path / "out")
        with disturbed(monkeypatch, faults, dead):
            try:
                code = job.run()
            except Died:
                code = -9
        if not faults.where:
            break
        ended.append(faults.where)
        assert code == (-9 if dead.dead else 1), faults.where
        assert_nothing_half(job, clean)
        assert job.run() == 0, faults.where
        assert_whole(job, clean)
        shutil.rmtree(job.out)
    assert code == 0
    for operation in (
        "create plan/part-00000.parquet",
        "create plan.json",
        "create units.json",
        "create units/part-00000.parquet",
        "create units/_SUCCESS",
        "create text.json",
        "create translations/part-00000.parquet",
        "create transcripts/part-00002.parquet",
        "create transcripts/_SUCCESS",
        "replace run.json",
        "replace README.md",
    ):
        assert operation in ended
    print(f"{kind}: {len(ended)} operations")


@pytest.mark.parametrize("applied", [False, True], ids=["not applied", "applied"])
def test_a_call_to_storage_that_fails_once_costs_nothing(
    applied: bool, corpus: Path, clean: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patiently = locations.patiently

    def time_out(call: Callable[[], Any]) -> Any:
        if applied:
            with suppress(FileNotFoundError):
                call()
        raise TimeoutError(errno.ETIMEDOUT, "the connection timed out")

    for at in itertools.count():
        faults = Faults(at, time_out)

        def tried(uri: str, call: Callable[[], Any], faults: Faults = faults) -> Any:
            return patiently(uri, lambda: faults.operation(uri, call))

        with monkeypatch.context() as patch:
            for module in (store, plan):
                patch.setattr(module, "patiently", tried)
            job = Job(corpus, tmp_path / "out")
            assert job.run() == 0, faults.where
        assert_whole(job, clean)
        shutil.rmtree(job.out)
        if not faults.where:
            break
    assert at > 30


@dataclass
class Watch:
    """The audit hook of this process: sees every change that Python makes to a file, before it is made."""

    root: str = "\0"
    at: int = -1
    dead: bool = False
    changes: list[str] = field(default_factory=list)

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if event not in self.EVENTS:
            return
        path = str(given[1] if event == "os.link" else given[0])
        if not path.startswith(self.root) or (event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if self.dead or len(self.changes) == self.at:
            self.dead = True
            raise Died
        self.changes.append(f"{event} {Path(path).name}")

    EVENTS = ("open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


@pytest.fixture(scope="module")
def watch() -> Watch:
    """Installed once: an audit hook stays for as long as the process."""
    hook = Watch()
    sys.addaudithook(hook)
    return hook


def test_a_run_that_dies_before_any_change_of_a_file(
    watch: Watch, corpus: Path, clean: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for at in itertools.count():
        watch.root, watch.at, watch.dead = str(out), at, False
        watch.changes.clear()
        job = Job(corpus, out)
        try:
            code = job.run()
        except Died:
            code = -9
        died, watch.root = watch.dead, "\0"
        if not died:
            break
        assert code == -9
        assert_nothing_half(job, clean)
        assert job.run() == 0, watch.changes
        assert_whole(job, clean)
        shutil.rmtree(out)
    made = [change for change in watch.changes if not change.partition(" ")[2].startswith(".tmp-")]
    assert not [change for change in made if change.startswith(("os.remove", "os.rmdir", "os.truncate", "open"))]
    assert at > 60
    print(f"{at} changes of a file")


def test_racing_processes_that_are_killed(tmp_path: Path) -> None:
    """SIGKILL to real processes, two at a time on one OUT; `make torture` has more of it."""
    kills = "24"
    folder = Path(checker.__file__).parent
    command = [sys.executable, str(folder / "race.py"), "--folder", str(tmp_path), "--kills", kills]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(folder)])),
    }
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    counted = re.fullmatch(r"(\d+) kills in \d+ s, (\d+) runs finished, all whole", ended.stdout.splitlines()[-1])
    assert counted
    assert int(counted[1]) >= int(kills)
    assert int(counted[2]) >= 2
    print(counted[0])
