"""`spire-ray export OUT FILE`: one Parquet file with everything of an utterance in one row."""

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from spire_ray import outputs, records
from spire_ray.errors import UserError
from spire_ray.locations import locate
from spire_ray.plan import read_shard
from spire_ray.store import Store

TRANSLATION = pa.struct([("language", pa.string()), ("text", pa.string()), ("error", pa.string())])
EXPORT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("audio", pa.string()),  # where it is
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("source_text", pa.string()),  # of a text corpus
        ("reference", pa.string()),
        ("units", pa.list_(pa.int16())),
        ("run_lengths", pa.list_(pa.int16())),
        ("transcript", pa.string()),
        ("translations", pa.list_(TRANSLATION)),
        ("error", pa.string()),  # of the units, else of the transcript
    ]
)


def export(text_run: Store, file: str) -> int:
    """Write FILE (a path or fsspec URL; UserError when it exists), a row group for each shard. Returns the rows.

    Shards without units yet have nulls. FILE appears whole or not at all.
    """
    units_run = records.units_run(text_run)
    plan = records.plan_of(units_run)
    fs, path = locate(file, text_run.storage_options)
    if fs.exists(path):
        raise UserError(f"{file} exists: name a new file")
    local = isinstance(fs, LocalFileSystem)
    if local and not Path(path).parent.is_dir():
        raise UserError(f"there is no folder {Path(path).parent}")
    if local and not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise UserError(f"{Path(path).parent} cannot be written")
    attempts = {
        "units": outputs.committed(units_run, "units"),
        "transcripts": outputs.committed(text_run, "transcripts"),
        "translations": outputs.committed(text_run, "translations"),
    }
    rows = 0
    with tempfile.TemporaryDirectory(dir=Path(path).parent if local else None, prefix=".tmp-") as folder:
        whole = Path(folder) / "export.parquet"
        with pq.ParquetWriter(whole, EXPORT, compression="zstd") as writer:
            for shard in range(plan.shards):
                joined = _join(units_run, text_run, attempts, shard)
                writer.write_table(joined)
                rows += joined.num_rows
        if local:
            whole.rename(path)
        else:
            fs.put_file(str(whole), path)
    return rows


def _join(units_run: Store, text_run: Store, attempts: dict[str, dict[int, int]], shard: int) -> pa.Table:
    def rows(store: Store, table: str) -> list[dict[str, object]]:
        done = attempts[table]
        return outputs.rows_that_count(store, table, shard, done[shard]).to_pylist() if shard in done else []

    units = {row["utterance_id"]: row for row in rows(units_run, "units")}
    transcripts = {row["utterance_id"]: row for row in rows(text_run, "transcripts")}
    translations: dict[object, list[dict[str, object]]] = {}
    for row in rows(text_run, "translations"):
        translated = {"language": row["target_language"], "text": row["text"], "error": row["error"]}
        translations.setdefault(row["utterance_id"], []).append(translated)
    joined = []
    for planned in read_shard(units_run, shard).to_pylist():
        key = planned["utterance_id"]
        made, heard = units.get(key, {}), transcripts.get(key, {})
        joined.append(
            {
                "id": key,
                "audio": planned["audio_uri"],
                "start_s": planned["start_s"],
                "end_s": planned["end_s"],
                "duration_s": made.get("duration_s") or planned["duration_s"],
                "source_text": planned["text"],
                "reference": planned["reference"],
                "units": made.get("units"),
                "run_lengths": made.get("run_lengths"),
                "transcript": heard.get("text"),
                "translations": translations.get(key, []),
                "error": planned["error"] or made.get("error") or heard.get("error"),
            }
        )
    return pa.Table.from_pylist(joined, schema=EXPORT)
