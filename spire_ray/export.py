"""`spire-ray export`: a run as one joined Parquet file, or as what a training toolkit reads."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spire_ray.errors import UserError
from spire_ray.examples import GENERATED, Examples
from spire_ray.export_audio import write_huggingface, write_webdataset
from spire_ray.export_manifest import write_lhotse, write_nemo
from spire_ray.export_target import Put, new_file, new_folder
from spire_ray.joined import Joined
from spire_ray.result_options import PARQUET
from spire_ray.store import Store

_FILES: dict[str, tuple[tuple[str, ...], Callable[[Examples, Path], None]]] = {
    "nemo": ((".json", ".jsonl"), write_nemo),
    "lhotse": ((".jsonl.gz",), write_lhotse),
}
_FOLDERS: dict[str, Callable[[Examples, Path, Put], None]] = {
    "webdataset": write_webdataset,
    "huggingface": write_huggingface,
}

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


def export(text_run: Store, target: str, form: str, text: str | None, languages: Sequence[str] | None) -> str:
    """Write TARGET, a path or fsspec URL that does not exist (UserError). Returns a line: how many, and what not.

    `form`: of result_options.EXPORTS; `text`: of TEXTS there, the text to learn (None: generated); `languages`: those
    of the translations (None: those that the run made).
    On a local disk TARGET appears whole or not at all.
    """
    joined = Joined(text_run)
    assert joined.plan  # or a UserError, before anything is written
    if form == PARQUET:
        if text or languages is not None:
            raise UserError(f"--format {PARQUET} has every text: leave out --text and --languages")
        with new_file(target, text_run.storage_options) as file:
            return f"{_write_joined(joined, file):,} rows in {target}"
    examples = Examples.of(joined, text or GENERATED, languages)
    if form in _FILES:
        suffixes, write_file = _FILES[form]
        if not target.endswith(suffixes):
            raise UserError(f"{target}: readers of this format know it by its end, {' or '.join(suffixes)}")
        with new_file(target, text_run.storage_options) as file:
            write_file(examples, file)
            examples.check_any()
    else:
        with new_folder(target, text_run.storage_options) as (work, put):
            _FOLDERS[form](examples, work, put)
    return f"{examples.taken:,} utterances in {target}{examples.told_left_out()}"


def _write_joined(joined: Joined, file: Path) -> int:
    """A row group for each shard; what is not made yet is null. Returns the rows."""
    rows = 0
    with pq.ParquetWriter(file, EXPORT, compression="zstd") as writer:
        for shard in range(joined.plan.shards):
            table = pa.Table.from_pylist(list(map(_of_export, joined.shard(shard))), schema=EXPORT)
            writer.write_table(table)
            rows += table.num_rows
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
