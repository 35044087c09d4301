"""Planned rows to shards: sorted by id, then as many in a row as fit into a shard; a stream, whatever their number."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spire_ray.errors import UserError
from spire_ray.external_sort import sorted_by_id
from spire_ray.tables import PLAN

MAX_UTTERANCES = 4096  # in a shard, however short they are
TEXT_ROWS = 1000  # in a shard of a text corpus
BYTES_PER_SECOND = 16_000  # a guess between FLAC (about 18,000 at 16 kHz) and MP3, where the duration is not known
GUESSED_SECONDS = 10.0  # where not even the size is known

Rows: TypeAlias = pa.Table | Iterable[pa.Table]  # of utterances.PLANNED: tables.PLAN without `shard`


def cut(rows: Rows, shard_minutes: float) -> Iterator[pa.Table]:
    """Shards of up to `shard_minutes` of audio, each a table of tables.PLAN; the rows sorted by the bytes of their ids.

    An utterance longer than that is a shard of its own. UserError for duplicate ids, after the last shard.
    """
    if not shard_minutes > 0:
        raise UserError(f"a shard of {shard_minutes:g} minutes: give more than 0")
    limit = round(shard_minutes * 60_000)
    return _shards(rows, lambda sorted_rows: _starts_by_audio(milliseconds(sorted_rows), limit))


def cut_text(rows: Rows, shard_rows: int = TEXT_ROWS) -> Iterator[pa.Table]:
    """Rows of a text corpus, sorted as in `cut`, in shards of `shard_rows`. UserError as there."""
    return _shards(rows, lambda sorted_rows: list(range(0, sorted_rows.num_rows, shard_rows)))


def milliseconds(rows: pa.Table) -> NDArray[np.int64]:
    """Of audio per row, known or guessed; 0 without audio. Whole ones: sums of floats depend on their order."""
    whole_file = pc.and_(pc.is_null(rows.column("start_s")), pc.is_null(rows.column("end_s")))
    by_size = pc.divide(pc.cast(rows.column("byte_size"), pa.float64()), float(BYTES_PER_SECOND))
    guessed = pc.coalesce(known_seconds(rows), pc.if_else(whole_file, by_size, None), pa.scalar(GUESSED_SECONDS))
    seconds = pc.if_else(pc.is_null(rows.column("audio_uri")), 0.0, guessed)
    whole: NDArray[np.int64] = np.rint(seconds.to_numpy() * 1000).astype(np.int64)
    return whole


def known_seconds(rows: pa.Table) -> pa.ChunkedArray:
    """Of audio per row; null where neither the corpus nor a header tells."""
    span = pc.subtract(rows.column("end_s"), pc.coalesce(rows.column("start_s"), pa.scalar(0.0)))
    return pc.coalesce(rows.column("duration_s"), span)


def _shards(rows: Rows, starts_of: Callable[[pa.Table], list[int]]) -> Iterator[pa.Table]:
    index = 0
    rest: pa.Table | None = None
    for table in sorted_by_id([rows] if isinstance(rows, pa.Table) else rows):
        together = table if rest is None else pa.concat_tables([rest, table])
        starts = starts_of(together)
        # The last one may take more of what comes.
        for start, end in pairwise(starts):
            yield _shard(together.slice(start, end - start), index)
            index += 1
        rest = together.slice(starts[-1]) if starts else together
    if rest is not None and rest.num_rows:
        yield _shard(rest, index)


def _starts_by_audio(lengths: NDArray[np.int64], limit: int) -> list[int]:
    ends = np.cumsum(lengths)
    starts = []
    start = 0
    while start < len(ends):
        starts.append(start)
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + limit, side="right"))
        start = min(max(fitting, start + 1), start + MAX_UTTERANCES)
    return starts


def _shard(rows: pa.Table, index: int) -> pa.Table:
    column = pa.array(np.full(rows.num_rows, index, np.int32))
    return rows.append_column("shard", column).select(PLAN.names).cast(PLAN).combine_chunks()
