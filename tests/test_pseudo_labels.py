"""jobs/pseudo_labels.py: from a corpus with transcripts to pairs for training, with stand-ins for the models."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from in_process import run_in_process, small_checkpoint

sys.path.append(str(Path(__file__).parents[1] / "jobs"))
import pseudo_labels
from spire_ray.checkpoints import TINY_FOLDER

IN_ENGLISH = {"en": "English", "de": "German", "fr": "French"}


def test_transcripts_are_translated_and_joined_to_their_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = TINY_FOLDER / "clips" / "manifest.jsonl"
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))
    monkeypatch.setattr(pseudo_labels, "LANGUAGES", ["de", "fr"])
    work = tmp_path / "work"
    assert pseudo_labels.main(str(manifest), work) == 0
    said = {row["id"]: row["text"] for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines())}
    heard = {row["utterance_id"]: row["units"] for row in pq.read_table(work / "units" / "units").to_pylist()}
    assert heard.keys() == said.keys()
    answers = {"en": str, "de": lambda text: f"{len(text)} in de", "fr": lambda text: f"{len(text)} in fr"}
    rows = pq.read_table(work / "dataset" / "train").to_pylist()
    assert {(row["utterance_id"], row["language"]) for row in rows} == {(id_, to) for id_ in said for to in answers}
    for row in rows:
        asked, answer = (turn["value"] for turn in row["conversations"])
        id_, to = row["utterance_id"], row["language"]
        assert asked == f"Speech: {''.join(chr(0xF0000 + unit) for unit in heard[id_])}\n{IN_ENGLISH[to]}:"
        assert answer == answers[to](said[id_])

    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet")}
    assert pseudo_labels.main(str(manifest), work) == 0
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet")} == before
