"""A run that dies before any single change of a file; the same command again makes it whole."""

import itertools
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deaths import Died, Job, assert_nothing_half, assert_whole, clean, corpus

__all__ = ["clean", "corpus"]  # fixtures


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
