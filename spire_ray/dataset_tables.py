"""The tables of a training set: what is measured and decided of each pair, examples, and what was dropped and why."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spire_ray import outputs
from spire_ray.dedupe import BAND_NAMES
from spire_ray.store import Store
from spire_ray.tables import ID

MEASURED, DECIDED, JOINED_MT, TEXT = "work/measured", "work/decided", "work/translations", "work/text"
WRITTEN = "work/written"  # marks a shard as done
TRAIN, DEV, DROPPED = "train", "dev", "dropped"

VALUES = pa.schema(
    [
        ("duration_s", pa.float64()),
        ("speech_ratio", pa.float32()),
        ("words", pa.int32()),
        ("characters_per_second", pa.float32()),
        ("length_ratio", pa.float32()),
        ("character_ratio", pa.float32()),
        ("script_share", pa.float32()),
        ("lid", pa.float32()),
        ("detected", pa.string()),  # the languages that were identified, where another is expected
        ("wer", pa.float32()),
        ("avg_logprob", pa.float32()),
        ("qe", pa.float32()),
        ("tokens", pa.int32()),
        ("flags", pa.list_(pa.string())),
    ]
)
_OF_PAIR = [ID, ("language", pa.string()), ("corpus", pa.string())]
MEASURED_SCHEMA = pa.schema(
    [
        *_OF_PAIR,
        *VALUES,
        ("reason", pa.string()),  # of filters.REASONS: why it is lost by itself
        ("detail", pa.string()),
        ("recording", pa.uint64()),
        ("speaker", pa.uint64()),
        ("utterance", pa.uint64()),
        ("draw", pa.uint64()),
        ("text_key", pa.uint64()),  # these are null where `reason` is not
        ("units_key", pa.uint64()),
        *((name, pa.uint64()) for name in BAND_NAMES),
    ]
)
DECIDED_SCHEMA = pa.schema([("reason", pa.string()), ("dev", pa.bool_())])
DROPPED_SCHEMA = pa.schema([*_OF_PAIR, ("reason", pa.string()), ("detail", pa.string()), *VALUES])
_EXAMPLE = [ID, ("language", pa.string()), ("task", pa.string()), ("corpus", pa.string())]
TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
# `tokens` is of the example here, and not of the longest of its pair.
PRETRAINING = pa.schema([*_EXAMPLE, ("text", pa.string()), *VALUES])
INSTRUCTIONS = pa.schema([*_EXAMPLE, ("conversations", pa.list_(TURN)), *VALUES])
MT_SCHEMA = pa.schema(
    [
        ID,
        ("language", pa.string()),
        ("text", pa.string()),
        ("avg_logprob", pa.float32()),
        ("flags", pa.list_(pa.string())),
    ]
)
WRITTEN_SCHEMA = pa.schema(
    [("split", pa.string()), ("task", pa.string()), ("examples", pa.int64()), ("tokens", pa.int64())]
)
TEXT_SCHEMA = pa.schema([ID, ("text", pa.string()), ("tokens", pa.int32())])


def parquet_bytes(rows: pa.Table | Sequence[Mapping[str, Any]], schema: pa.Schema, fingerprint: str) -> bytes:
    """One part in the order of its rows; equal rows give equal bytes."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    table = table.select(schema.names).cast(schema).replace_schema_metadata({"spire_ray.fingerprint": fingerprint})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", version="2.6", write_page_checksum=True)
    return sink.getvalue()


def put(store: Store, table: str, shard: int, rows: Any, schema: pa.Schema, fingerprint: str) -> None:
    """Commit one part, whole or not at all; one that is there stays, and has the same bytes."""
    store.create(outputs.part_key(table, shard), parquet_bytes(rows, schema, fingerprint))


def there(store: Store, table: str) -> set[int]:
    """The shards of which `table` has a part."""
    return set(outputs.committed(store, table))
