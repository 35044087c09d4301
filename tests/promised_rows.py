"""What a row of each table promises by itself, for checker.py: columns, reasons, what goes with an error."""

import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

Row = dict[str, Any]

REASONS = (
    *("bad_manifest_row", "missing", "unreadable", "empty", "too_short", "too_long", "too_large", "truncated"),
    *("not_finite", "silent", "decoder_crash", "decoder_timeout", "changed_since_plan", "no_units"),
    *("context_overflow", "engine_crash"),
)

LISTS = {
    "references": pa.list_(pa.struct([("language", pa.string()), ("text", pa.string())])),
    "flags": pa.list_(pa.string()),
    "units": pa.list_(pa.int16()),
    "run_lengths": pa.list_(pa.int16()),
}


def schema_of(columns: str) -> pa.Schema:
    """`name:type` each, the type left out for lists; `!` after a name that is never null."""
    pairs = [column.partition(":")[::2] for column in columns.split()]
    return pa.schema(
        [
            pa.field(name.rstrip("!"), pa.type_for_alias(kind) if kind else LISTS[name], nullable=name[-1] != "!")
            for name, kind in pairs
        ]
    )


TEXT = "text:string finish_reason:string avg_logprob:float prompt_tokens:int32 generated_tokens:int32 flags"
SCHEMAS = {
    "plan": schema_of(
        "utterance_id!:string audio_uri:string byte_offset:int64 byte_size:int64 row_index:int64 start_s:double"
        " end_s:double duration_s:double etag:string corpus:string recording_id:string speaker:string"
        " speech_ratio:float text:string source_language:string reference:string references shard:int32 error:string"
    ),
    "units": schema_of(
        "utterance_id!:string units run_lengths num_frames:int32 duration_s:double speech_ratio:float error:string"
    ),
    "transcripts": schema_of(f"utterance_id!:string {TEXT} error:string"),
    "translations": schema_of(f"utterance_id!:string target_language!:string method!:string {TEXT} error:string"),
}


def faults_of(table: str, row: Row) -> Iterator[str]:
    """What is wrong with one row of `table`, seen by itself."""
    error = row["error"]
    if error is not None:
        if error.partition(":")[0] not in REASONS:
            yield f"has the reason {error.partition(':')[0]!r}"
        if "\n" in error or len(error) > 300:
            yield f"has an error of {len(error)} characters, or of several lines"
    if table == "units":
        yield from _of_units(row)
    elif table != "plan":
        yield from _of_text(row)


def _of_units(row: Row) -> Iterator[str]:
    units, runs, frames = row["units"], row["run_lengths"], row["num_frames"]
    if row["error"] is not None:
        if any(value is not None for value in (units, runs, frames)):
            yield "has an error and units"
        return
    if units is None or runs is None or frames is None or row["duration_s"] is None:
        yield "has neither units nor an error"
        return
    if len(units) != len(runs) or sum(runs) != frames or (runs and min(runs) < 1) or (units and min(units) < 0):
        yield f"has {len(units)} units, {len(runs)} runs of {sum(runs)} frames in all, {frames} frames"
    if any(first == second for first, second in itertools.pairwise(units)):
        yield "has units that are not collapsed"


def _of_text(row: Row) -> Iterator[str]:
    if row["error"] is not None:
        if row["text"] is not None or row["finish_reason"] is not None:
            yield "has an error and a text"
        return
    if row["text"] is None or row["finish_reason"] not in ("stop", "length", "repetition"):
        yield f"has neither a whole answer nor an error (finish_reason {row['finish_reason']!r})"
    flags = row["flags"] or []
    for reason, flag in (("length", "truncated"), ("repetition", "repetition")):
        if row["finish_reason"] == reason and flag not in flags:
            yield f"ended by {reason} and is not flagged {flag}"
