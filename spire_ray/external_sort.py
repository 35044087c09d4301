"""Any number of rows in the order of their ids, in bounded memory: sorted runs in a temporary folder, then merged.

A run is 64 MiB of rows as Arrow IPC (lz4). The merge reads one batch of every run at a time and goes from one bound to
the next: all rows up to the bound are sorted together, so nothing here loops over rows in Python.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from spire_ray.errors import UserError
from spire_ray.locations import room_in

RUN_BYTES = 64 << 20  # sorting holds them twice
BATCH_ROWS = 2048  # of a run; of each run one is in memory: 400 runs (10^8 rows) hold 200 MB
BATCHES_MERGED = 32  # between two bounds
_COLUMN = "utterance_id"
_SHOWN_IDS = 3


def sorted_by_id(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of `tables` (one schema, with a string column utterance_id), sorted by the UTF-8 bytes of their ids.

    UserError, after the last of them, when ids are not unique: it counts all, and names a few.
    """
    doubles = _Doubles()
    with room_in(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="spire-ray-sort-") as folder:
        runs: list[_Run] = []
        held: list[pa.Table] = []
        size = 0
        for table in _small(tables):
            held.append(table)
            size += table.nbytes
            if size >= RUN_BYTES:
                runs.append(_Run(Path(folder) / f"{len(runs):06}.arrow", _sort(held)))
                held, size = [], 0
        if runs and held:
            runs.append(_Run(Path(folder) / "last.arrow", _sort(held)))
            held = []
        for rows in _merge(runs) if runs else [_sort(held)] if held else []:
            doubles.look(rows)
            yield rows
    doubles.refuse()


def _small(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, few enough at a time that a run ends near its size."""
    for table in tables:
        for batch in table.to_batches(max_chunksize=65_536):
            yield pa.Table.from_batches([batch])


def _sort(tables: list[pa.Table]) -> pa.Table:
    # Arrow compares strings as bytes, which for UTF-8 is also the order of code points, and so Python's.
    rows = pa.concat_tables(tables).combine_chunks()
    return rows.take(pc.sort_indices(rows.column(_COLUMN)))


class _Run:
    """Sorted rows on disk, read from the front."""

    def __init__(self, path: Path, rows: pa.Table) -> None:
        with pa.ipc.new_file(path, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(rows, max_chunksize=BATCH_ROWS)
        ids = rows.column(_COLUMN)
        # The last id of each batch: from all of them together come the bounds of the merge.
        self.lasts = [
            ids[min(end, len(ids)) - 1].as_py() for end in range(BATCH_ROWS, len(ids) + BATCH_ROWS, BATCH_ROWS)
        ]
        self.reader = pa.ipc.open_file(pa.OSFile(str(path)))
        self.next = 0
        self.rest = rows.schema.empty_table()  # an empty slice would keep all of the run in memory

    def up_to(self, bound: str | None) -> list[pa.Table]:
        """What is not read yet and has an id up to `bound` (None: all)."""
        taken: list[pa.Table] = []
        while True:
            count = self.rest.num_rows if bound is None else _count_up_to(self.rest, bound)
            if count:
                taken.append(self.rest.slice(0, count))
            if count < self.rest.num_rows:
                self.rest = self.rest.slice(count)
                return taken
            if self.next == self.reader.num_record_batches:
                self.rest = self.rest.schema.empty_table()
                return taken
            self.rest = pa.Table.from_batches([self.reader.get_batch(self.next)])
            self.next += 1


def _count_up_to(rows: pa.Table, bound: str) -> int:
    return int(pc.sum(pc.less_equal(rows.column(_COLUMN), bound)).as_py() or 0)


def _merge(runs: list[_Run]) -> Iterator[pa.Table]:
    lasts = sorted(last for run in runs for last in run.lasts)
    for bound in [*lasts[BATCHES_MERGED - 1 :: BATCHES_MERGED], None]:
        if found := [rows for run in runs for rows in run.up_to(bound)]:
            yield _sort(found)


@dataclass
class _Doubles:
    """Ids that several rows share: equal ones are neighbours, and never on two sides of a bound."""

    rows: int = 0
    ids: int = 0
    shown: list[str] = field(default_factory=list)

    def look(self, rows: pa.Table) -> None:
        """Count those of sorted `rows`."""
        if rows.num_rows < 2:
            return
        ids = rows.column(_COLUMN).combine_chunks()
        twice = ids[1:].filter(pc.equal(ids[1:], ids[:-1]))
        if len(twice):
            different = pc.unique(twice)
            self.rows += len(twice) + len(different)
            self.ids += len(different)
            self.shown += different[: _SHOWN_IDS + 1 - len(self.shown)].to_pylist()

    def refuse(self) -> None:
        """UserError when there were any."""
        if self.ids:
            shown = ", ".join(self.shown[:_SHOWN_IDS]) + (", ..." if self.ids > _SHOWN_IDS else "")
            raise UserError(
                f"duplicate ids: {self.rows} rows share {self.ids} id{'s' if self.ids > 1 else ''} ({shown});"
                " give each row its own in a column `id`"
            )
