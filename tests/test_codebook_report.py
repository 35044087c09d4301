"""The report's numbers against a plain count of the units, and its files as others read them."""

import io
import json
import math
from collections import Counter
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors.numpy import save_file
from scipy.stats import entropy

from spire_ray import outputs
from spire_ray.cli import main
from spire_ray.codebook import load_codebook
from spire_ray.codebook_card import Card, codebook_bytes
from spire_ray.codebook_report import report, unit_numbers
from spire_ray.errors import UserError
from spire_ray.frozen import freeze
from spire_ray.store import Store
from spire_ray.tables import UNITS, from_rows

CLUSTERS = 20


def row(name: str, frames: list[int] | None) -> dict[str, Any]:
    """A row of units as tokenize writes it."""
    if frames is None:
        return {"utterance_id": name, "error": "missing: gone"}
    runs = [(unit, len(list(run))) for unit, run in groupby(frames)]
    made = {"units": [unit for unit, _ in runs], "run_lengths": [length for _, length in runs]}
    return {"utterance_id": name, "num_frames": len(frames), "duration_s": len(frames) / 50, **made}


@pytest.fixture
def codebook(tmp_path: Path) -> Path:
    centroids = np.random.default_rng(0).normal(size=(CLUSTERS, 4)).astype(np.float32)
    path = tmp_path / "codebook.safetensors"
    path.write_bytes(codebook_bytes(centroids, Card(layer="22", encoder_name="somebody/hubert", hours="3.25")))
    return path


@pytest.fixture
def spoken() -> list[list[int]]:
    """Frame units of some utterances; units 0, 13 and 19 never come."""
    rng = np.random.default_rng(1)
    usable = [unit for unit in range(CLUSTERS) if unit not in (0, 13, 19)]
    # Few units often, as in speech; every usable one at least once.
    drawn = [
        rng.choice(usable, 60, p=np.arange(17, 0, -1) / 153).repeat(rng.integers(1, 6, 60)).tolist() for _ in "abc"
    ]
    return [*drawn, usable]


@pytest.fixture
def out(tmp_path: Path, codebook: Path, spoken: list[list[int]]) -> Path:
    """A run with two shards, one utterance of which was mended by a retry."""
    folder = tmp_path / "out"
    store = Store(str(folder))
    mark = freeze(store, "units.json", {"codebook": load_codebook(codebook).sha256, "plan": "p"})
    parts = {
        (0, 0): [row("a", spoken[0]), row("b", None), row("gone", None)],
        (1, 0): [row("c", spoken[2]), row("d", spoken[3])],
        (0, 1): [row("b", spoken[1])],
    }
    for (shard, attempt), rows in parts.items():
        outputs.commit(store, "units", from_rows(rows, UNITS), shard, attempt, mark)
    return folder


def test_the_numbers_are_those_of_a_plain_count(
    codebook: Path, out: Path, spoken: list[list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["codebook-report", str(codebook), str(out)]) == 0
    shown = capsys.readouterr().out
    told = json.loads((codebook.parent / "codebook.report.json").read_text())
    units = told["units"]
    frames = Counter(unit for each in spoken for unit in each)
    runs = Counter(len(list(run)) for each in spoken for _, run in groupby(each))
    assert units["usage"] == [frames[unit] for unit in range(CLUSTERS)]
    assert (units["frames"], units["collapsed"]) == (frames.total(), runs.total())
    assert units["run_lengths"] == {str(length): count for length, count in sorted(runs.items())}
    assert units["dead_units"] == [0, 13, 19]
    assert units["dead"] == 3
    assert units["entropy_bits"] == pytest.approx(entropy(list(frames.values()), base=2))
    assert units["perplexity"] == pytest.approx(math.exp(entropy(list(frames.values()))))
    unit, most = frames.most_common(1)[0]
    assert units["most_used_share"] == units["top_units_share"] == pytest.approx(most / frames.total())
    assert units["mean_run"] == pytest.approx(frames.total() / runs.total())
    assert units["longest_run"] == max(runs)
    assert (told["clusters"], told["dimension"], told["card"]["layer"]) == (CLUSTERS, 4, "22")
    for said in (f"unit {unit}: ", "3 of 20 (15.0%)", "somebody/hubert", "3.25", "codebook.report.png"):
        assert said in shown


def test_the_picture_is_a_png_that_shows_something(codebook: Path, out: Path, tmp_path: Path) -> None:
    named = ["--json", str(tmp_path / "n.json"), "--png", str(tmp_path / "n.png")]
    assert main(["codebook-report", str(codebook), str(out), *named]) == 0
    with Image.open(tmp_path / "n.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        # A plain canvas has one colour; both panels have ink.
        halves = (
            picture.crop((0, 0, picture.width // 2, picture.height)),
            picture.crop((picture.width // 2, 0, *picture.size)),
        )
        assert all(len(half.convert("RGB").getcolors(1 << 20) or []) > 20 for half in halves)


def test_without_a_run_the_card_alone_is_told(codebook: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codebook-report", str(codebook)]) == 0
    assert "somebody/hubert" in capsys.readouterr().out
    assert "units" not in json.loads((codebook.parent / "codebook.report.json").read_text())
    assert not (codebook.parent / "codebook.report.png").exists()


def test_units_that_use_all_alike_and_one_alone() -> None:
    alike = unit_numbers(np.full(64, 5), np.bincount([1] * 320))
    assert alike["perplexity"] == pytest.approx(64)
    assert alike["entropy_bits"] == pytest.approx(6)
    alone = unit_numbers(np.array([0, 9, 0]), np.bincount([4, 5]))
    assert (alone["perplexity"], alone["entropy_bits"], alone["dead"], alone["most_used"]) == (1.0, 0.0, 2, 1)
    silent = unit_numbers(np.zeros(3, np.int64), np.zeros(3, np.int64))
    assert (silent["dead"], silent["perplexity"], silent["mean_run"]) == (3, 0.0, 0.0)


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    assert main(["codebook-report", *map(str, command)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_is_there_is_never_replaced(codebook: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = codebook.parent / "codebook.report.png"
    taken.write_text("mine")
    assert "codebook.report.png exists" in refused(capsys, codebook, out)
    assert not (codebook.parent / "codebook.report.json").exists()
    assert taken.read_text() == "mine"
    (codebook.parent / "codebook.report.json").write_text("mine")
    assert "codebook.report.json exists" in refused(capsys, codebook)


def test_units_of_another_codebook_are_refused(
    codebook: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"centroids": np.ones((CLUSTERS, 4), np.float32)}, other)
    assert "are of another codebook" in refused(capsys, other, out)
    assert "has no units" in refused(capsys, codebook, tmp_path / "nothing")
    assert "name the run directory" in refused(capsys, codebook, "--png", tmp_path / "x.png")
    assert "there is no codebook" in refused(capsys, tmp_path / "none.safetensors")
    assert "cannot be written" in refused(capsys, codebook, "--json", tmp_path / "no" / "x.json")
    assert not list(tmp_path.glob("*.json"))


def test_a_codebook_without_a_card_has_none(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({"centroids": np.ones((3, 4), np.float32)}, path)
    written = io.StringIO()
    report(path, None, None, None, Console(file=written, width=120))
    assert "card" in written.getvalue()
    with pytest.raises(UserError, match="exists"):
        report(path, None, None, None, Console(file=written))


def test_two_files_of_one_name_are_refused_and_options_are_named(
    codebook: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = tmp_path / "same"
    assert "--json and --png both name" in refused(capsys, codebook, out, "--json", same, "--png", same)
    assert not same.exists()
    (tmp_path / "n.txt").write_text("mine")
    assert refused(capsys, codebook, out, "--png", tmp_path / "n.txt").endswith("name another file by --png")


def test_an_unfinished_run_is_told_and_one_without_frames_refused(
    codebook: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spire_ray.codebook_report.load_plan", lambda store: SimpleNamespace(shards=5))
    assert main(["codebook-report", str(codebook), str(out)]) == 0
    assert "shards 2 of 5" in capsys.readouterr().out
    store = Store(str(tmp_path / "silent"))
    mark = freeze(store, "units.json", {"codebook": load_codebook(codebook).sha256, "plan": "p"})
    outputs.commit(store, "units", from_rows([row("gone", None)], UNITS), 0, 0, mark)
    assert "have no frames" in refused(
        capsys, codebook, store.url, "--json", tmp_path / "s.json", "--png", tmp_path / "s.png"
    )
    assert not (tmp_path / "s.json").exists()
