"""All that a run knows of an utterance in one row: its plan, units, transcript and translations, shard by shard."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from spire_ray import outputs, records
from spire_ray.plan import Plan, read_shard
from spire_ray.store import Store
from spire_ray.tables import PLAN, TRANSCRIPTS, TRANSLATIONS

_TEXT = [field for field in TRANSCRIPTS if field.name != "utterance_id"]
_TRANSLATION = [field for field in TRANSLATIONS if field.name != "utterance_id"]
JOINED = pa.schema(
    [
        *(field for field in PLAN if field.name not in ("duration_s", "speech_ratio", "error")),
        ("duration_s", pa.float64()),  # as read, else as planned
        ("speech_ratio", pa.float32()),
        ("units", pa.list_(pa.int16())),
        ("run_lengths", pa.list_(pa.int16())),
        ("transcript", pa.struct(_TEXT)),  # null where none was made yet, or none was asked for
        ("translations", pa.list_(pa.struct(_TRANSLATION))),
        ("error", pa.string()),  # of the plan, else of the units
    ]
)


@dataclass(frozen=True)
class Joined:
    """A run directory whose tables are read side by side. `text_run`: OUT, or the OUT2 of `generate --to`."""

    text_run: Store

    @cached_property
    def units_run(self) -> Store:
        """Where plan and units lie: OUT itself, or the OUT that an OUT2 shares the units of."""
        return records.units_run(self.text_run)

    @cached_property
    def plan(self) -> Plan:
        """UserError when there is none."""
        return records.plan_of(self.units_run)

    @cached_property
    def _attempts(self) -> dict[str, dict[int, int]]:
        runs = {"units": self.units_run, "transcripts": self.text_run, "translations": self.text_run}
        return {table: outputs.committed(run, table) for table, run in runs.items()}

    def shards(self) -> Iterator[pa.Table]:
        """A table of JOINED for each shard, a row for every planned utterance; what is not made yet is null."""
        for shard in range(self.plan.shards):
            yield pa.Table.from_pylist(self.shard(shard), schema=JOINED)

    def shard(self, shard: int) -> list[dict[str, Any]]:
        """One shard's rows as dicts of the columns of JOINED, in the order of the plan."""
        units = {row["utterance_id"]: row for row in self._rows(self.units_run, "units", shard)}
        transcripts = {row["utterance_id"]: row for row in self._rows(self.text_run, "transcripts", shard)}
        translations: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows(self.text_run, "translations", shard):
            translations.setdefault(row["utterance_id"], []).append(_without_id(row))
        rows = []
        for planned in read_shard(self.units_run, shard).to_pylist():
            key = planned["utterance_id"]
            made = units.get(key, {})
            ratio = made.get("speech_ratio")
            rows.append(
                planned
                | {
                    "duration_s": made.get("duration_s") or planned["duration_s"],
                    "speech_ratio": planned["speech_ratio"] if ratio is None else ratio,
                    "units": made.get("units"),
                    "run_lengths": made.get("run_lengths"),
                    "transcript": _without_id(transcripts[key]) if key in transcripts else None,
                    "translations": translations.get(key, []),
                    "error": planned["error"] or made.get("error"),
                }
            )
        return rows

    def _rows(self, run: Store, table: str, shard: int) -> list[dict[str, Any]]:
        highest = self._attempts[table].get(shard)
        rows: list[dict[str, Any]] = []
        if highest is not None:
            rows = outputs.rows_that_count(run, table, shard, highest).to_pylist()
        return rows


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "utterance_id"}
