"""Pass 2 over the shards: the pairs that are kept as examples of train and dev, the others with their reason."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from spire_ray import outputs
from spire_ray.dataset_tables import (
    DECIDED,
    DEV,
    DROPPED,
    DROPPED_SCHEMA,
    INSTRUCTIONS,
    MEASURED,
    PRETRAINING,
    TEXT,
    TRAIN,
    VALUES,
    WRITTEN,
    WRITTEN_SCHEMA,
    put,
)
from spire_ray.dedupe import hash64
from spire_ray.errors import MachineFault
from spire_ray.measure_stage import Material, Shards, summary
from spire_ray.pairs import Pair, examples
from spire_ray.shards import shard_of
from spire_ray.split import in_dev
from spire_ray.text_mix import is_short

MEASURED_COLUMNS = ["utterance_id", "language", "corpus", *VALUES.names, "detail"]
Row = dict[str, Any]


class WriteExamples:
    """A shard's examples committed: dropped, dev and train where there are any, then `work/written`: it is done.

    An empty part would be no harm but for datasets 4, which cannot read it.

    Input columns: shard, attempt. Output columns: those of `commit.Summary` but ready_at.
    """

    def __init__(self, material: Material) -> None:
        self.material = material
        self.recipe = material.recipe
        self.shards = Shards.of(material)
        self.store = material.dataset.open()
        self.counter = material.token_counter()
        self.schema = PRETRAINING if self.recipe.format == "pretraining" else INSTRUCTIONS

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its summary."""
        began = time.monotonic()
        shard, _ = shard_of(row)
        pairs = self.shards.pairs(shard)
        self._commit(shard, *self.split(shard, pairs))
        return summary(row, pairs, began)

    def split(self, shard: int, pairs: Sequence[tuple[Mapping[str, Any], Pair]]) -> tuple[list[Row], ...]:
        """Rows of train, dev and dropped: examples in the order of a seeded hash, what was dropped in the plan's."""
        train: list[Row] = []
        dev: list[Row] = []
        dropped: list[Row] = []
        for pair, measured, decided in self._aligned(shard, pairs):
            if decided["reason"] is not None:
                dropped.append(measured | {"reason": decided["reason"]})
            else:
                (dev if decided["dev"] else train).extend(self._examples(pair, measured))
        if self.recipe.text:
            self._add_text(shard, train, dev, dropped)
        for rows in (train, dev):
            rows.sort(key=lambda row: hash64(str(self.recipe.seed), row["utterance_id"], row["language"], row["task"]))
        return train, dev, dropped

    def _aligned(
        self, shard: int, pairs: Sequence[tuple[Mapping[str, Any], Pair]]
    ) -> Iterator[tuple[Pair, Row, Mapping[str, Any]]]:
        measured = outputs.read_part(self.store, outputs.part_key(MEASURED, shard), MEASURED_COLUMNS).to_pylist()
        decided = outputs.read_part(self.store, outputs.part_key(DECIDED, shard)).to_pylist()
        if [(row["utterance_id"], row["language"]) for row in measured] != [
            (pair.utterance_id, pair.language) for _, pair in pairs
        ]:
            raise MachineFault(f"shard {shard} of {self.shards.joined.text_run.url} has changed since it was measured")
        return zip((pair for _, pair in pairs), measured, decided, strict=True)

    def _examples(self, pair: Pair, measured: Row) -> Iterator[Row]:
        pretraining = self.recipe.format == "pretraining"
        made = examples(pair, self.recipe.tasks, pretraining=pretraining)
        counts = self.counter.counts(pair, self.recipe.tasks) if self.counter else [None] * len(made)
        kept = {name: value for name, value in measured.items() if name != "detail"}
        for example, tokens in zip(made, counts, strict=True):
            value = example.value
            written = {"text": value} if isinstance(value, str) else value.as_json()
            yield kept | {"task": example.task, "tokens": tokens} | written

    def _add_text(self, shard: int, train: list[Row], dev: list[Row], dropped: list[Row]) -> None:
        rows = outputs.read_part(self.store, outputs.part_key(TEXT, shard)).to_pylist()
        keys = pa.array([hash64(row["utterance_id"]) for row in rows], pa.uint64()).to_numpy()
        for row, is_dev in zip(rows, in_dev(keys, self.recipe.dev, self.recipe.seed), strict=True):
            row = {**row, "language": "", "task": "text"}
            if not is_short(row, self.recipe):
                told = {name: row[name] for name in ("utterance_id", "language", "tokens")}
                dropped.append(told | {"reason": "tokens", "detail": f"{row['tokens']} in a line of text"})
            else:
                (dev if is_dev else train).append(row)

    def _commit(self, shard: int, train: list[Row], dev: list[Row], dropped: list[Row]) -> None:
        mark = self.material.fingerprint
        if dropped:
            put(self.store, DROPPED, shard, dropped, DROPPED_SCHEMA, mark)
        for split, rows in ((DEV, dev), (TRAIN, train)):
            if rows and self.recipe.jsonl:
                key = outputs.part_key(split, shard).replace(".parquet", ".jsonl")
                self.store.create(key, jsonl(rows, self.schema.names[4]))
            if rows:
                put(self.store, split, shard, rows, self.schema, mark)
        counts = [*_counts(TRAIN, train), *_counts(DEV, dev)]
        put(self.store, WRITTEN, shard, counts, WRITTEN_SCHEMA, mark)


def _counts(split: str, rows: Sequence[Row]) -> Iterator[Row]:
    for task in sorted({row["task"] for row in rows}):
        tokens = [row["tokens"] for row in rows if row["task"] == task]
        total = None if None in tokens else sum(tokens)
        yield {"split": split, "task": task, "examples": len(tokens), "tokens": total}


def jsonl(rows: Sequence[Mapping[str, Any]], column: str) -> bytes:
    """A line for each example: `{"conversations": [...]}` as the authors' files have it, or `{"text": ...}`."""
    lines = (json.dumps({column: row[column]}, ensure_ascii=False) + "\n" for row in rows)
    return "".join(lines).encode()
