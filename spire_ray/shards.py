"""The first stages of the pipelines: from a shard's descriptor to its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spire_ray import outputs
from spire_ray.plan import read_shard
from spire_ray.read import ReadAudio
from spire_ray.store import Store
from spire_ray.tables import SOURCES, nest, reason_of

UNRETRIABLE = "bad_manifest_row"  # frozen in the plan: mend the manifest and start another OUT


@dataclass(frozen=True)
class StoreAt:
    """How an actor opens a run directory: its URL and fsspec storage options."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> Store:
        """The store, in this process."""
        return Store(self.url, self.storage_options)


def shard_of(row: pa.Table) -> tuple[int, int]:
    """The shard and attempt of a one-row table."""
    return row.column("shard")[0].as_py(), row.column("attempt")[0].as_py()


class ReadShard:
    """The first stage of audio to units: the plan's rows of a shard, with their audio read and decoded.

    Input columns: shard, attempt. Output columns: shard, attempt, utterances (WAVEFORMS). In a retry only the items
    whose units row has an error, whatever their audio's etag is now.
    """

    def __init__(self, run: StoreAt, max_seconds: float) -> None:
        self.store = run.open()
        self.first = ReadAudio({}, max_seconds)
        self.again = ReadAudio({}, max_seconds, check_etag=False)

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its WAVEFORMS."""
        shard, attempt = shard_of(row)
        rows = read_shard(self.store, shard)
        if attempt == 0:
            return nest(shard, attempt, utterances=self.first.read(rows))
        rows = rows.filter(pc.is_in(rows.column("utterance_id"), failed_ids(self.store, ["units"], shard, attempt)))
        return nest(shard, attempt, utterances=self.again.read(rows))


class LoadUnits:
    """The first stage of units to text: a shard's units.

    Input columns: shard, attempt. Output columns: shard, attempt, utterances (SOURCES). In a retry only the utterances
    with a text row in error, and of those not the ones that still have no units.
    """

    def __init__(self, run: StoreAt, out: StoreAt, attempts: Mapping[int, int], tables: Sequence[str]) -> None:
        """`attempts`: the highest attempt of each shard's units; `tables`: the text tables of this run."""
        self.store = run.open()
        self.out = out.open()
        self.attempts = attempts
        self.tables = tables

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its SOURCES."""
        shard, attempt = shard_of(row)
        units = outputs.rows_that_count(self.store, "units", shard, self.attempts[shard])
        if attempt:
            failed = pc.is_in(units.column("utterance_id"), failed_ids(self.out, self.tables, shard, attempt))
            units = units.filter(pc.and_(failed, pc.is_null(units.column("error"))))
        return nest(shard, attempt, utterances=as_sources(units))


class LoadText:
    """The first stage of text to text: a shard's planned rows. Columns as in LoadUnits."""

    def __init__(self, run: StoreAt) -> None:
        self.store = run.open()

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its SOURCES."""
        shard, attempt = shard_of(row)
        rows = read_shard(self.store, shard)
        if attempt:
            rows = rows.filter(
                pc.is_in(rows.column("utterance_id"), failed_ids(self.store, ["translations"], shard, attempt))
            )
        return nest(shard, attempt, utterances=as_sources(rows))


def failed_ids(store: Store, tables: Sequence[str], shard: int, attempt: int) -> pa.Array:
    """The utterances with a row in error in any of `tables` before `attempt`, bad manifest rows left out."""
    ids: list[str] = []
    for table in tables:
        rows = outputs.rows_that_count(store, table, shard, attempt - 1, [*outputs.item_columns(table), "error"])
        ids.extend(retriable(rows).column("utterance_id").to_pylist())
    return pa.array(sorted(set(ids)), pa.string())


def retriable(rows: pa.Table) -> pa.Table:
    """The rows with an error that another attempt may mend."""
    errors = rows.column("error").to_pylist()
    return rows.filter(pa.array([e is not None and reason_of(e) != UNRETRIABLE for e in errors], pa.bool_()))


def as_sources(rows: pa.Table) -> pa.Table:
    """Units or plan rows as SOURCES: the columns they have, null for the others."""
    columns = [
        rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
        for field in SOURCES
    ]
    return pa.table(columns, schema=SOURCES)
