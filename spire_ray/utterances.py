"""One record of a manifest to one planned row: its id, where its audio lies, its offsets, what is known of it."""

import functools
import itertools
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from spire_ray import manifest, tables
from spire_ray.errors import RowFault, UserError
from spire_ray.locations import URL, refused_place, uri_of

PLANNED = pa.schema([field for field in tables.PLAN if field.name != "shard"])
MAX_ID_BYTES = 512

_TEXTS = frozenset({"reference", "speaker", "recording_id", "corpus"})  # columns that are taken as they are
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BATCH_ROWS = 8192


def planned_rows(
    records: Iterable[manifest.Record], base: str, fs: AbstractFileSystem, language: str, numbers: Iterator[int]
) -> Iterator[dict[str, Any]]:
    """Records as rows of PLANNED, each with the next of `numbers`; one that cannot be planned becomes a `bad_row`."""
    for record, number in zip(records, numbers, strict=False):
        try:
            if record.problem:
                raise RowFault("bad_manifest_row", record.problem)
            yield {"source_language": language} | planned(record.values, base, fs, record.place)
        except RowFault as fault:
            yield bad_row(number, record.where, fault.detail, language)


def planned(
    values: Mapping[str, Any], base: str, fs: AbstractFileSystem, place: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One record as a row of PLANNED. RowFault `bad_manifest_row` says what is wrong with it.

    Relative audio paths resolve against the folder `base` of `fs`; `place` says where the audio is instead.
    """
    found = manifest.parts(tuple(values))
    columns = found.columns
    row: dict[str, Any] = dict(place) if place else _audio_place(values, columns.get("audio"), base, fs)
    start, end, duration = _span(values, columns)
    if start is not None or end is not None:
        tail = "" if end is None else str(round(end * 1000))
        row["utterance_id"] += f"#{round((start or 0.0) * 1000)}-{tail}"
    row["utterance_id"] = checked_id(manifest.text(values, columns.get("id")) or row["utterance_id"])
    row["start_s"], row["end_s"] = start, end
    if start is not None or end is not None or row.get("duration_s") is None:
        row["duration_s"] = duration  # else the header's: in a sample's JSON it may be another recording's
    for name in _TEXTS & columns.keys():
        row[name] = manifest.text(values, columns[name])
    if language := manifest.text(values, columns.get("language")):
        row["source_language"] = language
    row["references"] = manifest.translations(values, found) or None
    return row


def with_references_together(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each id, with the reference translations of all rows of that id. Holds all rows in memory."""
    by_id: dict[str, dict[str, Any]] = {}
    for row in rows:
        there = by_id.setdefault(row["utterance_id"], row)
        if there is not row:
            known = {one["language"] for one in there["references"] or []}
            more = [one for one in row["references"] or [] if one["language"] not in known]
            there["references"] = [*(there["references"] or []), *more] or None
    return iter(by_id.values())


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
        if problem := refused_place(path) or _unspoken(match[0][:-3]):
            raise RowFault("bad_manifest_row", f"{column}: {problem}")
        root = f"{uri_of(fs, base)}/"
        return {"audio_uri": path, "utterance_id": path.removeprefix(root)}
    if path.startswith("/"):
        return {"audio_uri": path, "utterance_id": path.removeprefix(f"{base}/")}
    # Normalised here: object storage takes `./` and `..` for names.
    place = posixpath.normpath(f"{base}/{path}")
    return {"audio_uri": uri_of(fs, place), "utterance_id": posixpath.normpath(path)}


@functools.cache
def _unspoken(scheme: str) -> str | None:
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        return f"nothing here reads {scheme}://"
    except ImportError as fault:
        raise UserError(f"{scheme}:// in the manifest: {fault}") from None
    return None


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
    if value.isascii() and value.isprintable() and len(value) <= MAX_ID_BYTES:
        return value
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


def tables_of(rows: Iterable[Mapping[str, Any]], corpus: str) -> Iterator[pa.Table]:
    """Rows of PLANNED as tables of up to 8,192. UserError when there is none."""
    remaining, empty = iter(rows), True
    while some := list(itertools.islice(remaining, _BATCH_ROWS)):
        empty = False
        # Most corpora leave most columns out.
        there = set().union(*some)
        columns = [
            pa.array([row.get(field.name) for row in some], field.type)
            if field.name in there
            else pa.nulls(len(some), field.type)
            for field in PLANNED
        ]
        yield pa.Table.from_arrays(columns, schema=PLANNED)
    if empty:
        raise UserError(f"corpus {corpus} is empty: it has no rows")
