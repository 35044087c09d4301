"""One record of a manifest to one planned row: its id, where its audio lies, its offsets, what is known of it."""

import functools
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from spire_ray import manifest, tables
from spire_ray.errors import RowFault, UserError
from spire_ray.locations import URL, uri_of

PLANNED = pa.schema([field for field in tables.PLAN if field.name != "shard"])
MAX_ID_BYTES = 512

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BATCH_ROWS = 65_536


def planned(
    values: Mapping[str, Any], base: str, fs: AbstractFileSystem, embedded: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One record as a row of PLANNED. RowFault `bad_manifest_row` says what is wrong with it.

    Relative audio paths resolve against the folder `base` of `fs`; `embedded` is the place of audio bytes instead.
    """
    found = manifest.parts(tuple(values))
    columns = found.columns
    row: dict[str, Any] = dict(embedded) if embedded else _audio_place(values, columns.get("audio"), base, fs)
    start, end, duration = _span(values, columns)
    if start is not None or end is not None:
        tail = "" if end is None else str(round(end * 1000))
        row["utterance_id"] += f"#{round((start or 0.0) * 1000)}-{tail}"
    row["utterance_id"] = checked_id(manifest.text(values, columns.get("id")) or row["utterance_id"])
    row |= {"start_s": start, "end_s": end, "duration_s": duration}
    row["reference"] = manifest.text(values, columns.get("reference"))
    for name in ("speaker", "recording_id", "corpus"):
        row[name] = manifest.text(values, columns.get(name))
    if language := manifest.text(values, columns.get("language")):
        row["source_language"] = language
    row["references"] = manifest.translations(values, found) or None
    return row


def _audio_place(values: Mapping[str, Any], column: str | None, base: str, fs: AbstractFileSystem) -> dict[str, Any]:
    value = values.get(column) if column else None
    if isinstance(value, Mapping):  # Hugging Face's {path, bytes} without the bytes
        value = value.get("path")
    path = manifest.text({str(column): value}, str(column))
    if path is None:
        raise RowFault("bad_manifest_row", f"no value in {column}" if column else "no audio column")
    if "\0" in path:
        raise RowFault("bad_manifest_row", f"{column} holds a NUL")
    if match := URL.match(path):
        if not _spoken(match[0][:-3]):
            raise RowFault("bad_manifest_row", f"{column}: nothing here reads {match[0]}")
        root = f"{uri_of(fs, base)}/"
        return {"audio_uri": path, "utterance_id": path.removeprefix(root)}
    if path.startswith("/"):
        return {"audio_uri": path, "utterance_id": path.removeprefix(f"{base}/")}
    # Normalised here: object storage takes `./` and `..` for names.
    place = posixpath.normpath(f"{base}/{path}")
    return {"audio_uri": uri_of(fs, place), "utterance_id": posixpath.normpath(path)}


@functools.cache
def _spoken(scheme: str) -> bool:
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        return False
    except ImportError as fault:
        raise UserError(f"{scheme}:// in the manifest: {fault}") from None
    return True


def _span(values: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[float | None, float | None, float | None]:
    """Start and end in the file, and the duration of the piece, in seconds."""
    start = manifest.number(values, columns.get("start"))
    end = manifest.number(values, columns.get("end"))
    duration = manifest.number(values, columns.get("duration"))
    if start is None and end is None:
        start = manifest.number(values, columns.get("offset"))
    if end is not None:
        duration = end - (start or 0.0)
    elif start is not None and duration is not None:
        end = start + duration
    if end is not None and (start or 0.0) >= end:
        raise RowFault("bad_manifest_row", f"the piece starts at {start or 0.0:g} s and ends at {end:g} s")
    return start, end, duration


def checked_id(value: str) -> str:
    """An utterance id in NFC. RowFault when it is over 512 bytes of UTF-8, is no UTF-8, or holds control characters."""
    value = unicodedata.normalize("NFC", value)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise RowFault("bad_manifest_row", f"the id is not valid UTF-8: {ascii(value)[:80]}") from None
    if size > MAX_ID_BYTES:
        raise RowFault("bad_manifest_row", f"the id has {size} bytes, at most {MAX_ID_BYTES}: {ascii(value)[:40]}...")
    if _CONTROL.search(value):
        raise RowFault("bad_manifest_row", f"the id holds a control character: {ascii(value)[:80]}")
    return value


def bad_row(number: int, where: str, detail: str, language: str) -> dict[str, Any]:
    """The row for what cannot be planned. `number` counts the rows of the corpus from 0."""
    message = tables.error("bad_manifest_row", f"{where} (row {number} counted from 0): {detail}")
    return {"utterance_id": f"row-{number}", "source_language": language, "error": message}


def columnar(rows: Iterable[Mapping[str, Any]], corpus: str) -> pa.Table:
    """Rows of PLANNED as a table, built in batches. UserError when there is none."""
    batches = []
    columns: dict[str, list[Any]] = {name: [] for name in PLANNED.names}
    filled = [(name, values.append) for name, values in columns.items()]
    count = 0
    for count, row in enumerate(rows, 1):
        for name, append in filled:
            append(row.get(name))
        if count % _BATCH_ROWS == 0:
            batches.append(_batch(columns))
    if not count:
        raise UserError(f"corpus {corpus} is empty: it has no rows")
    return pa.Table.from_batches([*batches, _batch(columns)], PLANNED)


def _batch(columns: Mapping[str, list[Any]]) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_arrays(
        [pa.array(values, PLANNED.field(name).type) for name, values in columns.items()], schema=PLANNED
    )
    for values in columns.values():
        values.clear()
    return batch
