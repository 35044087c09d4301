"""Audio bytes inside Parquet (the Hugging Face layout): only the row groups and the column that are needed."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem

from spire_ray.errors import RowFault, UserError
from spire_ray.fetch import Object, Piece
from spire_ray.locations import patiently
from spire_ray.manifest import embedded_audio
from spire_ray.parquet import open_parquet

_BATCH_ROWS = 16  # audio values in memory at a time
_BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a Parquet file, and the pieces whose rows it holds, in the order of the rows."""

    fs: AbstractFileSystem
    path: str
    uri: str
    metadata: pq.FileMetaData
    column: str  # of the audio bytes
    group: int
    first: int  # the number, in the file, of its first row
    pieces: Sequence[Piece]

    @property
    def memory(self) -> int:
        """About how many bytes it holds in memory while it is read: a few of its values, three times, and a buffer."""
        group = self.metadata.row_group(self.group)
        chunks = [group.column(index) for index in range(group.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == self.column)
        return _BUFFER + 3 * int(size * min(1.0, _BATCH_ROWS / max(1, group.num_rows)))

    def values(self, done: Container[int]) -> Iterator[list[tuple[Piece, pa.Buffer | None]]]:
        """The audio bytes of each piece whose row is not in `done`, a few at a time; None where the row has none.

        RowFault `unreadable` where the file is damaged; OSError of the storage.
        """
        waiting = iter([piece for piece in self.pieces if piece.row not in done])
        piece = next(waiting, None)
        at = self.first
        with _open(self.fs, self.path, self.uri) as handle:
            file = audio_parquet(handle, self.uri, metadata=self.metadata, buffer_size=_BUFFER)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[self.group], columns=[self.column]):
                values = batch.column(0)
                values = values.field("bytes") if pa.types.is_struct(values.type) else values
                found: list[tuple[Piece, pa.Buffer | None]] = []
                while piece is not None and (piece.row_index or 0) < at + batch.num_rows:
                    if sum(value.size for _, value in found if value is not None) > _BUFFER:
                        yield found
                        found = []
                    found.append((piece, values[(piece.row_index or 0) - at].as_buffer()))
                    piece = next(waiting, None)
                yield found
                at += batch.num_rows
                if piece is None:
                    return


def row_groups(wanted: Object, fs: AbstractFileSystem, path: str) -> tuple[list[RowGroup], list[tuple[int, RowFault]]]:
    """The row groups that hold the pieces, and the rows whose piece lies beyond the last. RowFault: no such Parquet."""
    metadata, column = patiently(wanted.uri, lambda: _footer(fs, path, wanted.uri))
    pieces = sorted(wanted.pieces, key=lambda piece: piece.row_index or 0)
    groups, at, first = [], 0, 0
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        start = at
        while at < len(pieces) and (pieces[at].row_index or 0) < after:
            at += 1
        if at > start:
            groups.append(RowGroup(fs, path, wanted.uri, metadata, column, group, first, pieces[start:at]))
        first = after
    faults = [
        (piece.row, RowFault("changed_since_plan", f"row {piece.row_index} is asked for, the file has {first} rows"))
        for piece in pieces[at:]
    ]
    return groups, faults


def audio_parquet(handle: BinaryIO, uri: str, **how: Any) -> pq.ParquetFile:
    """An open Parquet file; `how` goes to pyarrow. RowFault `unreadable` when it is none that can be read."""
    try:
        return open_parquet(handle, uri, **how)
    except UserError as fault:
        raise RowFault("unreadable", f"{uri} is damaged: {fault}") from None


def _footer(fs: AbstractFileSystem, path: str, uri: str) -> tuple[pq.FileMetaData, str]:
    with _open(fs, path, uri) as handle:
        file = audio_parquet(handle, uri)
        column = embedded_audio(file.schema_arrow)
        if column is None:
            raise RowFault("changed_since_plan", f"{uri} has no audio bytes any more")
        return file.metadata, column


@contextmanager
def _open(fs: AbstractFileSystem, path: str, uri: str) -> Iterator[BinaryIO]:
    """The file, each read of which is one request: Arrow asks for what it needs, and a cache would add to it."""
    try:
        with fs.open(path, "rb", cache_type="none") as handle:
            yield handle
    except (pa.ArrowException, OSError) as fault:
        # Arrow's own complaint about a damaged file is an OSError without a number; storage's have one.
        if isinstance(fault, OSError) and (type(fault) is not OSError or fault.errno is not None):
            raise
        raise RowFault("unreadable", f"{uri} is damaged: {fault}") from None
