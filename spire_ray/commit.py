"""The last stages of the pipelines: finished rows to committed parts, and what each shard reports to the driver."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spire_ray import outputs
from spire_ray.shards import StoreAt, shard_of
from spire_ray.tables import PARITY, TRANSCRIPTS, TRANSLATIONS, UNITS, reason_of, unnest

NAMED_FAULTS = 5  # error rows that a summary names: the end of a run shows a few


@dataclass(frozen=True)
class Summary:
    """What one shard came to: all that travels back to the driver."""

    shard: int
    attempt: int
    utterances: int
    audio_s: float
    reasons: list[str]  # one for each error row
    faults: list[str]  # "utterance_id: error" of the first few
    ready_at: float  # when the model's stage was loaded, seconds since the epoch
    committed_at: float
    busy_s: float  # inside the model's stage
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, found in the prefix cache
    shareable_tokens: int = 0  # of the prompt tokens, those that could be
    generated_tokens: int = 0
    actor: str | None = None  # that ran the model: host and process
    # Of the encoder:
    encode_budget_s: float | None = None  # seconds of audio per micro-batch
    redone_in_float32: bool = False
    gpu_utilisation: float | None = None  # percent
    parity: dict[str, Any] | None = None  # parity.Parity of this shard


_FROM_STAGE = (
    "cached_tokens",
    "shareable_tokens",
    "actor",
    "encode_budget_s",
    "redone_in_float32",
    "gpu_utilisation",
    "parity",
)
SUMMARY = pa.schema(
    [
        ("shard", pa.int32()),
        ("attempt", pa.int32()),
        ("utterances", pa.int64()),
        ("audio_s", pa.float64()),
        ("reasons", pa.list_(pa.string())),
        ("faults", pa.list_(pa.string())),
        ("ready_at", pa.float64()),
        ("committed_at", pa.float64()),
        ("busy_s", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("shareable_tokens", pa.int64()),
        ("generated_tokens", pa.int64()),
        ("actor", pa.string()),
        ("encode_budget_s", pa.float64()),
        ("redone_in_float32", pa.bool_()),
        ("gpu_utilisation", pa.float64()),
        ("parity", PARITY),
    ]
)


class CommitUnits:
    """Audio to units ends here: one part, one put.

    Input columns: those that EncodeUnits returns, and ready_at. Output columns: those of `Summary`.
    """

    def __init__(self, out: StoreAt, fingerprint: str) -> None:
        self.store = out.open()
        self.fingerprint = fingerprint

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's units to its summary."""
        shard, attempt = shard_of(row)
        units = unnest(row, "utterances", UNITS)
        outputs.commit(self.store, "units", units, shard, attempt, self.fingerprint)
        return summary_row(row, units, pc.sum(units.column("duration_s")).as_py() or 0.0, "encode_seconds")


class CommitText:
    """Units to text ends here: translations first, transcripts last, since the last of `tables` marks a shard as done.

    Input columns: shard, attempt, transcripts (TRANSCRIPTS), translations (TRANSLATIONS), audio_seconds,
    generate_seconds, cached_tokens, shareable_tokens, actor, ready_at. Output columns: those of `Summary`.
    """

    def __init__(self, out: StoreAt, tables: Sequence[str], fingerprint: str) -> None:
        self.store = out.open()
        self.tables = tables
        self.fingerprint = fingerprint

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's text to its summary."""
        shard, attempt = shard_of(row)
        schemas = {"translations": TRANSLATIONS, "transcripts": TRANSCRIPTS}
        made = {table: unnest(row, table, schemas[table]) for table in self.tables}
        for table, rows in made.items():
            if attempt:
                rows = _still_wanted(rows, outputs.rows_that_count(self.store, table, shard, attempt - 1))
            outputs.commit(self.store, table, rows, shard, attempt, self.fingerprint)
        shared = ["utterance_id", "prompt_tokens", "generated_tokens", "error"]
        text = pa.concat_tables([rows.select(shared) for rows in made.values()])
        return summary_row(row, text, row.column("audio_seconds")[0].as_py(), "generate_seconds")


def _still_wanted(rows: pa.Table, before: pa.Table) -> pa.Table:
    """Of a retry's rows those whose item had an error: an item never gets a second row without one."""
    fine = before.filter(pc.is_null(before.column("error")))
    done = set(outputs.item_keys(fine))
    return rows.filter(pa.array([key not in done for key in outputs.item_keys(rows)], pa.bool_()))


def summary_row(row: pa.Table, rows: pa.Table, audio_s: float, busy_column: str) -> pa.Table:
    """The one row of `Summary` for what the shard `row` has come to in `rows`."""
    shard, attempt = shard_of(row)
    failed = rows.filter(pc.is_valid(rows.column("error"))).select(["utterance_id", "error"])
    messages = failed.column("error").to_pylist()
    first = failed.slice(0, NAMED_FAULTS).to_pylist()
    told: dict[str, Any] = {
        name: pc.sum(rows.column(name)).as_py() or 0
        for name in ("prompt_tokens", "generated_tokens")
        if name in rows.schema.names
    }
    told |= {name: row.column(name)[0].as_py() for name in _FROM_STAGE if name in row.schema.names}
    summary = Summary(
        shard=shard,
        attempt=attempt,
        utterances=pc.count_distinct(rows.column("utterance_id")).as_py(),
        audio_s=audio_s,
        reasons=[reason_of(message) for message in messages],
        faults=[f"{fault['utterance_id']}: {fault['error']}" for fault in first],
        ready_at=row.column("ready_at")[0].as_py(),
        committed_at=time.time(),
        busy_s=row.column(busy_column)[0].as_py(),
        **told,
    )
    return pa.Table.from_pylist([asdict(summary)], schema=SUMMARY)
