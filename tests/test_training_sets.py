"""build-dataset on small runs made of rows: what is written, what is dropped and why, and what never leaks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from datasets_bundle import make_run, text_row
from spire_ray.cli import main
from spire_ray.store import Store

UNITS = [chr(0xF0000 + unit) for unit in range(100)]
ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "units": [5, 17, 3],
        "speaker": "s1",
        "corpus": "read",
        "reference": "We walk along the river.",
        "references": {"de": "Wir gehen am Fluss entlang."},
        "transcript": "We walk along a river.",
        "translations": {"de": "Wir laufen am Fluss entlang.", "fr": "Nous marchons le long de la rivière."},
    },
    {
        "id": "b",
        "units": [1, 2],
        "speaker": "s2",
        "corpus": "read",
        "reference": "The house is small.",
        "references": {"de": "Das Haus ist klein."},
        "transcript": text_row("The house is small small small", flags=["repetition"]),
        "translations": {"de": "Das Haus ist klein.", "fr": text_row(None, error="engine_crash: it died")},
    },
    {"id": "c", "units": None, "speaker": "s1", "corpus": "noise", "reference": "Nothing."},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", ROWS, shard_rows=2)


def build(run: Path, dataset: Path, *options: str) -> dict[str, Any]:
    assert main(["build-dataset", str(run), str(dataset), *options]) == 0
    told: dict[str, Any] = json.loads((dataset / "dataset.json").read_text())
    return told


def rows_of(dataset: Path, split: str) -> list[dict[str, Any]]:
    parts = sorted((dataset / split).glob("*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_pretraining_lines_are_the_papers(run: Path, tmp_path: Path) -> None:
    build(run, tmp_path / "set", "--format", "pretraining", "--jsonl")
    # "Speech:{u}\nEnglish: {T}": no space before the units, one before the transcript.
    expected = {
        f"Speech:{UNITS[5]}{UNITS[17]}{UNITS[3]}\nEnglish: We walk along the river.",
        f"Speech:{UNITS[1]}{UNITS[2]}\nEnglish: The house is small.",
    }
    assert {row["text"] for row in rows_of(tmp_path / "set", "train")} == expected
    lines = [line for part in (tmp_path / "set" / "train").glob("*.jsonl") for line in part.read_text().splitlines()]
    assert {json.loads(line)["text"] for line in lines} == expected
    assert all(list(json.loads(line)) == ["text"] for line in lines)


def test_conversations_are_the_papers(run: Path, tmp_path: Path) -> None:
    build(run, tmp_path / "set", "--tasks", "asr", "st", "multi-turn", "mt", "--jsonl")
    made = {(row["utterance_id"], row["task"]): row["conversations"] for row in rows_of(tmp_path / "set", "train")}
    speech = f"Speech: {UNITS[5]}{UNITS[17]}{UNITS[3]}\n"
    assert made["a", "asr"] == [
        {"from": "human", "value": f"{speech}English:"},
        {"from": "gpt", "value": "We walk along the river."},
    ]
    assert made["a", "st"] == [
        {"from": "human", "value": f"{speech}German:"},
        {"from": "gpt", "value": "Wir gehen am Fluss entlang."},
    ]
    assert made["a", "multi-turn"] == [
        {"from": "human", "value": f"{speech}English:"},
        {"from": "gpt", "value": "We walk along the river."},
        {"from": "human", "value": "German:"},
        {"from": "gpt", "value": "Wir gehen am Fluss entlang."},
    ]
    assert made["a", "mt"] == [
        {
            "from": "human",
            "value": "Translate the following text from English to German.\nEnglish: We walk along the river.\nGerman:",
        },
        {"from": "gpt", "value": "Wir gehen am Fluss entlang."},
    ]
    lines = [line for part in (tmp_path / "set" / "train").glob("*.jsonl") for line in part.read_text().splitlines()]
    assert {"conversations": made["a", "st"]} in [json.loads(line) for line in lines]


def test_hugging_face_reads_it_back(run: Path, tmp_path: Path) -> None:
    build(run, tmp_path / "set", "--tasks", "asr", "st", "--dev", "0.5", "--seed", "3")
    found = load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    for split in ("train", "dev"):
        expected = rows_of(tmp_path / "set", split)
        got = [] if split not in found else found[split].to_list()
        assert [row["conversations"] for row in got] == [row["conversations"] for row in expected]


def test_generated_text_and_what_each_loss_is_called(run: Path, tmp_path: Path) -> None:
    told = build(run, tmp_path / "set", "--transcripts", "generated", "--translations", "generated")
    kept = {(row["utterance_id"], row["language"]) for row in rows_of(tmp_path / "set", "train")}
    lost = {(row["utterance_id"], row["language"]): row["reason"] for row in rows_of(tmp_path / "set", "dropped")}
    assert kept == {("a", "en"), ("a", "de"), ("a", "fr")}
    assert lost == {
        ("b", "en"): "repetition",
        ("b", "de"): "repetition",
        ("b", "fr"): "no_translation",
        ("c", "en"): "error",
    }
    by_language = {row["language"]: row for row in told["funnel"]}
    assert by_language["fr"]["in"]["utterances"] == 2
    assert by_language["fr"]["lost"] == {
        "no_translation": {"utterances": 1, "hours": pytest.approx(1 / 3600, abs=1e-6)}
    }


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Iterator[Store]:
    yield Store(str(tmp_path / "set"))
