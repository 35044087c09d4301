"""CORPUS to planned rows: whatever layout it has, told by what lies there and never asked of the user.

A row that cannot be planned is planned all the same, as `row-<n>` (n counted from 0 over the corpus) with its error, so
that the tables have a row for everything given.
"""

import itertools
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from spire_ray import audio_folder, gigaspeech, kaldi, lhotse, manifest, published, tar_index
from spire_ray.audio_folder import NOT_READ, READ
from spire_ray.errors import UserError
from spire_ray.globs import places
from spire_ray.listing import files_below, names_in
from spire_ray.locations import locate, patiently
from spire_ray.manifest import Record
from spire_ray.manifest_files import manifest_rows
from spire_ray.parquet import open_parquet
from spire_ray.text_corpus import read_text_corpus
from spire_ray.utterances import planned_rows, tables_of, with_references_together

__all__ = ["NOTE", "Corpus", "open_corpus", "read_corpus", "read_text_corpus"]

NOTE = b"note"  # key in the table's metadata of what the person should be told
_TABLES = frozenset({".csv", ".tsv", ".jsonl"})
_MANIFESTS = frozenset({"jsonl", "csv", "tsv", "psv", "parquet"})

Info = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """An open corpus: what the person should be told of it, and its rows as tables, each made when it is asked for."""

    note: str
    tables: Iterator[pa.Table]


@dataclass(frozen=True)
class _Place:
    """Where the corpus lies, and what its rows have in common."""

    corpus: str
    fs: AbstractFileSystem
    root: str
    language: str

    def rows(self, records: Iterable[Record], base: str | None = None) -> Iterator[Row]:
        """Rows of a whole corpus; relative paths in it are relative to `base`, by default the root."""
        return planned_rows(records, self.root if base is None else base, self.fs, self.language, itertools.count())


Reader = Callable[[], Iterable[Row]]


def read_corpus(
    corpus: str, *, source_language: str = "en", storage_options: Mapping[str, Any] | None = None
) -> pa.Table:
    """Everything in `corpus` as one table, of what `open_corpus` gives in pieces. Metadata key NOTE has its note."""
    found = open_corpus(corpus, source_language=source_language, storage_options=storage_options)
    table = pa.concat_tables(found.tables)
    return table.replace_schema_metadata({NOTE: found.note.encode()} if found.note else None)


def open_corpus(
    corpus: str, *, source_language: str = "en", storage_options: Mapping[str, Any] | None = None
) -> Corpus:
    """Everything in `corpus` as rows of PLANNED (tables.PLAN without `shard`), unsorted, up to 8,192 in a table.

    The note names what lies there and is not read. UserError, here or while the tables are made: nothing there, no
    audio, an empty manifest, a manifest without an audio column, a file of unknown type. MachineFault: storage refuses
    or fails.
    """
    fs, path = locate(corpus, storage_options)
    root, infos = patiently(corpus, lambda: places(fs, path, corpus))
    place = _Place(corpus, fs, root, source_language)
    reader, note = patiently(corpus, lambda: _reader(place, infos))
    return Corpus(note, _patient_tables(corpus, reader))


def _patient_tables(corpus: str, reader: Reader) -> Iterator[pa.Table]:
    """The tables of the rows; after a fault that may pass the corpus is read again, up to where it was."""
    done = 0
    rest: Iterator[pa.Table] | None = None

    def step() -> pa.Table | None:
        nonlocal rest
        if rest is None:
            rest = itertools.islice(tables_of(reader(), corpus), done, None)
        try:
            return next(rest, None)
        except BaseException:
            rest = None
            raise

    while (table := patiently(corpus, step)) is not None:
        done += 1
        yield table


def _reader(place: _Place, infos: list[Info]) -> tuple[Reader, str]:
    """What reads the corpus, and the note."""
    fs = place.fs
    folders = [str(info["name"]).rstrip("/") for info in infos if info["type"] == "directory"]
    if len(folders) == len(infos) and all(fs.exists(f"{folder}/{published.SEGMENTS}") for folder in folders):
        return lambda: _europarl(place, folders), ""
    if len(infos) == 1:
        return _folder(place, folders[0]) if folders else _file(place, infos[0])
    files = {str(info["name"]): info for info in infos if info["type"] != "directory"}
    for folder in folders:
        files |= files_below(fs, folder)
    return _listed(place, files, named=not folders)


def _folder(place: _Place, folder: str) -> tuple[Reader, str]:
    fs, there = place.fs, names_in(place.fs, folder)
    if kaldi.MARK in there:
        return lambda: place.rows(kaldi.records(fs, folder)), ""
    if {published.TRANSCRIPTS, "audio"} <= there:
        return lambda: place.rows(published.multilingual_librispeech(fs, folder)), ""
    if gigaspeech.FILE in there:
        return lambda: place.rows(gigaspeech.records(fs, f"{folder}/{gigaspeech.FILE}")), ""
    return _listed(place, files_below(fs, folder), named=False)


def _file(place: _Place, info: Info) -> tuple[Reader, str]:
    path = str(info["name"])
    kind = manifest.kind_of(place.fs, path)
    if kind in ("", "txt"):
        raise UserError(
            f"corpus {place.corpus} is neither a folder nor a manifest (JSONL: .jsonl .json .ndjson; CSV, TSV,"
            " Parquet), nor a tar file"
        )
    return _of_kind(place, [info], kind), ""


def _of_kind(place: _Place, infos: list[Info], kind: str) -> Reader:
    """What reads files that all are of `kind`, one of manifest.kind_of's."""
    fs, paths = place.fs, [str(info["name"]) for info in infos]
    if kind == "tar":
        shards = [(posixpath.relpath(str(info["name"]), place.root), info) for info in infos]
        return lambda: place.rows(tar_index.records(fs, shards, READ))
    if kind == "gigaspeech":
        return lambda: place.rows(_chained(lambda path: gigaspeech.records(fs, path), paths))
    if kind == "fleurs":
        numbers = itertools.count
        return lambda: _each_in_its_folder(place, paths, lambda path: published.fleurs(fs, path), numbers())
    if kind == "jsonl" and (lhotse_kind := _lhotse_kind(fs, paths[0])):
        return lambda: place.rows(_chained(lambda path: lhotse.records(fs, path, lhotse_kind), paths))
    files = [(path, kind) for path in paths]
    if len(paths) > 1 and all(published.COVOST.fullmatch(posixpath.basename(path)) for path in paths):
        return lambda: with_references_together(manifest_rows(fs, place.root, files, place.language))
    return lambda: manifest_rows(fs, place.root, files, place.language)


def _each_in_its_folder(
    place: _Place, paths: list[str], read: Callable[[str], Iterable[Record]], numbers: Iterator[int]
) -> Iterator[Row]:
    for path in paths:
        yield from planned_rows(read(path), posixpath.dirname(path), place.fs, place.language, numbers)


def _chained(read: Callable[[str], Iterable[Record]], paths: list[str]) -> Iterator[Record]:
    return itertools.chain.from_iterable(map(read, paths))


def _lhotse_kind(fs: AbstractFileSystem, path: str) -> str:
    with manifest.opened(fs, path) as stream:
        first = next(iter(manifest.records(stream, "jsonl")), None)
    return lhotse.kind_of(first.values) if first else ""


def _europarl(place: _Place, folders: list[str]) -> Iterable[Row]:
    """Directions of one source language share its speeches: a segment that several have is one utterance."""
    rows = place.rows(_chained(lambda folder: published.europarl_st(place.fs, folder, READ), folders))
    return with_references_together(rows) if len(folders) > 1 else rows


def _listed(place: _Place, files: Mapping[str, Info], named: bool) -> tuple[Reader, str]:
    """What reads the files of a folder, or those of a glob, which are all `named`: the layouts of many files."""
    by_extension: dict[str, list[str]] = {}
    for path in sorted(files):
        relative = posixpath.relpath(path, place.root)
        # Hidden files: a Mac leaves `._a.wav` beside `a.wav`, the Hugging Face hub a `.cache` folder.
        if not relative.startswith(".") and "/." not in relative:
            by_extension.setdefault(posixpath.splitext(path)[1].lower(), []).append(path)
    sound = sorted(path for extension in READ for path in by_extension.get(extension, []))
    parquet, tars = by_extension.get(".parquet", []), by_extension.get(".tar", [])
    if tars:
        _refuse_both(place, sound, "tar files")
        return _of_kind(place, [files[path] for path in tars], "tar"), _note(by_extension)
    if parquet and (not sound or _has_audio(place.fs, parquet[0])):
        _refuse_both(place, sound, "Parquet with audio")
        return _of_kind(place, [files[path] for path in parquet], "parquet"), _note(by_extension)
    if not sound:
        return _without_audio(place, files, by_extension, named)
    scripts = [path for path in by_extension.get(".txt", []) if path.endswith(audio_folder.TRANSCRIPTS)]
    tables = [] if named else [path for one in sorted(_TABLES) for path in by_extension.get(one, [])]
    infos = [files[path] for path in sound]
    if named:  # the glob takes the audio and not what lies beside it
        scripts = sorted({f"{posixpath.dirname(path)}/*{audio_folder.TRANSCRIPTS}" for path in sound})
        scripts = [str(path) for pattern in scripts for path in place.fs.glob(pattern)]
    note = _note(by_extension, [path for path in tables if posixpath.dirname(path) == place.root])
    return lambda: place.rows(audio_folder.records(place.fs, place.root, infos, scripts)), note


def _without_audio(
    place: _Place, files: Mapping[str, Info], by_extension: Mapping[str, list[str]], named: bool
) -> tuple[Reader, str]:
    """Manifests alone: those that a glob names, or lhotse's in a folder."""
    fs, note = place.fs, _note(by_extension)
    candidates = [path for one in (".gz", ".tgz", *manifest.EXTENSIONS) for path in by_extension.get(one, [])]
    kinds = {path: manifest.kind_of(fs, path) for path in sorted(candidates)}
    if named and len(set(kinds.values())) == 1 and set(kinds.values()) <= {*_MANIFESTS, "fleurs", "gigaspeech"}:
        return _of_kind(place, [files[path] for path in kinds], next(iter(kinds.values()))), note
    found = {path: _lhotse_kind(fs, path) for path, kind in kinds.items() if kind == "jsonl"}
    wanted = lhotse.RECORDINGS if lhotse.RECORDINGS in found.values() else lhotse.CUTS
    if wanted in found.values():
        if wanted == lhotse.RECORDINGS and lhotse.CUTS in found.values():
            raise UserError(f"corpus {place.corpus} holds both cuts and recordings of lhotse: name one file of them")
        paths = [path for path, kind in found.items() if kind == wanted]
        return lambda: place.rows(_chained(lambda path: lhotse.records(fs, path, wanted), paths)), note
    raise UserError(f"corpus {place.corpus} holds no {' '.join(sorted(READ))} file{f'; {note}' if note else ''}")


def _refuse_both(place: _Place, sound: list[str], other: str) -> None:
    if sound:
        raise UserError(f"corpus {place.corpus} holds both audio files and {other}: name one folder of them")


def _note(by_extension: Mapping[str, list[str]], tables: Iterable[str] = ()) -> str:
    others = Counter({extension: len(by_extension[extension]) for extension in NOT_READ & by_extension.keys()})
    counts = ", ".join(f"{count} {extension}" for extension, count in sorted(others.items()))
    beside = ", ".join(posixpath.basename(path) for path in tables)
    notes = [f"tables beside the audio are not read, name one as CORPUS to have its texts: {beside}"] if beside else []
    return "; ".join([*notes, f"not read, convert them to FLAC: {counts}"] if counts else notes)


def _has_audio(fs: AbstractFileSystem, path: str) -> bool:
    with fs.open(path, "rb") as file:
        return manifest.embedded_audio(open_parquet(file, path).schema_arrow) is not None
