"""Translations of another run beside the shards of this one: by id, else by the exact source text.

The other run (`spire-ray translate`, of TowerFull over transcripts) has shards and ids of its own. Its rows go into an
SQLite file on this machine's disk and are looked up shard by shard, so that memory holds one shard.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spire_ray import outputs
from spire_ray.dataset_tables import JOINED_MT, MT_SCHEMA, put, there
from spire_ray.dedupe import hash64
from spire_ray.errors import MachineFault, UserError
from spire_ray.joined import Joined
from spire_ray.locations import room_in
from spire_ray.recipe import Recipe
from spire_ray.records import load_json
from spire_ray.store import Store

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE made (id TEXT NOT NULL, source INTEGER NOT NULL, language TEXT NOT NULL, told TEXT NOT NULL);
"""
_INDEXES = "CREATE INDEX by_id ON made (id); CREATE INDEX by_source ON made (source);"
_ROWS = 10_000  # to an insert


def check_translations(run: Store) -> dict[str, Any]:
    """What settings.json says of the other run. UserError when it has no translations."""
    plan = Joined(run).plan
    attempts = outputs.committed(run, "translations")
    if not attempts:
        raise UserError(f"{run.url} has no translations: name the output folder of `spire-ray translate`")
    text = load_json(run, "text.json") or {}
    return {"plan": plan.fingerprint, "text": text.get("fingerprint"), "parts": sorted(map(list, attempts.items()))}


def join_translations(joined: Joined, other: Store, dataset: Store, recipe: Recipe, fingerprint: str) -> None:
    """Put `work/translations/part-NNNNN.parquet` for every shard that lacks it: MT_SCHEMA, sorted as the plan is."""
    done = there(dataset, JOINED_MT)
    missing = [shard for shard in range(joined.plan.shards) if shard not in done]
    if not missing:
        return
    with room_in(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="spire-ray-mt-") as folder:
        base = sqlite3.connect(Path(folder) / "made.sqlite", isolation_level=None)
        try:
            _load(base, Joined(other))
            for shard in missing:
                rows = list(_joined(base, joined, shard, recipe))
                put(dataset, JOINED_MT, shard, rows, MT_SCHEMA, fingerprint)
        except sqlite3.OperationalError as fault:  # a full disk is no OSError of SQLite's
            place = tempfile.gettempdir()
            raise MachineFault(f"{place}: {fault}: make room there, or name another folder by TMPDIR") from fault
        finally:
            base.close()


def _load(base: sqlite3.Connection, other: Joined) -> None:
    base.executescript(_SCHEMA)
    for shard in range(other.plan.shards):
        rows = [
            (row["utterance_id"], _key(row["text"]), made["target_language"], json.dumps(_told(made)))
            for row in other.shard(shard)
            for made in row["translations"]
            if made["error"] is None and made["text"] is not None and row["text"]
        ]
        for start in range(0, len(rows), _ROWS):
            base.execute("BEGIN")
            base.executemany("INSERT INTO made VALUES (?, ?, ?, ?)", rows[start : start + _ROWS])
            base.execute("COMMIT")
    base.executescript(_INDEXES)


def _told(made: dict[str, Any]) -> dict[str, Any]:
    return {"text": made["text"], "avg_logprob": made["avg_logprob"], "flags": list(made["flags"] or ())}


def _key(text: str | None) -> int:
    return hash64((text or "").strip()) - (1 << 63)  # SQLite's integers have a sign


def _joined(base: sqlite3.Connection, joined: Joined, shard: int, recipe: Recipe) -> Iterator[dict[str, Any]]:
    for row in joined.shard(shard):
        made = row["transcript"] or {}
        text = made.get("text") if recipe.transcripts == "generated" else row["reference"]
        found = base.execute("SELECT language, told FROM made WHERE id = ?", (row["utterance_id"],)).fetchall()
        if not found and text:
            found = base.execute("SELECT language, told FROM made WHERE source = ?", (_key(text),)).fetchall()
        for language, told in sorted(dict(reversed(found)).items()):  # of equal sentences the first one's
            yield {"utterance_id": row["utterance_id"], "language": language, **json.loads(told)}
