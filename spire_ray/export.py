"""`spire-ray export OUT FILE`: one Parquet file with everything of an utterance in one row."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from spire_ray.errors import UserError
from spire_ray.joined import Joined
from spire_ray.locations import locate
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
    joined = Joined(text_run)
    assert joined.plan  # or a UserError, before anything is written
    fs, path = locate(file, text_run.storage_options)
    if fs.exists(path):
        raise UserError(f"{file} exists: name a new file")
    local = isinstance(fs, LocalFileSystem)
    if local and not Path(path).parent.is_dir():
        raise UserError(f"there is no folder {Path(path).parent}")
    if local and not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise UserError(f"{Path(path).parent} cannot be written")
    rows = 0
    with tempfile.TemporaryDirectory(dir=Path(path).parent if local else None, prefix=".tmp-") as folder:
        whole = Path(folder) / "export.parquet"
        with pq.ParquetWriter(whole, EXPORT, compression="zstd") as writer:
            for shard in range(joined.plan.shards):
                table = pa.Table.from_pylist(list(map(_of_export, joined.shard(shard))), schema=EXPORT)
                writer.write_table(table)
                rows += table.num_rows
        if local:
            whole.rename(path)
        else:
            fs.put_file(str(whole), path)
    return rows


def _of_export(row: dict[str, Any]) -> dict[str, Any]:
    heard = row["transcript"] or {}
    return {
        "id": row["utterance_id"],
        "audio": row["audio_uri"],
        "start_s": row["start_s"],
        "end_s": row["end_s"],
        "duration_s": row["duration_s"],
        "source_text": row["text"],
        "reference": row["reference"],
        "units": row["units"],
        "run_lengths": row["run_lengths"],
        "transcript": heard.get("text"),
        "translations": [
            {"language": made["target_language"], "text": made["text"], "error": made["error"]}
            for made in row["translations"]
        ],
        "error": row["error"] or heard.get("error"),
    }
