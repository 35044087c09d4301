"""What a report is counted and drawn from, and what it refuses; the page itself is in test_report_browser.py."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu

from datasets_bundle import make_run as make_rows
from finished_run import out
from spire_ray.cli import main
from spire_ray.report_scores import Scores
from spire_ray.samples import Draw
from spire_ray.tallies import Histogram, Tally

__all__ = ["out"]  # a fixture

SAMPLES = 20


def test_a_histogram_keeps_what_lies_beyond_its_ends() -> None:
    made = Histogram(0, 10, 5)
    values = [-3.0, 0.0, 1.99, 2.0, 9.99, 10.0, 400.0]
    for value in values:
        made.add(value)
    assert made.counts.tolist() == np.histogram(np.clip(values, 0, 9.999), 5, (0, 10))[0].tolist()
    assert (made.count, made.mean) == (7, pytest.approx(np.mean(values)))


def test_sums_over_shards_are_the_score_of_the_whole() -> None:
    pairs = [("one two three four five", "one two three five"), ("six", ""), ("a b c d e f", "a b c d e g")] * 3

    def row(reference: str, text: str) -> dict[str, Any]:
        made = {"text": text, "error": None, "target_language": "de"}
        return {
            "utterance_id": reference,
            "reference": None,
            "text": None,
            "corpus": None,
            "duration_s": 1.0,
            "error": None,
            "references": [{"language": "de", "text": reference}],
            "transcript": None,
            "translations": [made],
        }

    scores = Scores.of({"settings": {"languages": ["de"]}})
    for pair in pairs:
        scores.add([row(*pair)])
    whole = sacrebleu.corpus_bleu([b for _, b in pairs], [[a for a, _ in pairs]]).score
    assert scores.figures() == [("de", "BLEU, 13a", f"{whole:.1f}", 9, 0)]


def test_scores_are_those_of_evaluate(out: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    assert main(["evaluate", str(out), "--json", str(file)]) == 0
    assert main(["report", str(out), "--html", str(tmp_path / "page.html"), "--no-audio"]) == 0
    page = (tmp_path / "page.html").read_text()
    for task in json.loads(file.read_text())["tasks"]:
        whole = next(part for part in task["parts"] if part["by"] == "all")
        heard = task["task"] == "transcripts"
        value = whole["scores"]["WER" if heard else "BLEU"]["score"]
        cells = [f"{value:.1f}{' %' if heard else ''}", f"{whole['utterances']}", f"{sum(whole['missing'].values())}"]
        assert re.search("".join(f"<td[^>]*>{re.escape(cell)}</td>\\s*" for cell in cells), page)


def test_a_probability_that_is_none_is_not_counted() -> None:
    tally = Tally(0)
    text = {"text": "one", "error": None, "flags": []}
    row = {"duration_s": 1.0, "error": None, "units": None, "translations": []}
    for value in (-0.5, float("-inf"), float("nan"), None):
        tally.add([row | {"transcript": text | {"avg_logprob": value}}])
    assert (tally.confidence.count, tally.confidence.mean) == (1, -0.5)


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    words = "".join(f"w{n} " for n in range(3000))
    rows = [{"id": "a", "units": [1], "reference": words, "transcript": words}]
    page = tmp_path / "page.html"
    assert main(["report", str(make_rows(tmp_path / "run", rows)), "--html", str(page), "--no-audio"]) == 0
    assert page.read_text().count(words[:1999] + "…") == 2
    assert words[:2001] not in page.read_text()


def test_who_is_drawn_depends_on_ids_alone() -> None:
    rows = [
        {
            "utterance_id": f"u{n}",
            "error": "missing" if n % 10 == 0 else None,
            "transcript": {"error": None, "flags": ["empty"] if n % 10 == 1 else []},
            "translations": [],
        }
        for n in range(400)
    ]
    drawn = []
    for order in (rows, rows[::-1]):
        draw = Draw(SAMPLES)
        for at in range(0, len(order), 37):
            draw.add(order[at : at + 37])
        assert all(len(kept) <= SAMPLES for kept in draw.kinds.values())  # memory
        drawn.append([row["utterance_id"] for row in draw.chosen()])
    assert drawn[0] == drawn[1]
    assert Counter(int(name[1:]) % 10 if int(name[1:]) % 10 < 2 else "plain" for name in drawn[0]) == {
        0: 5,
        1: 5,
        "plain": 10,
    }
    few = Draw(SAMPLES)
    few.add(rows[:7])
    assert len(few.chosen()) == 7


def test_a_full_page_takes_no_more_sound(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spire_ray.report.SAMPLE_BYTES", 400_000)
    made = tmp_path / "full.html"
    assert main(["report", str(out), "--html", str(made), "--samples", "40"]) == 0
    text = made.read_text()
    assert made.stat().st_size < 500_000
    assert 1 < text.count("<audio") < 30
    assert "not played: the page is full" in text
    assert text.count("<article") == 40


def test_without_audio_nothing_is_read(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spire_ray.samples.ReadAudio", None)
    made = tmp_path / "quiet.html"
    assert main(["report", str(out), "--html", str(made), "--no-audio", "--samples", "3"]) == 0
    text = made.read_text()
    assert "<audio" not in text
    assert "data:audio" not in text
    assert "and no sound" in text
    assert text.count("<article") == 3


def test_what_is_refused(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = out.parent / "there.html"
    file.write_text("mine")
    for command, says in (
        ([out, "--html", file], "exists"),
        ([out, "--html", tmp_path / "no" / "x.html"], "no folder"),
        ([out, "--html", tmp_path / "x.html", "--samples", "-1"], "0 to 200"),
        ([tmp_path, "--html", tmp_path / "x.html"], "plan.json"),
    ):
        assert main(["report", *map(str, command)]) == 2
        assert says in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == []
