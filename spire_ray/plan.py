"""The plan: shards of rows, frozen as plan/part-NNNNN.parquet and plan.json.

Shard i is row group i % 1000 of part i // 1000: found by arithmetic. Everything is put create-only and plan.json last,
and equal input gives equal bytes, so planning that was killed is simply done again, and drivers may plan side by side.
"""

import json
import tempfile
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spire_ray.cut import known_seconds, milliseconds
from spire_ray.errors import MachineFault, UserError
from spire_ray.frozen import FINGERPRINT, fingerprint, plain, refuse_other
from spire_ray.locations import patiently, room_in
from spire_ray.parquet import check_plain, open_parquet
from spire_ray.store import Store
from spire_ray.tables import PLAN

FORMAT = 1
SHARDS_PER_PART = 1000


@dataclass(frozen=True)
class Shard:
    """What a shard is to the driver: its rows stay in the plan part."""

    index: int
    attempt: int
    utterances: int
    seconds: float  # of audio, partly guessed; 0 in a text corpus


@dataclass(frozen=True)
class Plan:
    """plan.json: what there is to do."""

    shards: int
    utterances: int
    hours: float  # of the utterances whose duration is known
    unknown_durations: int
    settings: Mapping[str, Any]
    fingerprint: str
    shard_utterances: tuple[int, ...]
    shard_seconds: tuple[float, ...]

    def without(self, committed: Container[int]) -> list[Shard]:
        """The shards, at attempt 0, whose index is not in `committed`."""
        counts = zip(self.shard_utterances, self.shard_seconds, strict=True)
        return [Shard(index, 0, *count) for index, count in enumerate(counts) if index not in committed]

    def refuse_other(self, store: Store, settings: Mapping[str, Any]) -> None:
        """UserError when a field of `settings` is not as this plan has it. Fields not named are as they are."""
        asked = plain(settings)
        refuse_other(store, "plan.json", {key: self.settings[key] for key in asked if key in self.settings}, asked)


@dataclass
class Counts:
    """What plan.json says of the shards, counted while they go by."""

    utterances: list[int] = field(default_factory=list)  # of each shard
    milliseconds: list[int] = field(default_factory=list)
    known_microseconds: int = 0
    unknown: int = 0

    def add(self, shard: pa.Table) -> None:
        """Count one shard, a table of tables.PLAN."""
        known = known_seconds(shard)
        self.utterances.append(shard.num_rows)
        self.milliseconds.append(int(milliseconds(shard).sum()))
        # Whole numbers, as their sum does not depend on the order.
        self.known_microseconds += int(np.rint(known.drop_null().to_numpy() * 1e6).sum())
        self.unknown += pc.sum(pc.and_not(pc.is_null(known), pc.is_null(shard.column("audio_uri")))).as_py() or 0

    @property
    def hours(self) -> float:
        """Of the utterances whose duration is known."""
        return round(self.known_microseconds / 3.6e9, 6)


def write_plan(store: Store, shards: Iterable[pa.Table], settings: Mapping[str, Any]) -> Plan:
    """Freeze the shards that `cut` gives. A plan already there stays as it is.

    UserError when that one, or the parts that a killed planning left, were made from something else.
    """
    settings = plain(settings)
    there = load_plan(store)
    if there is not None:
        refuse_other(store, "plan.json", there.settings, settings)
        return there
    mark = fingerprint(settings)
    counts = Counts()
    # On this machine first: that ids are unique is known at the end, and before that nothing may be written to OUT.
    with room_in(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="spire-ray-plan-") as folder:
        numbered = groupby(enumerate(shards), lambda shard: shard[0] // SHARDS_PER_PART)
        paths = [
            _spool(Path(folder) / str(part), (shard for _, shard in some), counts, mark) for part, some in numbered
        ]
        for part, path in enumerate(paths):
            _put_part(store, part, path.read_bytes())
    data = _plan_json(counts, settings, mark)
    if not store.create("plan.json", data) and store.get("plan.json") != data:
        raise UserError(f"{store.url}/plan.json was made by another run just now, from other input: use another OUT")
    return _parse(data)


def load_plan(store: Store) -> Plan | None:
    """The plan of a run directory; None when it has none yet. UserError for a format of another version."""
    try:
        data = store.get("plan.json")
    except FileNotFoundError:
        return None
    return _parse(data)


def read_shard(store: Store, index: int) -> pa.Table:
    """The planned rows of one shard, as tables.PLAN: the part's footer and one row group are read, no more."""
    part, row_group = divmod(index, SHARDS_PER_PART)
    where = f"{store.url}/{_part_key(part)}"

    def read() -> pa.Table:
        # pre_buffer asks for the row group's columns in one go: a cache between it and the storage only adds bytes.
        with store.fs.open(store.path(_part_key(part)), "rb", cache_type="none") as file:
            part_file = open_parquet(file, where, pre_buffer=True)
            check_plain(part_file.schema_arrow, where)
            return part_file.read_row_group(row_group).cast(PLAN)

    try:
        return patiently(where, read)
    except (MachineFault, FileNotFoundError):
        raise
    except Exception:
        # Pages have checksums, the footer has none, and a bit of it may mean anything: what was damaged on its way is
        # whole the second time, and what is still wrong then is raised.
        return patiently(where, read)


def _part_key(part: int) -> str:
    return f"plan/part-{part:05}.parquet"


def _spool(path: Path, shards: Iterable[pa.Table], counts: Counts, mark: str) -> Path:
    # Of 1000 row groups the statistics would be most of the footer, which is read with every shard.
    schema = PLAN.with_metadata({FINGERPRINT: mark})
    how = {"compression": "zstd", "version": "2.6", "write_statistics": False, "write_page_checksum": True}
    with pq.ParquetWriter(path, schema, **how) as writer:
        for shard in shards:
            counts.add(shard)
            writer.write_table(shard.replace_schema_metadata(schema.metadata), row_group_size=max(1, shard.num_rows))
    return path


def _put_part(store: Store, part: int, data: bytes) -> None:
    if not store.create(_part_key(part), data) and store.get(_part_key(part)) != data:
        raise UserError(
            f"{store.url}/{_part_key(part)} was left by a planning that did not finish, of a corpus or settings that"
            " were other than now: use another OUT"
        )


def _plan_json(counts: Counts, settings: Mapping[str, Any], mark: str) -> bytes:
    shards = len(counts.utterances)
    fields = {
        "format": FORMAT,
        "settings": settings,
        "fingerprint": mark,
        "utterances": sum(counts.utterances),
        "hours": counts.hours,
        "unknown_durations": counts.unknown,
        "shards": shards,
        "shards_per_part": SHARDS_PER_PART,
        "parts": {
            _part_key(first // SHARDS_PER_PART): [first, min(first + SHARDS_PER_PART, shards) - 1]
            for first in range(0, shards, SHARDS_PER_PART)
        },
        "shard_utterances": counts.utterances,
        "shard_seconds": [one / 1000 for one in counts.milliseconds],
    }
    lines = [f'"{key}": {json.dumps(value, sort_keys=True, ensure_ascii=False)}' for key, value in fields.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _parse(data: bytes) -> Plan:
    try:
        fields = json.loads(data)
    except ValueError as fault:
        raise UserError(f"plan.json is damaged ({fault}): restore it, or use another OUT") from None
    if not isinstance(fields, dict) or "format" not in fields:
        raise UserError("plan.json was not written by spire-ray: use another OUT")
    if fields["format"] != FORMAT:
        raise UserError(f"plan.json has format {fields['format']}, this version reads {FORMAT}: use another OUT")
    return Plan(
        shards=fields["shards"],
        utterances=fields["utterances"],
        hours=fields["hours"],
        unknown_durations=fields["unknown_durations"],
        settings=fields["settings"],
        fingerprint=fields["fingerprint"],
        shard_utterances=tuple(fields["shard_utterances"]),
        shard_seconds=tuple(fields["shard_seconds"]),
    )
