"""What a run writes about itself: runs/ID.json (what one driver did), run.json (what OUT holds), README.md."""

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spire_ray import outputs
from spire_ray.card import card
from spire_ray.driver import Driver
from spire_ray.errors import UserError
from spire_ray.parity import Parity
from spire_ray.plan import Plan, load_plan
from spire_ray.store import Store

READERS = 16  # parts read at once: small objects, so latency bound
NAMED_FAULTS = 100  # error rows that run.json names


def load_json(store: Store, key: str) -> dict[str, Any] | None:
    """A JSON object of the run directory, or None. UserError when it is damaged."""
    try:
        loaded: dict[str, Any] = json.loads(store.get(key))
    except FileNotFoundError:
        return None
    except ValueError as fault:
        raise UserError(f"{store.url}/{key} is damaged ({fault}): restore it, or use another OUT") from None
    return loaded


def units_run(store: Store) -> Store:
    """The run that holds the plan and units of this one: another where it was made by `generate OUT --to OUT2`."""
    text = load_json(store, "text.json")
    url = text["settings"].get("units_run") if text else None
    return Store(url, store.storage_options) if url else store


def plan_of(store: Store) -> Plan:
    """Its plan. UserError where there is none."""
    plan = load_plan(store)
    if plan is None:
        raise UserError(f"{store.url} has no plan.json: it is not the output folder of a run")
    return plan


def write_records(driver: Driver, store: Store) -> None:
    """Put runs/ID.json if this driver did something, README.md and run.json unless they tell of all that lies there.

    run.json last: where it is of now, README.md is too. A driver that died before them leaves them to the next.
    """
    if driver.stages:
        store.create(f"runs/{driver.id}.json", _json(driver.record()))
    if driver.was_stopped or load_plan(units_run(store)) is None:
        return  # a machine that is being taken away gives seconds, and counting opens every part
    if not driver.stages and not _are_stale(store):
        return
    summary = summarise(store)
    store.replace("README.md", card(summary).encode())
    store.replace("run.json", _json(summary))


def _are_stale(store: Store) -> bool:
    parts = _parts(store)
    told = load_json(store, "run.json")
    return any(parts.values()) and (told is None or told.get("parts") != parts)


def _parts(store: Store) -> dict[str, int]:
    """How many parts each table has, retries among them."""
    return {table: sum(name != outputs.SUCCESS for name in store.find(table)) for table in outputs.SCHEMAS}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def summarise(store: Store) -> dict[str, Any]:
    """What OUT holds, counted from its parts and not from any driver's memory: run.json."""
    source = units_run(store)
    plan = plan_of(source)
    runs = [run for name in store.find("runs") if (run := load_json(store, f"runs/{name}"))]
    counts = {table: _count(store, table) for table in outputs.SCHEMAS}
    return {
        "plan": {
            "utterances": plan.utterances,
            "hours": plan.hours,
            "shards": plan.shards,
            "here": source.url == store.url,
        },
        "tables": {table: counted.as_dict() if counted.shards else None for table, counted in counts.items()},
        "faults": [fault for counted in counts.values() for fault in counted.faults],
        "units": {"settings": load_json(store, "units.json"), **_speed(runs, "units"), **_encoders(runs)},
        "text": {"settings": load_json(store, "text.json"), **_with_cache_figures(_speed(runs, "text"))},
        "drivers": len(runs),
        "parts": _parts(store),
    }


def _speed(runs: Iterable[dict[str, Any]], stage: str) -> dict[str, Any]:
    stages = [run["stages"][stage] for run in runs if stage in run["stages"]]
    names = (
        "audio_hours",
        "work_seconds",
        "prompt_tokens",
        "cached_tokens",
        "shareable_tokens",
        "generated_tokens",
    )
    totals = {name: round(sum(made[name] for made in stages), 6) for name in names}
    rtfx = totals["audio_hours"] * 3600 / totals["work_seconds"] if totals["work_seconds"] else None
    return {**totals, "rtfx": rtfx and round(rtfx, 3)}


def _with_cache_figures(totals: dict[str, Any]) -> dict[str, Any]:
    """With the share of prompt tokens found in the prefix cache, and the share that could be: what prompts share."""
    prompts = totals["prompt_tokens"]
    rates = {"cache_hit_rate": "cached_tokens", "cache_hit_ideal": "shareable_tokens"}
    return totals | {rate: round(totals[name] / prompts, 4) if prompts else None for rate, name in rates.items()}


def _encoders(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Of every run that made units: what was compared with float32, and the speed of each actor."""
    stages = [run["stages"]["units"] for run in runs if "parity" in run["stages"].get("units", {})]
    return {
        "parity": sum((Parity.of(stage["parity"]) for stage in stages), Parity()).as_dict() if stages else None,
        "shards_redone_in_float32": sum(stage["shards_redone_in_float32"] for stage in stages),
        "actors": {name: actor for stage in stages for name, actor in stage["actors"].items()},
    }


@dataclass
class _Counted:
    """One table, counted over its shards."""

    shards: int
    rows: int = 0
    audio_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        self.errors.update(outputs.error_counts(rows))
        # What has no units for a reason is named once, in the units table.
        errors = rows.column("error")
        own = pc.and_(pc.is_valid(errors), pc.invert(pc.starts_with(pc.fill_null(errors, ""), "no_units")))
        failed = rows.filter(own).slice(0, NAMED_FAULTS - len(self.faults))
        self.faults += [f"{row['utterance_id']}: {row['error']}" for row in failed.to_pylist()]
        if "duration_s" in rows.schema.names:
            self.audio_s += pc.sum(rows.column("duration_s")).as_py() or 0.0
        if "target_language" in rows.schema.names:
            self.languages.update(rows.column("target_language").to_pylist())

    def as_dict(self) -> dict[str, Any]:
        counted: dict[str, Any] = {
            "shards": self.shards,
            "rows": self.rows,
            "errors": dict(sorted(self.errors.items())),
        }
        if self.audio_s:
            counted["audio_hours"] = round(self.audio_s / 3600, 6)
        if self.languages:
            counted["languages"] = dict(sorted(self.languages.items()))
        return counted


def _count(store: Store, table: str) -> _Counted:
    shards = outputs.committed(store, table)
    extra = {"units": ["duration_s"], "translations": ["target_language"]}.get(table, [])
    columns = ["utterance_id", *extra, "error"]

    def read(item: tuple[int, int]) -> pa.Table:
        return outputs.rows_that_count(store, table, *item, columns)

    counted = _Counted(len(shards))
    with ThreadPoolExecutor(READERS) as pool:
        for rows in pool.map(read, sorted(shards.items())):
            counted.add(rows)
    return counted
