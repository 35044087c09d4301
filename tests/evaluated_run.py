"""A run directory as `speech-to-text` or `translate` leaves it, written by hand, and what `evaluate` finds in one."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from spire_ray import outputs
from spire_ray.checkpoints import TINY_FOLDER
from spire_ray.cli import main
from spire_ray.frozen import freeze
from spire_ray.plan import write_plan
from spire_ray.store import Store
from spire_ray.tables import PLAN, TRANSCRIPTS, TRANSLATIONS, from_rows

SCHEMAS = {"transcripts": TRANSCRIPTS, "translations": TRANSLATIONS}


def made(utterance_id: str, text: str | None, language: str | None = None, error: str | None = None) -> dict[str, Any]:
    """A row of transcripts, or with a language of translations."""
    row = {"utterance_id": utterance_id, "text": text, "error": error}
    return row if language is None else row | {"target_language": language, "method": "direct"}


def finished_run(
    folder: Path,
    shards: Sequence[Sequence[Mapping[str, Any]]],
    transcripts: Mapping[int, Sequence[Mapping[str, Any]]],
    translations: Mapping[int, Sequence[Mapping[str, Any]]],
    languages: Sequence[str] = (),
) -> str:
    """Its path. `shards`: rows of the plan; `transcripts`, `translations`: rows by shard, of those that are made."""
    store = Store(str(folder))
    tables = [
        from_rows([{**row, "shard": at} for row in sorted(rows, key=lambda row: str(row["utterance_id"]))], PLAN)
        for at, rows in enumerate(shards)
    ]
    write_plan(store, tables, {})
    settings = {
        "checkpoint": "tiny",
        "languages": sorted(languages),
        "transcripts": bool(transcripts),
        "method": "direct" if transcripts else "text",
        "source_language": "en",
        "beam": 1,
    }
    mark = freeze(store, "text.json", settings)
    for table, parts in (("transcripts", transcripts), ("translations", translations)):
        for shard, rows in parts.items():
            assert outputs.commit(store, table, from_rows(rows, SCHEMAS[table]), shard, 0, mark)
    return str(folder)


LANGUAGES = ("de", "ko", "zh")


def worsened(text: str, seed: str) -> str:
    """A text with about a fifth of its characters' neighbours swapped or words left out; never empty."""
    rng = random.Random(seed)
    pieces = text.split() if " " in text else list(text)
    kept = [piece for piece in pieces if rng.random() > 0.2] or pieces
    if rng.random() < 0.3:
        kept[rng.randrange(len(kept))] = "etwas"
    return (" " if " " in text else "").join(kept)


class Said:
    """Utterances with references in four languages, and what a model made of them."""

    def __init__(self) -> None:
        lines = (TINY_FOLDER / "clips" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        self.rows = [
            {
                "utterance_id": each["id"],
                # The clips are of 1 to 5 s; here some are longer, to have parts by length.
                "duration_s": each["duration"] * (1 + at % 4),
                "corpus": "even" if at % 2 == 0 else "odd",
                "reference": each["text"],
                "references": [one for one in each["references"] if one["language"] in LANGUAGES],
            }
            for at, each in enumerate(map(json.loads, lines))
        ]
        self.heard = {row["utterance_id"]: worsened(row["reference"], row["utterance_id"]) for row in self.rows}
        self.translated = {
            (row["utterance_id"], one["language"]): worsened(one["text"], row["utterance_id"] + one["language"])
            for row in self.rows
            for one in row["references"]
        }

    def run(self, folder: Path, languages: Sequence[str] = LANGUAGES) -> str:
        """All of it as a finished run of two shards."""
        shards = [self.rows[:20], self.rows[20:]]
        transcripts = {
            at: [made(row["utterance_id"], self.heard[row["utterance_id"]]) for row in rows]
            for at, rows in enumerate(shards)
        }
        translations = {
            at: [
                made(row["utterance_id"], self.translated[row["utterance_id"], to], to)
                for row in rows
                for to in languages
            ]
            for at, rows in enumerate(shards)
        }
        return finished_run(folder, shards, transcripts, translations, languages)


@pytest.fixture(scope="module")
def said() -> Said:
    return Said()


@pytest.fixture(scope="module")
def run(said: Said, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Translated into one language."""
    return said.run(tmp_path_factory.mktemp("run") / "out", ["de"])


def evaluated(out: str, tmp_path: Path, *options: str) -> dict[str, Any]:
    """What the command writes as JSON."""
    file = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
    assert main(["evaluate", out, "--json", str(file), *options]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def task(found: dict[str, Any], name: str, language: str) -> dict[str, Any]:
    return next(each for each in found["tasks"] if (each["task"], each["language"]) == (name, language))


def part(of: dict[str, Any], by: str = "all", name: str | None = None) -> dict[str, Any]:
    return next(each for each in of["parts"] if (each["by"], each["part"]) == (by, name))
