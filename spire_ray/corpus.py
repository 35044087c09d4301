"""CORPUS to planned rows: a folder of audio, a manifest, or Parquet with audio bytes; told apart by their content.

A manifest row that cannot be planned is planned all the same, as `row-<n>` (n counted from 0 over the corpus) with its
error, so that the tables have a row for everything given.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from spire_ray import audio, manifest, tables
from spire_ray.errors import MachineFault, RowFault, UserError
from spire_ray.locations import etag_of, locate, patiently, uri_of
from spire_ray.utterances import bad_row, checked_id, columnar, planned

READ = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
NOT_READ = frozenset(
    {
        ".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mka", ".g722", ".gsm", ".amr", ".awb", ".ape", ".wv", ".tta",
        ".aif", ".aiff", ".au", ".snd", ".caf", ".sph", ".raw", ".pcm", ".mp2", ".ac3", ".spx", ".w64", ".rf64", ".3gp",
    }
)  # fmt: skip
NOTE = b"note"  # key in the table's metadata of what the person should be told
_PROBES = 32  # at a time: each waits for storage more than it computes


def read_corpus(
    corpus: str, *, source_language: str = "en", storage_options: Mapping[str, Any] | None = None
) -> pa.Table:
    """Everything in `corpus` as rows of PLANNED (tables.PLAN without `shard`), unsorted.

    Metadata key NOTE names what lies there and is not read. UserError: nothing there, no audio, an empty manifest, a
    manifest without an audio column, a file of unknown type. MachineFault: storage refuses or fails.
    """
    fs, path = locate(corpus, storage_options)
    try:
        info = patiently(corpus, lambda: fs.info(path))
    except FileNotFoundError:
        raise UserError(f"corpus {corpus} does not exist") from None
    if info["type"] == "directory":
        return patiently(corpus, lambda: _folder(fs, path.rstrip("/"), corpus, source_language))
    kind = patiently(corpus, lambda: manifest.kind_of(fs, path))
    if kind in ("", "txt"):
        raise UserError(
            f"corpus {corpus} is neither a folder nor a manifest (JSONL: .jsonl .json .ndjson; CSV, TSV, Parquet)"
        )
    base = posixpath.dirname(path)
    return patiently(corpus, lambda: _table(_manifest_rows(fs, base, [(path, kind)], source_language), corpus))


def _folder(fs: AbstractFileSystem, root: str, corpus: str, language: str) -> pa.Table:
    found = _listing(fs, root)
    by_extension: dict[str, list[str]] = {}
    for path in sorted(found):
        relative = posixpath.relpath(path, root)
        # Hidden files: a Mac leaves `._a.wav` beside `a.wav`, the Hugging Face hub a `.cache` folder.
        if not relative.startswith(".") and "/." not in relative:
            by_extension.setdefault(posixpath.splitext(path)[1].lower(), []).append(path)
    sound = sorted(path for extension in READ for path in by_extension.get(extension, []))
    parquet = by_extension.get(".parquet", [])
    others = Counter({extension: len(by_extension[extension]) for extension in NOT_READ & by_extension.keys()})
    note = _note(others)
    if parquet and (not sound or _has_audio(fs, parquet[0])):
        if sound:
            raise UserError(f"corpus {corpus} holds both audio files and Parquet with audio: name one folder of them")
        rows = _manifest_rows(fs, root, [(path, "parquet") for path in parquet], language)
        return _table(rows, corpus, note)
    if not sound:
        raise UserError(f"corpus {corpus} holds no {' '.join(sorted(READ))} file{f'; {note}' if note else ''}")
    return _table(_audio_rows(fs, root, [found[path] for path in sound], language), corpus, note)


def _listing(fs: AbstractFileSystem, root: str) -> dict[str, dict[str, Any]]:
    """Every file below `root`: local links to folders are followed, and a folder that cannot be read is a fault."""
    if not isinstance(fs, LocalFileSystem):
        return dict(fs.find(root, detail=True))

    def refuse(fault: OSError) -> None:
        raise MachineFault(f"{fault.filename}: {fault.strerror}") from fault

    found: dict[str, dict[str, Any]] = {}
    visited: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=refuse):
        visited.add(os.path.realpath(folder))
        # A link to a folder above would be followed for ever.
        below[:] = [name for name in below if os.path.realpath(os.path.join(folder, name)) not in visited]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                found[path] = fs.info(path)
    return found


def _note(others: Counter[str]) -> str:
    if not others:
        return ""
    counts = ", ".join(f"{count} {extension}" for extension, count in sorted(others.items()))
    return f"not read, convert them to FLAC: {counts}"


def _has_audio(fs: AbstractFileSystem, path: str) -> bool:
    with fs.open(path, "rb") as file:
        return manifest.embedded_audio(_parquet(file, path).schema_arrow) is not None


def _parquet(file: BinaryIO, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as fault:
        raise UserError(f"{path} is not a Parquet file that can be read: {fault}") from None


def _audio_rows(
    fs: AbstractFileSystem, root: str, infos: list[dict[str, Any]], language: str
) -> Iterator[dict[str, Any]]:
    def header(info: dict[str, Any]) -> tuple[float | None, str | None]:
        try:
            etag = patiently(info["name"], lambda: etag_of(fs, info))
            return patiently(info["name"], lambda: _probe(fs, info["name"])), etag
        except RowFault:
            return None, etag  # what is wrong with the file is found, and told, when it is read
        except FileNotFoundError:
            return None, None

    with ThreadPoolExecutor(_PROBES) as pool:
        for number, (info, (seconds, etag)) in enumerate(zip(infos, pool.map(header, infos), strict=True)):
            path = info["name"]
            try:
                yield {
                    "utterance_id": checked_id(posixpath.relpath(path, root)),
                    "audio_uri": uri_of(fs, path),
                    "byte_size": info["size"],
                    "duration_s": seconds,
                    "etag": etag,
                    "source_language": language,
                }
            except RowFault as fault:
                yield bad_row(number, ascii(path), fault.detail, language)


def _probe(fs: AbstractFileSystem, path: str) -> float:
    # Headers are small: object storage would otherwise send megabytes for each.
    with fs.open(path, "rb", block_size=65_536) as file:
        return audio.probe(file)


def _manifest_rows(
    fs: AbstractFileSystem, root: str, files: Iterable[tuple[str, str]], language: str
) -> Iterator[dict[str, Any]]:
    number = 0
    names: dict[str, None] = {}
    has_audio = False
    for path, kind in files:
        base, file_id = posixpath.dirname(path), posixpath.relpath(path, root)
        with fs.open(path, "rb") as file:
            schema = _parquet(file, path).schema_arrow if kind == "parquet" else pa.schema([])
            embedded = manifest.embedded_audio(schema) is not None
            common: dict[str, Any] = {"source_language": language}
            if embedded:
                common |= {"audio_uri": uri_of(fs, path), "etag": etag_of(fs, fs.info(path))}
            names |= dict.fromkeys(schema.names)
            has_audio = has_audio or embedded or "audio" in manifest.parts(tuple(schema.names)).columns
            file.seek(0)
            for index, record in enumerate(manifest.records(file, kind)):
                has_audio = has_audio or "audio" in manifest.parts(tuple(record.values)).columns
                if not has_audio and len(names) < 20:
                    names |= dict.fromkeys(record.values)
                place = {"row_index": index, "utterance_id": f"{file_id}#{index}"} if embedded else None
                try:
                    if record.problem:
                        raise RowFault("bad_manifest_row", record.problem)
                    yield common | planned(record.values, base, fs, place)
                except RowFault as fault:
                    yield bad_row(number, record.where, fault.detail, language)
                number += 1
    if not has_audio and (number or names):
        there, accepted = ", ".join(names) or "none", ", ".join(manifest.NAMES["audio"])
        raise UserError(f"the manifest has no audio column: its columns are {there}; accepted are {accepted}")


def _table(rows: Iterable[Mapping[str, Any]], corpus: str, note: str = "") -> pa.Table:
    return columnar(rows, corpus).replace_schema_metadata({NOTE: note.encode()} if note else None)


def read_text_corpus(
    corpus: str,
    *,
    source_language: str,
    target_language: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Everything in a text corpus as rows of PLANNED, with `text` and `source_language`, unsorted.

    `corpus`: .txt (a sentence a line), JSONL, CSV, TSV or Parquet with a column of manifest.NAMES["source"]. Ids are
    the manifest's, else `line-<n>`, n counted from 0 and padded, so that the order of ids is the order of lines. A row
    without text has the error `empty`. A plain column of NAMES["target"] is a reference in `target_language`.
    UserError: as in read_corpus.
    """
    fs, path = locate(corpus, storage_options)
    try:
        info = patiently(corpus, lambda: fs.info(path))
    except FileNotFoundError:
        raise UserError(f"corpus {corpus} does not exist") from None
    kind = "" if info["type"] == "directory" else patiently(corpus, lambda: manifest.kind_of(fs, path))
    if not kind:
        raise UserError(f"text corpus {corpus} is not a file of the types read: .txt, JSONL, CSV, TSV, Parquet")

    def read() -> pa.Table:
        with fs.open(path, "rb") as file:
            if kind == "parquet":
                _parquet(file, path)
                file.seek(0)
            return columnar(_text_rows(list(manifest.records(file, kind)), source_language, target_language), corpus)

    return patiently(corpus, read)


def _text_rows(records: list[manifest.Record], language: str, target_language: str | None) -> Iterator[dict[str, Any]]:
    if records and not any("source" in manifest.parts(tuple(record.values)).columns for record in records):
        names = dict.fromkeys(name for record in records[:1000] for name in record.values)
        there, accepted = ", ".join(names) or "none", ", ".join(manifest.NAMES["source"])
        raise UserError(f"the text corpus has no text column: its columns are {there}; accepted are {accepted}")
    width = max(6, len(str(len(records) - 1)))
    for number, record in enumerate(records):
        try:
            if record.problem:
                raise RowFault("bad_manifest_row", record.problem)
            yield _text_row(record, f"line-{number:0{width}}", language, target_language)
        except RowFault as fault:
            yield bad_row(number, record.where, fault.detail, language)


def _text_row(record: manifest.Record, line_id: str, language: str, target_language: str | None) -> dict[str, Any]:
    values, found = record.values, manifest.parts(tuple(record.values))
    references = manifest.translations(values, found)
    if (target := manifest.text(values, found.columns.get("target"))) is not None:
        references.append({"language": target_language, "text": target})
    source = manifest.text(values, found.columns.get("source"))
    return {
        "utterance_id": checked_id(manifest.text(values, found.columns.get("id")) or line_id),
        "corpus": manifest.text(values, found.columns.get("corpus")),
        "text": source,
        "source_language": manifest.text(values, found.columns.get("language")) or language,
        "references": references or None,
        "error": tables.error("empty", f"{record.where} has no text") if not (source or "").strip() else None,
    }
