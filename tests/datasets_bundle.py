"""A run directory made of rows: plan, units, transcripts and translations, without a model and without Ray."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from spire_ray import outputs
from spire_ray.cut import cut_text
from spire_ray.frozen import freeze
from spire_ray.plan import read_shard, write_plan
from spire_ray.store import Store
from spire_ray.tables import PLAN, TRANSCRIPTS, TRANSLATIONS, UNITS

Row = Mapping[str, Any]
PLANNED = pa.schema([field for field in PLAN if field.name != "shard"])


def text_row(text: str | None, *, flags: Sequence[str] = (), logprob: float = -0.1, error: str | None = None) -> Row:
    """A generated text."""
    if text is None:
        return {"error": error or "no_units: silent"}
    told = {"finish_reason": "stop", "prompt_tokens": 9, "generated_tokens": 4, "flags": list(flags)}
    return {"text": text, "avg_logprob": logprob, **told}


def make_run(folder: Path, rows: Sequence[Row], shard_rows: int = 1000) -> Path:
    """OUT with `rows`: columns of the plan, `units`, `transcript` (a str or text_row), `translations` by language."""
    store = Store(str(folder))
    by_id = {row["id"]: row for row in rows}
    planned = pa.Table.from_pylist([_planned(row) for row in rows], schema=PLANNED)
    plan = write_plan(store, cut_text(planned, shard_rows), {"made": "for a test"})
    freeze(store, "units.json", {"plan": plan.fingerprint, "clusters": 100})
    freeze(store, "text.json", {"checkpoint": "none", "units": "those"})
    for shard in range(plan.shards):
        ids = read_shard(store, shard).column("utterance_id").to_pylist()
        chosen = [by_id[name] for name in ids]
        _commit(store, "units", UNITS, shard, [_units(row) for row in chosen])
        heard = [{"utterance_id": row["id"], **_text(row["transcript"])} for row in chosen if "transcript" in row]
        said = [
            {"utterance_id": row["id"], "target_language": language, "method": "direct", **_text(text)}
            for row in chosen
            for language, text in row.get("translations", {}).items()
        ]
        _commit(store, "translations", TRANSLATIONS, shard, said)
        _commit(store, "transcripts", TRANSCRIPTS, shard, heard)
    return folder


def _text(given: str | Row) -> Row:
    return text_row(given) if isinstance(given, str) else given


def _planned(row: Row) -> dict[str, Any]:
    kept = {name: row[name] for name in row if name in PLANNED.names and name != "units"}
    references = [{"language": to, "text": text} for to, text in row.get("references", {}).items()]
    audio = row.get("audio_uri", f"/sounds/{row['id']}.wav" if "text" not in row else None)
    return {**kept, "utterance_id": row["id"], "audio_uri": audio, "references": references or None}


def _units(row: Row) -> dict[str, Any]:
    units = row.get("units")
    seconds = row.get("duration_s", 1.0)
    if units is None:
        return {"utterance_id": row["id"], "error": "silent: nothing", "duration_s": seconds}
    told = {"run_lengths": [1] * len(units), "num_frames": len(units), "duration_s": seconds, "speech_ratio": 0.9}
    return {"utterance_id": row["id"], "units": list(units), **told}


def _commit(store: Store, table: str, schema: pa.Schema, shard: int, rows: Sequence[Row]) -> None:
    outputs.commit(store, table, pa.Table.from_pylist(list(rows), schema=schema), shard, 0, "made for a test")


def longer_numbers(sources: Sequence[str], hypotheses: Sequence[str], languages: Sequence[Any]) -> list[float]:
    """A scorer: the number in the translation, which must be that of its source."""
    assert all(pair in (("en", "de"), ("en", "fr")) for pair in languages)
    numbers = [[word for word in text.split() if word.isdigit()] for text in hypotheses]
    assert numbers == [[word for word in text.split() if word.isdigit()] for text in sources]
    return [float(found[0]) for found in numbers]
