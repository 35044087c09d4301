"""A run that dies, or whose storage fails, at every single operation of it; the same command again makes it whole.

test_crash_files.py has the deaths between changes of files; test_interruption.py kills real processes.
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
from pathlib import Path
from typing import Any

import pytest

import checker
from deaths import Dead, Died, Faults, Job, assert_nothing_half, assert_whole, clean, corpus
from spire_ray import locations, plan, store
from spire_ray.errors import MachineFault
from spire_ray.store import Store

__all__ = ["clean", "corpus"]  # fixtures
OPERATIONS = ("get", "find", "create", "replace")


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
                if key.startswith("heartbeat/"):  # from a thread, at any moment; nothing hangs on it
                    return None if dead.dead else _original(self, key, *given)
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
