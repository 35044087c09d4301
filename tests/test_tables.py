"""Parts are the same bytes for the same rows; a shard travels as one row without loss."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spire_ray import tables
from spire_ray.outputs import latest

ROWS = [
    {"utterance_id": "b", "units": [4, 1, 4], "run_lengths": [1, 2, 1], "num_frames": 4, "duration_s": 0.1},
    {"utterance_id": "a", "error": "silent"},
]


def test_a_part_is_sorted_typed_and_the_same_bytes_in_any_order() -> None:
    one = tables.to_parquet(tables.from_rows(ROWS, tables.UNITS), tables.UNITS, {"fingerprint": "f"})
    two = tables.to_parquet(tables.from_rows(ROWS[::-1], tables.UNITS), tables.UNITS, {"fingerprint": "f"})
    assert one == two
    read = pq.read_table(io.BytesIO(one))
    assert read.column("utterance_id").to_pylist() == ["a", "b"]
    assert read.schema.field("units").type.value_type == pa.int16()
    assert read.schema.metadata[b"fingerprint"] == b"f"


def test_an_all_null_column_keeps_its_type() -> None:
    data = tables.to_parquet(tables.from_rows(ROWS[:1], tables.UNITS), tables.UNITS, {})
    assert pq.read_table(io.BytesIO(data)).schema.field("error").type == pa.string()


@pytest.mark.parametrize("rows", [ROWS, []])
def test_a_shard_is_one_row_and_comes_back_whole(rows: list[dict[str, object]]) -> None:
    table = tables.from_rows(rows, tables.UNITS)
    row = tables.nest(17, 2, utterances=table)
    assert (row.num_rows, row.column("shard")[0].as_py(), row.column("attempt")[0].as_py()) == (1, 17, 2)
    assert tables.unnest(row, "utterances", tables.UNITS).equals(table)


def test_two_shards_at_once_are_refused() -> None:
    row = tables.nest(0, 0, utterances=tables.from_rows(ROWS, tables.UNITS))
    with pytest.raises(ValueError, match="one shard at a time"):
        tables.unnest(pa.concat_tables([row, row]), "utterances", tables.UNITS)


def test_an_error_is_one_line_of_a_known_reason() -> None:
    message = tables.error("unreadable", "first\n  second " + "x" * 1000)
    assert message.startswith("unreadable: first second x")
    assert len(message) == tables.MAX_ERROR_CHARS
    assert tables.reason_of(message) == "unreadable"
    with pytest.raises(ValueError, match="mouldy"):
        tables.error("mouldy")


def test_of_several_attempts_the_one_without_an_error_counts_else_the_latest() -> None:
    attempts = tables.from_rows(
        [
            {"utterance_id": "a", "num_frames": 1},
            {"utterance_id": "b", "error": "missing"},
            {"utterance_id": "c", "error": "missing"},
            {"utterance_id": "b", "num_frames": 2},
            {"utterance_id": "c", "error": "unreadable"},
        ],
        tables.UNITS,
    )
    counted = latest(attempts).select(["utterance_id", "num_frames", "error"]).to_pylist()
    assert counted == [
        {"utterance_id": "a", "num_frames": 1, "error": None},
        {"utterance_id": "b", "num_frames": 2, "error": None},
        {"utterance_id": "c", "num_frames": None, "error": "unreadable"},
    ]
