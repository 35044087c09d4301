"""Small runs made of rows, what build-dataset makes of them, and how a test reads it."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from datasets_bundle import make_run, text_row
from spire_ray.cli import main

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


def many(count: int = 60) -> list[dict[str, Any]]:
    """Utterances of 20 speakers in 30 recordings that cross each other."""
    return [
        {
            "id": f"u{number:03}",
            "units": [number % 90, 91, number % 7],
            "speaker": f"s{number % 20}" if number % 9 else None,
            "recording_id": f"r{number * 7 % 30}" if number % 5 else None,
            "corpus": "read" if number % 2 else "talk",
            "reference": f"The sentence of number {number} is here.",
            "references": {
                "de": f"Der Satz der Nummer {number} ist hier.",
                "fr": f"La phrase numéro {number} est ici.",
            },
        }
        for number in range(count)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
