"""A run directory as `speech-to-text` or `translate` leaves it, written by hand: plan, text.json, parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spire_ray import outputs
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
