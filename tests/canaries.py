"""Whether code in data was run: a folder that only running it would make. Fixtures for whoever asks for them."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from in_process import run_in_process, small_checkpoint
from spire_ray.cli import main


class Canary:
    """Unpickled for real, it makes a folder: the proof that something ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def bomb(canary: Path) -> bytes:
    """A pickle that makes the canary."""
    data = pickle.dumps(Canary(canary))
    pickle.loads(data)
    canary.rmdir()  # it works
    return data


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPIRE_RAY_CACHE", str(tmp_path / "cache"))
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))


def ends_safely(capsys: pytest.CaptureFixture[str], canary: Path, *command: object) -> int:
    """The exit code of a command that must run nothing of what it reads, and end in tables or in one line."""
    code = main([str(word) for word in command])
    said = capsys.readouterr().err.strip().splitlines()
    print(code, said)
    assert not canary.exists(), "code in the data was executed"
    assert code in (0, 2), said
    assert "Traceback" not in "".join(said)
    if code:
        assert said[-1].startswith("spire-ray: error: ")
        assert all(line.startswith(("units ", "text ")) for line in said[:-1]), said  # how far it came
    return code
