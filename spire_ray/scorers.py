"""Quality estimation of translations: a named model in an environment of its own, or any callable by its import path.

COMET needs transformers under 5 and numpy under 2, which this package cannot be installed with, and sonar-space another
torch: a named model runs in a child process of the interpreter that is given by --scorer-python.
"""

import hashlib
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from spire_ray.errors import MachineFault, UserError

CHILD = Path(__file__).with_name("scorer_process.py")
# Package, and what is installed to have it.
NAMED = {"comet-kiwi": ("comet", "unbabel-comet"), "blaser-2-qe": ("sonar", "sonar-space")}
BATCH = 1024  # pairs to a call

Languages = Sequence[tuple[str, str]]


class Scorer(Protocol):
    """Scores of translations without references."""

    def __call__(self, sources: Sequence[str], hypotheses: Sequence[str], languages: Languages) -> Sequence[float]:
        """One score a pair of texts [N]; `languages`: of source and hypothesis, ISO 639-1. Higher is better."""


def load(name: str, python: str | None = None) -> Scorer:
    """`comet-kiwi`, `blaser-2-qe` or `package.module:callable`. UserError, saying how, where it is not installed."""
    if name in NAMED:
        return _Child(name, python or sys.executable)
    found = _imported(name)
    made: Any = found() if inspect.isclass(found) else found
    loaded: Scorer = made
    return loaded


def identity(name: str, python: str | None = None) -> str:
    """What decides its scores, without loading a model: for settings.json. UserError as in `load`."""
    if name in NAMED:
        return _Child(name, python or sys.executable, "identity").identity
    found = _imported(name)
    file = inspect.getsourcefile(inspect.getmodule(found) or found)
    return f"{name} {hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else 'built in'}"


def scored(scorer: Scorer, pairs: Sequence[tuple[str, str, tuple[str, str]]]) -> list[float]:
    """Scores of (source, hypothesis, languages), in calls of BATCH. MachineFault when there are not as many."""
    scores: list[float] = []
    for start in range(0, len(pairs), BATCH):
        sources, hypotheses, languages = zip(*pairs[start : start + BATCH], strict=True)
        found = [float(score) for score in scorer(sources, hypotheses, languages)]
        if len(found) != len(sources):
            raise MachineFault(f"the scorer gave {len(found)} scores for {len(sources)} translations")
        scores += found
    return scores


def _imported(path: str) -> Any:
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise UserError(f"--scorer {path!r} is neither {' nor '.join(NAMED)} nor package.module:callable")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as fault:
        raise UserError(f"--scorer {path}: {fault}; it must be importable where the command runs") from None
    if not callable(found):
        raise UserError(f"--scorer {path} is no callable")
    return found


class _Child:
    """A named model in a child process that speaks JSON, a line for each call."""

    def __init__(self, name: str, python: str, *identity_alone: str) -> None:
        self.name = name
        package, install = NAMED[name]
        try:
            # As text: with the file's path its folder would be searched for modules, and this one has a `stream`.
            self.process = subprocess.Popen(
                [python, "-I", "-c", CHILD.read_text(), name, *identity_alone],  # -I: nor the folder one is in
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as fault:
            raise UserError(f"--scorer-python {python} cannot be run: {fault.strerror}") from None
        told = self._read()
        if identity_alone or "missing" in told:
            self.process.communicate()  # it ends by itself
        if "missing" in told:
            raise UserError(
                f"--scorer {name} needs the package {package}, which {python} does not have ({told['missing']}):"
                f" python -m venv E && E/bin/pip install {install}, then --scorer-python E/bin/python"
            )
        self.identity = str(told["identity"])

    def __call__(self, sources: Sequence[str], hypotheses: Sequence[str], languages: Languages) -> Sequence[float]:
        assert self.process.stdin
        asked = {"sources": list(sources), "hypotheses": list(hypotheses), "languages": list(languages)}
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return list(self._read()["scores"])

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self) -> MachineFault:
        code = self.process.wait()
        return MachineFault(f"the scorer {self.name} ended with code {code}; what it said is above")
