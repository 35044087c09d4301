"""Whether a run directory is whole, proved from its plan and its parts alone: `python tests/checker.py OUT`.

A program of its own: pyarrow reads, nothing of spire_ray is imported, and everything that must hold is written here a
second time. Every planned item has its row in every table, none has two that count, and each row is what its table
promises. Prints a line for each table and one for each thing that is wrong (the first hundred); exit code 0 when
nothing is, 1 when something is, 2 when there is no plan to check against.

    --tables units transcripts translations   that must be whole (default: those that have a folder)
    --languages de fr                         that every utterance is translated to (default: all that occur)
    --units-from OUT1                         where plan and units lie, for text made by `generate OUT1 --to OUT`
"""

import argparse
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from promised_rows import SCHEMAS, Row, faults_of

MAX_SHOWN = 100
SHARDS_PER_PART = 1000
PART = re.compile(r"part-(\d{5,})(?:\.r([1-9]\d*))?\.parquet")

TABLES = ("units", "transcripts", "translations")

Item = tuple[str, ...]


class Checker:
    """Counts, and everything that is wrong, of one run directory."""

    def __init__(self, out: Path, units_from: Path | None = None, languages: list[str] | None = None) -> None:
        self.out = out
        self.planned_in = units_from or out
        self.languages = languages
        self.wrong: list[str] = []
        self.rows: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.missing: Counter[str] = Counter()
        self.twice: Counter[str] = Counter()
        self.marks: dict[str, set[str]] = {}
        self.last_id: bytes | None = None

    def check(self, tables: list[str]) -> None:
        """Everything, a shard at a time: memory holds one shard of each table."""
        parts = {table: self._parts(table) for table in tables}
        if "translations" in tables and self.languages is None:
            self.languages = self._languages_of(parts["translations"])
        shards = 0
        for shard, planned in self._plan():
            shards += 1
            units = self._shard("units", shard, planned, parts.get("units"))
            retried = len(parts.get("units", {}).get(shard, {})) > 1
            for table in tables:
                if table != "units":
                    self._text(table, self._shard(table, shard, planned, parts[table]), units, retried)
        for table in tables:
            if beyond := sorted(shard for shard in parts[table] if shard >= shards):
                self._say(f"{table}: parts of shards that are not planned: {beyond[:5]}")
            if len(self.marks.get(table, set())) > 1:
                self._say(f"{table}: parts of {len(self.marks[table])} different settings")
            folder = self._folder(table)
            if (folder / "_SUCCESS").exists() and set(range(shards)) - parts[table].keys():
                self._say(f"{table}: _SUCCESS lies there though parts are missing")

    def _say(self, line: str) -> None:
        self.wrong.append(line)

    def _folder(self, table: str) -> Path:
        return (self.planned_in if table in ("plan", "units") else self.out) / table

    def _parts(self, table: str) -> dict[int, dict[int, Path]]:
        """The parts of a table, by shard and attempt. Any other file is wrong, but for _SUCCESS and hidden ones."""
        found: dict[int, dict[int, Path]] = {}
        folder = self._folder(table)
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if match := PART.fullmatch(path.name):
                found.setdefault(int(match[1]), {})[int(match[2] or 0)] = path
            elif path.name != "_SUCCESS" and not path.name.startswith(".tmp-"):
                self._say(f"{table}: {path.name!r} is neither a part nor _SUCCESS")
        return found

    def _languages_of(self, parts: dict[int, dict[int, Path]]) -> list[str]:
        found: set[str] = set()
        for path in itertools.chain.from_iterable(attempts.values() for attempts in parts.values()):
            column = pq.read_table(path, columns=["target_language"]).column("target_language")
            found.update(column.unique().to_pylist())
        return sorted(found)

    def _read(self, table: str, path: Path) -> list[Row]:
        try:
            file = pq.ParquetFile(path)
            schema = file.schema_arrow
            rows: list[Row] = file.read().to_pylist()
        except (pa.ArrowException, OSError) as fault:
            self._say(f"{path}: is not a whole Parquet file: {fault}")
            return []
        if not schema.equals(SCHEMAS[table]):
            self._say(f"{path}: has the schema {schema.names}")
            return []
        self.marks.setdefault(table, set()).add(str((schema.metadata or {}).get(b"spire_ray.fingerprint")))
        self.rows[table] += len(rows)
        self.wrong += [f"{path}: {row['utterance_id']!r} {fault}" for row in rows for fault in faults_of(table, row)]
        return rows

    def _plan(self) -> Iterator[tuple[int, list[Row]]]:
        """Each shard and its planned rows. Shard i must be row group i % 1000 of part i // 1000."""
        shard = 0
        parts = self._parts("plan")
        if sorted(parts) != list(range(len(parts))) or any(list(attempts) != [0] for attempts in parts.values()):
            self._say(f"plan: its parts are {sorted(parts)}")
        for number in sorted(parts):
            path = parts[number][0]
            rows = iter(self._read("plan", path))
            footer = pq.read_metadata(path)
            groups = [footer.row_group(at).num_rows for at in range(footer.num_row_groups)]
            if len(groups) > SHARDS_PER_PART or (number + 1 in parts and len(groups) != SHARDS_PER_PART):
                self._say(f"{path}: has {len(groups)} row groups")
            for size in groups:
                planned = list(itertools.islice(rows, size))
                for row in planned:
                    self._planned(row, shard)
                yield shard, planned
                shard += 1

    def _planned(self, row: Row, shard: int) -> None:
        id_ = row["utterance_id"]
        if row["shard"] != shard:
            self._say(f"plan: {id_!r} says it is of shard {row['shard']}, and lies in {shard}")
        if self.last_id is not None and id_.encode() <= self.last_id:
            self.twice["plan"] += id_.encode() == self.last_id
            self._say(f"plan: {id_!r} comes after {self.last_id!r}: twice, or not sorted")
        self.last_id = id_.encode()

    def _shard(
        self, table: str, shard: int, planned: list[Row], parts: dict[int, dict[int, Path]] | None
    ) -> dict[Item, Row]:
        """The row that counts of every planned item; says which have none, and which have more than one."""
        if parts is None:
            return {}
        attempts = parts.get(shard, {})
        if 0 not in attempts:
            self._say(f"{table}: shard {shard} has no part")
            self.missing[table] += len(planned) * (len(self.languages or []) if table == "translations" else 1)
            return {}
        wanted = set(self._items(table, planned))
        counts: dict[Item, Row] = {}
        for attempt, path in sorted(attempts.items()):
            rows = self._read(table, path)
            items = [self._item(table, row) for row in rows]
            if [tuple(map(str.encode, item)) for item in items] != sorted(tuple(map(str.encode, i)) for i in items):
                self._say(f"{path}: is not sorted")
            for item, times in Counter(items).items():
                if times > 1:
                    self.twice[table] += times - 1
                    self._say(f"{path}: {item} is there {times} times")
                if item not in wanted:
                    self._say(f"{path}: {item} is not planned for shard {shard}")
            for item, row in zip(items, rows, strict=True):
                if attempt and item in counts and counts[item]["error"] is None:
                    self.twice[table] += row["error"] is None
                    self._say(f"{path}: {item} was without an error already")
                if item not in counts or counts[item]["error"] is not None:
                    counts[item] = row
            if attempt == 0 and (lost := wanted - set(items)):
                self.missing[table] += len(lost)
                self._say(f"{path}: {len(lost)} planned items have no row, such as {min(lost)}")
        for row in counts.values():
            if row["error"] is not None:
                self.errors[table, row["error"].partition(":")[0]] += 1
        by_id = {row["utterance_id"]: row for row in planned}
        if table == "units":
            for (id_,), row in counts.items():
                told = by_id.get(id_, {}).get("error")
                if told is not None and row["error"] != told:
                    self._say(f"units: {id_!r} has {row['error']!r}, its plan {told!r}")
                if row["error"] is not None and row["error"].startswith("bad_manifest_row") and told is None:
                    self._say(f"units: {id_!r} is a bad_manifest_row only here")
        return counts

    def _items(self, table: str, planned: list[Row]) -> Iterator[Item]:
        for row in planned:
            if table == "translations":
                yield from ((row["utterance_id"], language) for language in self.languages or [])
            else:
                yield (row["utterance_id"],)

    def _item(self, table: str, row: Row) -> Item:
        names = ("utterance_id", "target_language") if table == "translations" else ("utterance_id",)
        return tuple(row[name] for name in names)

    def _text(self, table: str, counts: dict[Item, Row], units: dict[Item, Row], retried: bool) -> None:
        """Whether text has no_units exactly where there are none; a retry may have mended the units alone."""
        for item, row in counts.items():
            made = units.get(item[:1])
            without = (row["error"] or "").startswith("no_units")
            if made is not None and without != (made["error"] is not None) and not (without and retried):
                self._say(f"{table}: {item} has {row['error']!r}, its units {made['error']!r}")

    def report(self, tables: list[str]) -> str:
        """A line for each table, and what is wrong."""
        lines = [f"plan: {self.rows['plan']} rows"]
        for table in tables:
            reasons = ", ".join(f"{n} {reason}" for (of, reason), n in sorted(self.errors.items()) if of == table)
            lines.append(
                f"{table}: {self.rows[table]} rows, {self.missing[table]} missing, {self.twice[table]} duplicate, "
                f"errors: {reasons or 'none'}"
            )
        lines += [f"wrong: {line}" for line in self.wrong[:MAX_SHOWN]]
        if len(self.wrong) > MAX_SHOWN:
            lines.append(f"wrong: {len(self.wrong) - MAX_SHOWN} more")
        return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--tables", nargs="+", choices=TABLES, metavar="TABLE")
    parser.add_argument("--languages", nargs="+", metavar="LANG")
    parser.add_argument("--units-from", type=Path, metavar="OUT1")
    options = parser.parse_args(arguments)
    checker = Checker(options.out, options.units_from, options.languages)
    tables = options.tables or [table for table in TABLES if checker._folder(table).is_dir()]
    if not (checker.planned_in / "plan" / "part-00000.parquet").is_file():
        print(f"{checker.planned_in} has no plan", file=sys.stderr)
        return 2
    checker.check(tables)
    print(checker.report(tables))
    return 1 if checker.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
