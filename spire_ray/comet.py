"""COMET-22 by a child process of another Python, because it cannot be installed beside vLLM.

Such an environment: `python -m venv comet && comet/bin/pip install unbabel-comet`, then `--comet comet/bin/python`.
The model, 2.3 GB, is fetched from the Hugging Face hub by COMET itself the first time.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spire_ray.errors import MachineFault, UserError, one_line

MODEL = "Unbabel/wmt22-comet-da"
HOW = "make an environment for it (python -m venv comet && comet/bin/pip install unbabel-comet), --comet its python"


class CometProcess:
    """The child process: one model, loaded once, for all languages."""

    def __init__(self, python: str) -> None:
        """Starts it. UserError when `python` cannot be run, or has no COMET that loads."""
        child = Path(__file__).with_name("comet_child.py")
        # No pipe: it would fill.
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            # -I: the child's folder has a comet.py too.
            self._child = subprocess.Popen(
                [python, "-I", str(child), MODEL],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                encoding="utf-8",
            )
        except OSError as fault:
            self._said.close()
            raise UserError(f"--comet {python} cannot be run ({fault.strerror}): {HOW}") from None
        told = self._answer()
        if told is None:
            said = self._last_words()
            self._said.close()
            raise UserError(f"--comet {python} has no COMET that loads ({said}): {HOW}")
        self.signature = f"unbabel-comet {told['version']}, {told['model']}"

    def scores(self, segments: Sequence[Mapping[str, str]]) -> list[float]:
        """A score for each segment (`src`, `mt`, `ref`), in their order. MachineFault when the process ends."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps({"segments": list(segments)}) + "\n")
            self._child.stdin.flush()
            answer = self._answer()
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise MachineFault(f"COMET ended: {self._last_words()}")
        scores: list[float] = answer["scores"]
        if len(scores) != len(segments):
            raise MachineFault(f"COMET gave {len(scores)} scores for {len(segments)} segments")
        return scores

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._said.close()

    def _answer(self) -> dict[str, Any] | None:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        return dict(json.loads(line)) if line else None

    def _last_words(self) -> str:
        self._child.communicate()
        self._said.seek(0)
        lines = [line for line in self._said if line.strip()]
        return one_line(lines[-1])[:300] if lines else f"it said nothing, exit code {self._child.returncode}"


class Comet:
    """COMET-22, 0 to 1; shown times 100 as the field does."""

    name = "COMET-22"
    width = 2  # sum of scores, segments

    def __init__(self, process: CometProcess) -> None:
        self._process = process

    def counts(
        self, hypotheses: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
    ) -> NDArray[np.float64]:
        """Scores, each with a 1 beside it. Of several references the first counts."""
        together = zip(hypotheses, references, sources, strict=True)
        found = self._process.scores([{"src": source, "mt": made, "ref": each[0]} for made, each, source in together])
        return np.array([found, [1.0] * len(found)]).T

    def score(self, totals: Sequence[float]) -> float | None:
        """Their mean, times 100."""
        return 100 * totals[0] / totals[1] if totals[1] else None

    def signature(self) -> str:
        """The version of COMET and the model."""
        return self._process.signature
