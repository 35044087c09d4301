"""Planned rows to shards, frozen as plan/part-NNNNN.parquet and plan.json; and every stage's settings, frozen alike.

Shard i is row group i % 1000 of part i // 1000: found by arithmetic. Everything is put create-only and plan.json last,
and equal input gives equal bytes, so planning that was killed is simply done again.
"""

import hashlib
import itertools
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spire_ray.errors import UserError
from spire_ray.locations import patiently
from spire_ray.store import Store
from spire_ray.tables import PLAN

FORMAT = 1
SHARDS_PER_PART = 1000
MAX_UTTERANCES = 4096  # in a shard, however short they are
TEXT_ROWS = 1000  # in a shard of a text corpus
BYTES_PER_SECOND = 16_000  # a guess between FLAC (about 18,000 at 16 kHz) and MP3, where the duration is not known
GUESSED_SECONDS = 10.0  # where not even the size is known
FINGERPRINT = "spire_ray.fingerprint"  # key in the Parquet metadata
_SHOWN_IDS = 3


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
        asked = _plain(settings)
        _refuse(store, "plan.json", {key: self.settings[key] for key in asked if key in self.settings}, asked)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the settings as canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def freeze(store: Store, key: str, settings: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> str:
    """Put `settings` at `key` (units.json, text.json) unless they lie there; their fingerprint.

    `recorded` is written beside them and not compared: where the weights lay. UserError naming each field, when other
    settings lie there.
    """
    asked = _plain(settings)
    mark = fingerprint(asked)
    fields = {"settings": asked, "recorded": dict(recorded or {}), "fingerprint": mark}
    data = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if not store.create(key, data.encode()):
        _refuse(store, key, json.loads(store.get(key))["settings"], asked)
    return mark


def cut(rows: pa.Table, shard_minutes: float) -> pa.Table:
    """Planned rows, sorted by the UTF-8 bytes of their ids and cut into shards of up to `shard_minutes` of audio.

    Returns a table of tables.PLAN. An utterance longer than that is a shard of its own. UserError for duplicate ids.
    """
    if not shard_minutes > 0:
        raise UserError(f"a shard of {shard_minutes:g} minutes: give more than 0")
    rows = _sorted(rows)
    # Whole milliseconds: sums of floats would cut differently with the order of the additions.
    ends = np.cumsum(np.rint(_seconds(rows) * 1000).astype(np.int64))
    limit = round(shard_minutes * 60_000)
    starts = []
    start = 0
    while start < len(ends):
        starts.append(start)
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + limit, side="right"))
        start = min(max(fitting, start + 1), start + MAX_UTTERANCES)
    return _with_shards(rows, np.array(starts, np.int64))


def cut_text(rows: pa.Table, shard_rows: int = TEXT_ROWS) -> pa.Table:
    """Rows of a text corpus, sorted as in `cut` and cut into shards of `shard_rows`. UserError for duplicate ids."""
    return _with_shards(_sorted(rows), np.arange(0, rows.num_rows, shard_rows))


def write_plan(store: Store, rows: pa.Table, settings: Mapping[str, Any]) -> Plan:
    """Freeze the rows that `cut` gave. A plan already there stays as it is.

    UserError when that one, or the parts that a killed planning left, were made from something else.
    """
    settings = _plain(settings)
    there = load_plan(store)
    if there is not None:
        _refuse(store, "plan.json", there.settings, settings)
        return there
    mark = fingerprint(settings)
    shard_of_row = rows.column("shard").to_numpy()
    shards = int(shard_of_row[-1]) + 1 if len(shard_of_row) else 0
    bounds = np.searchsorted(shard_of_row, np.arange(shards + 1))
    for part in range(-(-shards // SHARDS_PER_PART)):
        _put_part(store, part, rows, bounds[part * SHARDS_PER_PART : (part + 1) * SHARDS_PER_PART + 1], mark)
    data = _plan_json(rows, bounds, settings, mark)
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

    def read() -> pa.Table:
        # pre_buffer asks for the row group's columns in one go: a cache between it and the storage only adds bytes.
        with store.fs.open(store.path(_part_key(part)), "rb", cache_type="none") as file:
            return pq.ParquetFile(file, pre_buffer=True).read_row_group(row_group).cast(PLAN)

    return patiently(f"{store.url}/{_part_key(part)}", read)


def _part_key(part: int) -> str:
    return f"plan/part-{part:05}.parquet"


def _sorted(rows: pa.Table) -> pa.Table:
    # Arrow compares strings as bytes, which for UTF-8 is also the order of code points.
    rows = rows.take(pc.sort_indices(rows.column("utterance_id")))
    ids = rows.column("utterance_id").combine_chunks() if rows.num_rows else pa.array([], pa.string())
    again = pc.equal(ids[1:], ids[:-1]) if len(ids) > 1 else pa.array([], pa.bool_())
    if count := pc.sum(again).as_py() or 0:
        twice = pc.unique(ids[1:].filter(again))
        shown = ", ".join(twice[:_SHOWN_IDS].to_pylist()) + (", ..." if len(twice) > _SHOWN_IDS else "")
        raise UserError(
            f"duplicate ids: {count + len(twice)} rows share {len(twice)} id{'s' if len(twice) > 1 else ''} ({shown});"
            " give each row its own in a column `id`"
        )
    return rows


def _seconds(rows: pa.Table) -> NDArray[np.float64]:
    """Seconds of audio per row, known or guessed; 0 for a row without audio."""
    known = _known_seconds(rows)
    whole_file = pc.and_(pc.is_null(rows.column("start_s")), pc.is_null(rows.column("end_s")))
    by_size = pc.divide(pc.cast(rows.column("byte_size"), pa.float64()), float(BYTES_PER_SECOND))
    guessed = pc.coalesce(known, pc.if_else(whole_file, by_size, None), pa.scalar(GUESSED_SECONDS))
    seconds = pc.if_else(pc.is_null(rows.column("audio_uri")), 0.0, guessed)
    return np.asarray(seconds.to_numpy(), np.float64)


def _known_seconds(rows: pa.Table) -> pa.ChunkedArray:
    span = pc.subtract(rows.column("end_s"), pc.coalesce(rows.column("start_s"), pa.scalar(0.0)))
    return pc.coalesce(rows.column("duration_s"), span)


def _with_shards(rows: pa.Table, starts: NDArray[np.int64]) -> pa.Table:
    sizes = np.diff(np.append(starts, rows.num_rows))
    shards = pa.array(np.repeat(np.arange(len(starts), dtype=np.int32), sizes))
    table: pa.Table = rows.append_column("shard", shards).select(PLAN.names).cast(PLAN)
    return table.replace_schema_metadata(rows.schema.metadata)


def _put_part(store: Store, part: int, rows: pa.Table, bounds: NDArray[np.int64], mark: str) -> None:
    sink = pa.BufferOutputStream()
    # Of 1000 row groups the statistics would be most of the footer, which is read with every shard.
    schema = PLAN.with_metadata({FINGERPRINT: mark})
    with pq.ParquetWriter(sink, schema, compression="zstd", version="2.6", write_statistics=False) as writer:
        for start, end in itertools.pairwise(bounds.tolist()):
            shard = rows.slice(start, end - start).replace_schema_metadata(schema.metadata)
            writer.write_table(shard, row_group_size=max(1, shard.num_rows))
    data = sink.getvalue().to_pybytes()
    if not store.create(_part_key(part), data) and store.get(_part_key(part)) != data:
        raise UserError(
            f"{store.url}/{_part_key(part)} was left by a planning that did not finish, of a corpus or settings that"
            " were other than now: use another OUT"
        )


def _plan_json(rows: pa.Table, bounds: NDArray[np.int64], settings: Mapping[str, Any], mark: str) -> bytes:
    milliseconds = np.concatenate([[0], np.cumsum(np.rint(_seconds(rows) * 1000).astype(np.int64))])
    known = _known_seconds(rows)
    shards = len(bounds) - 1
    without_audio = pc.is_null(rows.column("audio_uri"))
    fields = {
        "format": FORMAT,
        "settings": settings,
        "fingerprint": mark,
        "utterances": rows.num_rows,
        "hours": round((pc.sum(known).as_py() or 0.0) / 3600, 6),
        "unknown_durations": pc.sum(pc.and_not(pc.is_null(known), without_audio)).as_py() or 0,
        "shards": shards,
        "shards_per_part": SHARDS_PER_PART,
        "parts": {
            _part_key(first // SHARDS_PER_PART): [first, min(first + SHARDS_PER_PART, shards) - 1]
            for first in range(0, shards, SHARDS_PER_PART)
        },
        "shard_utterances": np.diff(bounds).tolist(),
        "shard_seconds": (np.diff(milliseconds[bounds]) / 1000).tolist(),
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


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as JSON gives them back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings), allow_nan=False))
    return plain


def _refuse(store: Store, key: str, frozen: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    old, new = _dotted(frozen), _dotted(asked)
    other = [name for name in sorted(old.keys() | new.keys()) if old.get(name, "no value") != new.get(name, "no value")]
    if other:
        was = " and ".join(f"{name} = {old.get(name, 'no value')}" for name in other)
        asks = " and ".join(f"{name} = {new.get(name, 'no value')}" for name in other)
        raise UserError(f"{store.url}/{key} was made with {was}, this run asks for {asks}: use another OUT")


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Each leaf by its dotted name, written as JSON."""
    leaves: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            leaves |= _dotted(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return leaves
