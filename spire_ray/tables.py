"""The Arrow schema of every table, the closed set of error reasons, and how a table becomes a Parquet part.

Every table has a row for everything planned; `error` is null or says why the values beside it are.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spire_ray.errors import one_line

REASONS = (
    "bad_manifest_row",
    "missing",
    "unreadable",
    "empty",
    "too_short",  # under 400 samples at 16 kHz: HuBERT's receptive field
    "too_long",
    "too_large",
    "truncated",
    "not_finite",
    "silent",
    "decoder_crash",
    "decoder_timeout",
    "changed_since_plan",
    "no_units",  # the utterance's units row has an error
    "context_overflow",
    "engine_crash",
)
MAX_ERROR_CHARS = 300

ID = pa.field("utterance_id", pa.string(), nullable=False)
REFERENCES = pa.list_(pa.struct([("language", pa.string()), ("text", pa.string())]))

PLAN = pa.schema(
    [
        ID,
        ("audio_uri", pa.string()),
        ("byte_offset", pa.int64()),  # where the audio lies inside audio_uri, for tar shards
        ("byte_size", pa.int64()),
        ("row_index", pa.int64()),  # which row of audio_uri, for Parquet with audio bytes
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("etag", pa.string()),
        ("corpus", pa.string()),
        ("recording_id", pa.string()),
        ("speaker", pa.string()),
        ("speech_ratio", pa.float32()),
        ("text", pa.string()),  # the source text of a text corpus
        ("source_language", pa.string()),
        ("reference", pa.string()),  # what was said, in source_language
        ("references", REFERENCES),  # reference translations
        ("shard", pa.int32()),
        ("error", pa.string()),  # bad_manifest_row, or why a recording could not be segmented
    ]
)
# Between reading and encoding: never stored.
WAVEFORMS = pa.schema(
    [
        ID,
        ("pcm", pa.large_binary()),  # int16, little endian, mono, 16 kHz; null beside an error
        ("duration_s", pa.float64()),
        ("speech_ratio", pa.float32()),
        ("error", pa.string()),
    ]
)
UNITS = pa.schema(
    [
        ID,
        ("units", pa.list_(pa.int16())),  # runs of equal units collapsed to one
        ("run_lengths", pa.list_(pa.int16())),  # frames (20 ms) per unit
        ("num_frames", pa.int32()),
        ("duration_s", pa.float64()),
        ("speech_ratio", pa.float32()),
        ("error", pa.string()),
    ]
)
# The fields of `parity.Parity`, here since what commits has no need of torch. Stored in no table.
PARITY = pa.struct(
    [
        ("utterances", pa.int64()),
        ("frames", pa.int64()),
        ("other_units", pa.int64()),
        ("squared_error", pa.float64()),
        ("squared_norm", pa.float64()),
    ]
)
_GENERATED: list[tuple[str, pa.DataType]] = [
    ("text", pa.string()),
    ("finish_reason", pa.string()),  # stop, length, repetition (a loop that the engine ended)
    ("avg_logprob", pa.float32()),  # natural log, mean over generated tokens
    ("prompt_tokens", pa.int32()),
    ("generated_tokens", pa.int32()),
    ("flags", pa.list_(pa.string())),  # of quality.FLAGS
    ("error", pa.string()),
]
TRANSCRIPTS = pa.schema([ID, *_GENERATED])
TRANSLATIONS = pa.schema(
    [
        ID,
        pa.field("target_language", pa.string(), nullable=False),  # ISO 639-1
        pa.field("method", pa.string(), nullable=False),  # direct, self-cascade, multi-turn, text
        *_GENERATED,
    ]
)
# Between units and generation: never stored. A speech row has units, a text row has text.
SOURCES = pa.schema(
    [
        ID,
        ("units", pa.list_(pa.int16())),
        ("duration_s", pa.float64()),
        ("speech_ratio", pa.float32()),
        ("text", pa.string()),
        ("source_language", pa.string()),
        ("error", pa.string()),  # of the units row or the plan row
    ]
)


def error(reason: str, detail: str = "") -> str:
    """`reason: detail` on one line of at most 300 characters. ValueError for a reason outside REASONS."""
    if reason not in REASONS:
        raise ValueError(f"{reason!r} is not one of the reasons of tables.REASONS")
    line = one_line(detail)
    return f"{reason}: {line}"[:MAX_ERROR_CHARS] if line else reason


def reason_of(message: str) -> str:
    """The reason of an `error` value."""
    return message.partition(":")[0]


def from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as dicts to a table of exactly `schema`; an absent key is null, an unknown key raises ValueError."""
    rows = list(rows)
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise ValueError(f"columns {sorted(unknown)} are not in the schema")
    return pa.Table.from_pylist(rows, schema=schema)


def to_parquet(table: pa.Table, schema: pa.Schema, metadata: Mapping[str, str]) -> bytes:
    """One Parquet part: exactly `schema`, sorted by id, no timestamps, so that equal tables give equal bytes.

    `metadata` (the stage's fingerprint) goes into the file's key-value metadata.
    """
    keys = [(name, "ascending") for name in ("utterance_id", "target_language") if name in schema.names]
    table = table.select(schema.names).cast(schema).sort_by(keys).replace_schema_metadata(dict(metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", version="2.6", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def nest(shard: int, attempt: int, **tables: pa.Table) -> pa.Table:
    """A shard as ONE row: `shard`, `attempt`, and a large_list of structs for each table, without copying values."""
    columns: dict[str, pa.Array] = {
        "shard": pa.array([shard], pa.int32()),
        "attempt": pa.array([attempt], pa.int32()),
    }
    for name, table in tables.items():
        structs = table.combine_chunks().to_struct_array()
        structs = structs.combine_chunks() if isinstance(structs, pa.ChunkedArray) else structs
        columns[name] = pa.LargeListArray.from_arrays(pa.array([0, len(structs)], pa.int64()), structs)
    return pa.table(columns)


def unnest(row: pa.Table, name: str, schema: pa.Schema) -> pa.Table:
    """The table that `nest` put under `name`, without copying. ValueError unless `row` is one row of that schema."""
    if row.num_rows != 1:
        raise ValueError(f"a stage takes one shard at a time, got {row.num_rows} rows")
    structs = row.column(name).combine_chunks().flatten()
    table = pa.Table.from_batches([pa.RecordBatch.from_struct_array(structs)])
    if table.schema.names != schema.names:
        raise ValueError(f"{name} has columns {table.schema.names}, expected {schema.names}")
    return table.cast(schema)
