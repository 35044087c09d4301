"""Manifest files as planned rows, each against its own folder; corpora's own tables through `published.adapter`."""

import itertools
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from spire_ray import manifest
from spire_ray.errors import UserError
from spire_ray.locations import etag_of, uri_of
from spire_ray.manifest import NAMES, Record
from spire_ray.parquet import open_parquet
from spire_ray.published import adapter
from spire_ray.utterances import planned_rows

_NAMES_TOLD = 20


@dataclass
class _Seen:
    """Whether the manifests have audio, and which columns they have."""

    audio: bool = False
    names: dict[str, None] = field(default_factory=dict)
    rows: int = 0

    def look(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self.rows += 1
            self.audio = self.audio or "audio" in manifest.parts(tuple(record.values)).columns
            if not self.audio and len(self.names) < _NAMES_TOLD:
                self.names |= dict.fromkeys(record.values)
            yield record


def manifest_rows(
    fs: AbstractFileSystem, root: str, files: Iterable[tuple[str, str]], language: str
) -> Iterator[dict[str, Any]]:
    """The rows of all `files` (path and manifest.kind_of); embedded audio has ids `<path below root>#<row>`.

    UserError, after the last, when no manifest has a column for audio.
    """
    numbers = itertools.count()
    seen = _Seen()
    for path, kind in files:
        with manifest.opened(fs, path) as file:
            if kind == "parquet":
                schema = open_parquet(file, path).schema_arrow
                file.seek(0)
                seen.names |= dict.fromkeys(schema.names)
                seen.audio = seen.audio or "audio" in manifest.parts(tuple(schema.names)).columns
                records = _embedded(fs, root, path, schema, manifest.records(file, kind))
                seen.audio = seen.audio or manifest.embedded_audio(schema) is not None
            else:
                records = _adapted(fs, path, kind, manifest.records(file, kind))
            yield from planned_rows(seen.look(records), posixpath.dirname(path), fs, language, numbers)
    if not seen.audio and (seen.rows or seen.names):
        there, accepted = ", ".join(seen.names) or "none", ", ".join(NAMES["audio"])
        raise UserError(f"the manifest has no audio column: its columns are {there}; accepted are {accepted}")


def _embedded(
    fs: AbstractFileSystem, root: str, path: str, schema: pa.Schema, records: Iterator[Record]
) -> Iterator[Record]:
    if manifest.embedded_audio(schema) is None:
        yield from records
        return
    common = {"audio_uri": uri_of(fs, path), "etag": etag_of(fs, fs.info(path))}
    name = posixpath.relpath(path, root)
    for index, record in enumerate(records):
        yield replace(record, place=common | {"row_index": index, "utterance_id": f"{name}#{index}"})


def _adapted(fs: AbstractFileSystem, path: str, kind: str, records: Iterator[Record]) -> Iterator[Record]:
    first = next(records, None)
    if first is None:
        return
    change = adapter(fs, path, kind, frozenset(first.values))
    for record in itertools.chain([first], records):
        yield record if change is None or record.problem else replace(record, values=change(record.values))
