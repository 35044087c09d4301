"""What a run directory holds: the names of parts, which shards are done, and the rows that count.

A part is `TABLE/part-00017.parquet`; `spire-ray retry` adds `part-00017.r1.parquet` with new attempts at error rows.
For any item at most one row has a null error: that row counts, else the latest attempt's.
"""

import io
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from spire_ray.parquet import check_plain, open_parquet
from spire_ray.store import Store
from spire_ray.tables import TRANSCRIPTS, TRANSLATIONS, UNITS, to_parquet

SCHEMAS = {"units": UNITS, "transcripts": TRANSCRIPTS, "translations": TRANSLATIONS}
SUCCESS = "_SUCCESS"
_PART = re.compile(r"part-(\d{5,})(?:\.r(\d+))?\.parquet")


def part_key(table: str, shard: int, attempt: int = 0) -> str:
    """Where attempt `attempt` (0: the first) at `shard` of `table` is committed."""
    retry = f".r{attempt}" if attempt else ""
    return f"{table}/part-{shard:05d}{retry}.parquet"


def committed(store: Store, table: str) -> dict[int, int]:
    """Every shard with a first attempt in `table`, and its highest attempt. One listing, no object is opened."""
    attempts: dict[int, set[int]] = {}
    for name in store.find(table):
        if match := _PART.fullmatch(name):
            attempts.setdefault(int(match[1]), set()).add(int(match[2] or 0))
    return {shard: max(found) for shard, found in attempts.items() if 0 in found}


def commit(store: Store, table: str, rows: pa.Table, shard: int, attempt: int, fingerprint: str) -> bool:
    """Put one part, whole or not at all. False when an earlier attempt's part is already there and was kept."""
    data = to_parquet(rows, SCHEMAS[table], {"spire_ray.fingerprint": fingerprint})
    return store.create(part_key(table, shard, attempt), data)


def read_part(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One part as a table. FileNotFoundError when it is not committed, UserError when it is no part."""
    file = open_parquet(io.BytesIO(store.get(key)), f"{store.url}/{key}")
    check_plain(file.schema_arrow, f"{store.url}/{key}")
    return file.read(columns=columns)


def rows_that_count(
    store: Store, table: str, shard: int, highest_attempt: int, columns: Sequence[str] | None = None
) -> pa.Table:
    """One row per item of `shard`, sorted as the parts are: the row without an error, else the latest attempt's."""
    first = read_part(store, part_key(table, shard), columns)
    if highest_attempt == 0:
        return first
    attempts = [first]
    for attempt in range(1, highest_attempt + 1):
        try:
            attempts.append(read_part(store, part_key(table, shard, attempt), columns))
        except FileNotFoundError:  # a retry that was killed before this shard leaves a gap
            continue
    return latest(pa.concat_tables(attempts))


def latest(rows: pa.Table) -> pa.Table:
    """Of several attempts in the order they were made, the row of each item that counts; order of first appearance."""
    keys = item_keys(rows)
    is_fine = rows.column("error").is_null().to_pylist()
    chosen: dict[tuple[str, ...], int] = {}
    for index, (key, fine) in enumerate(zip(keys, is_fine, strict=True)):
        if fine or key not in chosen or not is_fine[chosen[key]]:
            chosen[key] = index
    return rows.take(pa.array(list(chosen.values()), pa.int64()))


def item_columns(table: str) -> tuple[str, ...]:
    """The columns that identify an item of `table`."""
    return ("utterance_id", "target_language") if table == "translations" else ("utterance_id",)


def item_keys(rows: pa.Table) -> list[tuple[str, ...]]:
    """What identifies each row's item: its utterance, and in translations also the target language."""
    names = [name for name in item_columns("translations") if name in rows.schema.names]
    return list(zip(*(rows.column(name).to_pylist() for name in names), strict=True))


def mark_complete(store: Store, table: str, shards: int, fingerprint: str) -> None:
    """Write `TABLE/_SUCCESS` if every one of `shards` is committed and nobody has written it yet."""
    names = store.find(table)
    if SUCCESS not in names and len(committed(store, table)) == shards:
        store.create(f"{table}/{SUCCESS}", f'{{"shards": {shards}, "fingerprint": "{fingerprint}"}}\n'.encode())


def error_counts(rows: pa.Table) -> Mapping[str, int]:
    """How many rows have each reason."""
    messages = rows.column("error").drop_null()
    reasons = pc.replace_substring_regex(messages, pattern=r"(?s):.*", replacement="")
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(reasons).to_pylist()}
