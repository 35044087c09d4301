"""`evaluate --comet` with something that has COMET's interface in a Python of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluated_run import Said, evaluated, finished_run, made, part, run, said, task
from spire_ray.cli import main

__all__ = ["run", "said"]  # fixtures

COMET = """
import types
def download_model(name):
    return name
def load_from_checkpoint(path):
    return types.SimpleNamespace(predict=predict)
def predict(samples, batch_size, gpus, progress_bar):
    print("Predicting")
    scores = [len(each["mt"]) / (len(each["ref"]) + len(each["src"])) for each in samples]
    return types.SimpleNamespace(scores=scores[::ORDER])
"""


def comet_python(folder: Path, order: int) -> str:
    """A python of its own with something that has COMET's interface, which cannot be installed beside vLLM."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "comet.py").write_text(COMET.replace("ORDER", str(order)))
    (packages / "torch").mkdir()
    (packages / "torch" / "__init__.py").touch()
    (packages / "torch" / "cuda.py").write_text("def device_count():\n    return 0\n")
    (packages / "unbabel_comet-2.2.7.dist-info").mkdir()
    (packages / "unbabel_comet-2.2.7.dist-info" / "METADATA").write_text("Name: unbabel-comet\nVersion: 2.2.7\n")
    return os.fspath(folder / "bin" / "python")


def test_comet_runs_in_a_python_of_its_own_and_its_order_is_checked(
    said: Said, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(run, tmp_path, "--comet", comet_python(tmp_path / "comet", 1))
    expected = []
    for row in said.rows:
        wanted = next(one["text"] for one in row["references"] if one["language"] == "de")
        made_ = said.translated[row["utterance_id"], "de"]
        expected.append(len(made_) / (len(wanted) + len(row["reference"])))
    mine = task(found, "translations", "de")
    assert part(mine)["scores"]["COMET-22"]["score"] == pytest.approx(100 * sum(expected) / len(expected))
    assert mine["signatures"]["COMET-22"] == "unbabel-comet 2.2.7, Unbabel/wmt22-comet-da"
    assert main(["evaluate", run, "--comet", comet_python(tmp_path / "other", -1)]) == 1
    assert "COMET gave segment" in capsys.readouterr().err
    assert main(["evaluate", run, "--comet", sys.executable]) == 2
    assert "No module named 'comet'" in capsys.readouterr().err
    assert main(["evaluate", run, "--comet", str(tmp_path / "no python")]) == 2
    assert "cannot be run" in capsys.readouterr().err


def test_comet_without_translations_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = finished_run(tmp_path / "out", [[{"utterance_id": "a", "reference": "one"}]], {0: [made("a", "one")]}, {})
    assert main(["evaluate", out, "--comet", sys.executable]) == 2
    assert "--comet measures translations" in capsys.readouterr().err
