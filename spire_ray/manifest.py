"""Manifest files (JSONL, CSV, TSV, Parquet) as a stream of records, and which of their columns plays which part."""

import functools
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem

from spire_ray.errors import RowFault, UserError
from spire_ray.lines import LongLineError, fields, lines
from spire_ray.parquet import check_plain, open_parquet

# For each part the accepted names; the first one that a record has is taken. NeMo's are among them.
NAMES: Mapping[str, tuple[str, ...]] = {
    "audio": (
        *("audio", "audio_filepath", "audio_path", "path", "file", "filename", "file_name", "audio_uri"),
        *("wav", "wav_filename", "uri"),
    ),
    "id": ("utterance_id", "utt_id", "id"),
    "start": ("start", "start_s", "start_time"),
    "end": ("end", "end_s", "end_time"),
    "offset": ("offset",),
    "duration": ("duration", "duration_s"),
    "reference": ("reference", "text", "transcript", "transcription", "sentence", "normalized_text"),
    "references": ("references",),
    "speaker": ("speaker", "speaker_id"),
    "recording_id": ("recording_id",),
    "corpus": ("corpus", "dataset"),
    "language": ("source_language", "language", "lang", "source_lang"),
    "source": ("text", "source", "sentence", "src"),  # of a text corpus
    "target": ("reference", "target", "translation", "tgt"),  # of a text corpus
}
EXTENSIONS = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
_TRANSLATION = re.compile(r"(?:reference|translation|text)_([a-z]{2})")
_NOT_TRANSLATIONS = frozenset({"text_id"})  # the id of a text more often than its Indonesian
_BATCH_ROWS = 8192
_HEAD = 4096
GZIP = b"\x1f\x8b"  # how what it packed begins
_TAR = slice(257, 262)  # of a header, where POSIX and GNU tar write `ustar`
_GIGASPEECH = re.compile(rb'\s*\{[^\[{]*"audios"\s*:\s*\[')
_FLEURS = re.compile(rb"\d+\t[^\t\n]+\.wav\t")  # its tables have no header
MAX_SECONDS = 1e7  # four months: a number beyond is no offset into a recording


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a manifest: its values by column name, or what is wrong with it.

    `place` has the columns of tables.PLAN that say where the audio is, where it is no file that the values name.
    """

    where: str  # "line 12", "row 3"
    values: Mapping[str, Any]
    problem: str = ""
    place: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The column that plays each part of NAMES, and the columns of translations as (language, column)."""

    columns: Mapping[str, str]
    translations: tuple[tuple[str, str], ...]


@functools.lru_cache(maxsize=1024)
def parts(names: tuple[str, ...]) -> Parts:
    """Which of the columns `names` plays which part. Case does not count."""
    by_lower = {name.lower(): name for name in reversed(names)}
    columns = {
        part: by_lower[found] for part, accepted in NAMES.items() if (found := _first(accepted, by_lower)) is not None
    }
    translations = tuple(
        (match[1], name)
        for lower, name in sorted(by_lower.items())
        if (match := _TRANSLATION.fullmatch(lower)) and lower not in _NOT_TRANSLATIONS
    )
    return Parts(columns, translations)


def _first(accepted: Sequence[str], present: Mapping[str, str]) -> str | None:
    return next((name for name in accepted if name in present), None)


def kind_of(fs: AbstractFileSystem, path: str) -> str:
    """What a file is: parquet, jsonl, csv, tsv, psv, txt, tar, fleurs, gigaspeech, or "". By content, then extension.

    What gzip packed is looked into, but for tar files, of which no part can be read alone: UserError.
    """
    with fs.open(path, "rb") as file:
        head: bytes = file.read(_HEAD)
    name = path.rpartition("/")[2].lower()
    if head[:2] == GZIP:
        with _readable(path):
            head, name = zlib.decompressobj(wbits=31).decompress(head, _HEAD), name.removesuffix(".gz")
        if head[_TAR] == b"ustar" or name.endswith((".tar", ".tgz")):
            refuse_packed(path, GZIP)
    if head[:4] == b"PAR1":
        return "parquet"
    head = head.removeprefix(b"\xef\xbb\xbf")
    kind = EXTENSIONS.get("." + name.rpartition(".")[2], "")
    if kind == "parquet":
        raise UserError(f"{path} is named .parquet and is not a Parquet file")
    if head[_TAR] == b"ustar" or (name.endswith(".tar") and kind == ""):
        return "tar"
    if kind in ("", "jsonl") and head.lstrip()[:1] == b"{":
        return "gigaspeech" if _GIGASPEECH.match(head) else "jsonl"
    if kind == "tsv" and _FLEURS.match(head):
        return "fleurs"
    if kind == "csv" and b"|" in (header := head.partition(b"\n")[0]) and b"," not in header:
        return "psv"
    return kind or ("txt" if name.endswith(".txt") else "")


def refuse_packed(path: str, head: bytes) -> None:
    """UserError when a tar file that begins with `head` is packed by gzip."""
    if head[:2] == GZIP:
        raise UserError(f"{path} is a compressed tar file, of which no part can be read alone: gunzip it")


@contextmanager
def opened(fs: AbstractFileSystem, path: str) -> Iterator[BinaryIO]:
    """The file's bytes as a stream, unpacked where gzip packed them. UserError: damaged, or a LongLineError."""
    with _readable(path), fs.open(path, "rb") as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise UserError(f"{path} is packed by gzip and damaged: {fault}") from None
    except LongLineError as fault:
        raise UserError(f"{path}: {fault}") from None


def records(file: BinaryIO, kind: str) -> Iterator[Record]:
    """The rows of an open manifest of `kind` jsonl, csv, tsv, psv, parquet or txt. Blank lines are rows in txt only."""
    if kind == "txt":
        return text_lines(file)
    if kind == "jsonl":
        return _json_records(file)
    if kind == "parquet":
        return _parquet_records(open_parquet(file, "the manifest"))
    return csv_records(file, {"csv": ",", "tsv": "\t", "psv": "|"}[kind])


def embedded_audio(schema: pa.Schema) -> str | None:
    """The path, inside a Parquet schema, of audio bytes: `audio.bytes` (Hugging Face) or a binary column `audio`."""
    for name in NAMES["audio"]:
        index = schema.get_field_index(name)
        if index < 0:
            continue
        kind = schema.field(index).type
        if pa.types.is_struct(kind) and (at := kind.get_field_index("bytes")) >= 0:
            # Of another type, such as an extension's, reading it may run it.
            return f"{name}.bytes" if _is_bytes(kind.field(at).type) else None
        if _is_bytes(kind):
            return name
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def text(values: Mapping[str, Any], column: str | None) -> str | None:
    """A value as text: numbers are written out, empty is None. RowFault when it is neither, or no valid Unicode."""
    value = values.get(column) if column else None
    if value is None or value == "":
        return None
    if type(value) is str and value.isascii():  # nearly every value: a row has several, a corpus 10^8 rows
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowFault("bad_manifest_row", f"{column} is {_shown(value)}, not text")
    value = str(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowFault("bad_manifest_row", f"{column} is not valid UTF-8: {_shown(value)}") from None
    return value


def number(values: Mapping[str, Any], column: str | None) -> float | None:
    """A value as seconds, 0 or more and below MAX_SECONDS; empty is None. RowFault when it is none."""
    value = values.get(column) if column else None
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < MAX_SECONDS:
        raise RowFault("bad_manifest_row", f"{column} is {_shown(value)}, not a number of seconds")
    return seconds


def translations(values: Mapping[str, Any], found: Parts) -> list[dict[str, str | None]]:
    """Reference translations as {language, text}, from `references` and the columns named for a language."""
    if "references" not in found.columns and not found.translations:
        return []
    given = values.get(found.columns.get("references", "")) or []
    result: list[dict[str, str | None]] = []
    for one in given if isinstance(given, list) else [given]:
        if not isinstance(one, Mapping) or not isinstance(one.get("language"), str):
            raise RowFault("bad_manifest_row", f"references holds {_shown(one)}, not {{language, text}}")
        result.append({"language": one["language"], "text": text(one, "text") or ""})
    for language, column in found.translations:
        if (value := text(values, column)) is not None:
            result.append({"language": language, "text": value})
    return result


def _shown(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _json_records(file: BinaryIO) -> Iterator[Record]:
    for at, line in enumerate(lines(file), 1):
        line = line.removeprefix(b"\xef\xbb\xbf") if at == 1 else line
        if line.isspace() or not line:
            continue
        where = f"line {at}"
        try:
            values = json.loads(line.decode())
        except (ValueError, RecursionError) as fault:
            yield Record(where, {}, f"no JSON ({fault}): {_shown(line[:40])}")
            continue
        if isinstance(values, dict):
            yield Record(where, values)
        else:
            yield Record(where, {}, f"no JSON object: {_shown(values)}")


def text_lines(file: BinaryIO) -> Iterator[Record]:
    """Each line as a record of one value, `text`."""
    for at, line in enumerate(lines(file), 1):
        line = line.removeprefix(b"\xef\xbb\xbf") if at == 1 else line
        try:
            yield Record(f"line {at}", {"text": line.decode().rstrip("\r")})
        except UnicodeDecodeError as fault:
            yield Record(f"line {at}", {}, str(fault))


def csv_records(file: BinaryIO, delimiter: str, header: Sequence[str] = ()) -> Iterator[Record]:
    """The rows of a table whose first line is its header, unless that is given. Only a comma's table quotes."""
    stream = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    # The tables of CommonVoice, SPGISpeech and their like do not quote: a sentence may begin with a quotation mark.
    rows = fields(stream, delimiter, quotes=delimiter == ",")
    header = header or next(rows, (0, []))[1]
    for line, row in rows:
        if not row:
            continue
        where = f"line {line}"
        if len(row) != len(header):
            yield Record(where, {}, f"{len(row)} fields, the header has {len(header)}")
        else:
            yield Record(where, dict(zip(header, row, strict=True)))
    stream.detach()


def _parquet_records(file: pq.ParquetFile) -> Iterator[Record]:
    """Only the columns that play a part, and never audio bytes."""
    schema = file.schema_arrow
    audio = embedded_audio(schema)
    found = parts(tuple(schema.names))
    wanted = {*found.columns.values(), *(column for _, column in found.translations)}
    columns = [name for name in schema.names if name in wanted and name != (audio or "").partition(".")[0]]
    check_plain(pa.schema([schema.field(name) for name in columns]), "the manifest")
    at = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
        lists = [column.to_pylist() for column in batch.columns]
        for offset in range(batch.num_rows):
            values = {name: column[offset] for name, column in zip(columns, lists, strict=True)}
            yield Record(f"row {at + offset}", values)
        at += batch.num_rows
