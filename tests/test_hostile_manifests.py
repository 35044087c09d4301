"""The wrong manifests of `hostile.py`, through the whole command: one line and nothing written, or error rows."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from conftest import sound
from hostile import CASES, REFUSED, Case
from in_process import run_in_process, small_checkpoint
from spire_ray import tables
from spire_ray.cli import main


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))
    made = tmp_path / "corpus"
    made.mkdir()
    soundfile.write(made / "good.wav", sound(1.0, 0), 16_000)
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"\W+", "-", case.name))
def test_each_ends_as_it_must(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = folder / case.write(folder)
    before = sorted(folder.parent.rglob("*"))
    out = folder.parent / "out"
    code = main(["tokenize", str(manifest), str(out), "--checkpoint", "any"])
    said = capsys.readouterr().err.strip().splitlines()
    if case.ends == REFUSED:
        assert (code, len(said)) == (2, 1), said
        assert said[0].startswith("spire-ray: error: ")
        assert sorted(folder.parent.rglob("*")) == before
        return
    assert code == 0, said
    for table in ("plan", "units"):
        rows = pq.read_table(out / table).to_pylist()
        assert len(rows) == len(case.ends)
    errors = [row["error"] and tables.reason_of(row["error"]) for row in rows]
    assert all((row["units"] is None) == (row["error"] is not None) for row in rows)
    assert sorted(map(str, errors)) == sorted(map(str, case.ends))
    good = [row["error"] for row in rows if row["utterance_id"] in ("good", "good.wav")]
    assert good in ([], [None]), "the row beside it suffered"
