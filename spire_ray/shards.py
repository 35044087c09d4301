"""The first stages of the pipelines: from a shard's descriptor to its rows."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spire_ray import outputs
from spire_ray.activity import SpeechRatios
from spire_ray.plan import read_shard
from spire_ray.read import ReadAudio
from spire_ray.store import Store
from spire_ray.tables import SOURCES, nest


@dataclass(frozen=True)
class StoreAt:
    """How an actor opens a run directory: its URL and fsspec storage options."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # not for a log

    def open(self) -> Store:
        """The store, in this process."""
        return Store(self.url, self.storage_options)


def shard_of(row: pa.Table) -> tuple[int, int]:
    """The shard and attempt of a one-row table."""
    return row.column("shard")[0].as_py(), row.column("attempt")[0].as_py()


def this_actor() -> str:
    """What a shard's summary calls the actor that made it: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class ReadShard:
    """The first stage of audio to units: the plan's rows of a shard, with their audio read and decoded.

    Input columns: shard, attempt. Output columns: shard, attempt, utterances (WAVEFORMS). In a retry only the items
    whose units row has an error, whatever their audio's etag is now. A speech_ratio that the plan lacks is measured.
    """

    def __init__(self, run: StoreAt, max_seconds: float) -> None:
        self.store = run.open()
        self.first = ReadAudio(run.storage_options, max_seconds)
        self.again = ReadAudio(run.storage_options, max_seconds, check_etag=False)
        self.with_speech_ratios = SpeechRatios()

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its WAVEFORMS."""
        shard, attempt = shard_of(row)
        if attempt == 0:
            waveforms = self.first.read(read_shard(self.store, shard))
        else:
            waveforms = self.again.read(retriable_rows(self.store, "units", shard, attempt))
        return nest(shard, attempt, utterances=self.with_speech_ratios(waveforms))


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
        highest = self.attempts[shard]
        if attempt == 0:
            units = outputs.rows_that_count(self.store, "units", shard, highest)
        else:
            units = retriable_text(self.store, self.out, self.tables, shard, attempt, highest)
        return nest(shard, attempt, utterances=as_sources(units))


class LoadText:
    """The first stage of text to text: a shard's planned rows. Columns as in LoadUnits."""

    def __init__(self, run: StoreAt) -> None:
        self.store = run.open()

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its SOURCES."""
        shard, attempt = shard_of(row)
        if attempt == 0:
            return nest(shard, attempt, utterances=as_sources(read_shard(self.store, shard)))
        again = retriable_rows(self.store, "translations", shard, attempt)
        return nest(shard, attempt, utterances=as_sources(again))


def retriable_text(
    source: Store, out: Store, tables: Sequence[str], shard: int, attempt: int, units_attempt: int
) -> pa.Table:
    """The units (UNITS) of the utterances that have them, and an error in one of `tables` before `attempt`."""
    units = outputs.rows_that_count(source, "units", shard, units_attempt)
    failed = pc.is_in(units.column("utterance_id"), failed_ids(out, tables, shard, attempt))
    return units.filter(pc.and_(failed, pc.is_null(units.column("error"))))


def retriable_rows(store: Store, table: str, shard: int, attempt: int) -> pa.Table:
    """The planned rows (PLAN) without an error in the plan, which stays, but with one in `table` before `attempt`."""
    rows = read_shard(store, shard)
    failed = pc.is_in(rows.column("utterance_id"), failed_ids(store, [table], shard, attempt))
    return rows.filter(pc.and_(failed, pc.is_null(rows.column("error"))))


def failed_ids(store: Store, tables: Sequence[str], shard: int, attempt: int) -> pa.Array:
    """The utterances with a row in error in any of `tables` before `attempt`."""
    ids: set[str] = set()
    for table in tables:
        rows = outputs.rows_that_count(store, table, shard, attempt - 1, [*outputs.item_columns(table), "error"])
        ids.update(rows.filter(pc.is_valid(rows.column("error"))).column("utterance_id").to_pylist())
    return pa.array(sorted(ids), pa.string())


def as_sources(rows: pa.Table) -> pa.Table:
    """Units or plan rows as SOURCES: the columns they have, null for the others."""
    columns = [
        rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
        for field in SOURCES
    ]
    return pa.table(columns, schema=SOURCES)
