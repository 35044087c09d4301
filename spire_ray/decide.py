"""What is decided over all shards at once: duplicates, what is drawn, and train or dev.

One column of all pairs is in memory at a time, 8 bytes a pair, beside three of 1 to 2 bytes; no row and no text is.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spire_ray import dedupe, draw, outputs, split
from spire_ray.dataset_tables import DECIDED, DECIDED_SCHEMA, MEASURED, put
from spire_ray.errors import one_line
from spire_ray.filters import REASONS
from spire_ray.recipe import Recipe
from spire_ray.store import Store

READERS = 16  # parts read at once
KEPT = -1
_CODES = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Columns:
    """The columns of all parts of `work/measured`, each as one array over all shards [N]."""

    store: Store
    shards: int

    def parts(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Those columns of each shard, in order."""

        def read(shard: int) -> pa.Table:
            return outputs.read_part(self.store, outputs.part_key(MEASURED, shard), names)

        # Not pool.map over all of them, which would hold every part that the loop has not come to.
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, self.shards, READERS):
                yield from pool.map(read, range(start, min(start + READERS, self.shards)))

    def keys(self, name: str) -> tuple[dedupe.Keys, dedupe.Mask]:
        """uint64 [N], 0 where it is null, and where it is not."""
        arrays, valid = [np.empty(0, np.uint64)], [np.empty(0, np.bool_)]
        for part in self.parts([name]):
            column = part.column(name)
            valid.append(column.is_valid().to_numpy())
            arrays.append(pc.fill_null(column, 0).to_numpy().astype(np.uint64, copy=False))
        return np.concatenate(arrays), np.concatenate(valid)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """float64 [N], nan where it is null."""
        arrays = [part.column(name).cast(pa.float64()).to_numpy() for part in self.parts([name])]
        return np.concatenate([np.empty(0), *arrays])

    def codes(self, name: str) -> tuple[draw.Codes, list[str | None]]:
        """Strings as int16 [N] and what they mean."""
        names: dict[str | None, int] = {}
        arrays = [np.empty(0, np.int16)]
        for part in self.parts([name]):
            encoded = part.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
            encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
            codes = [names.setdefault(value, len(names)) for value in encoded.dictionary.to_pylist()]
            arrays.append(np.array(codes, np.int16)[encoded.indices.to_numpy()] if codes else arrays[0])
        return np.concatenate(arrays), list(names)

    def sizes(self) -> list[int]:
        """Pairs of each shard."""
        return [part.num_rows for part in self.parts(["reason"])]


def decide(store: Store, shards: int, recipe: Recipe, fingerprint: str) -> None:
    """Put `work/decided/part-NNNNN.parquet` for each shard: DECIDED_SCHEMA, aligned with `work/measured`."""
    columns = Columns(store, shards)
    found, names = columns.codes("reason")
    own = np.array([KEPT if name is None else _CODES[name] for name in names], np.int16)
    reasons = own[found] if len(found) else found
    # Weights first: a sentence that a corpus without weight has too is no duplicate.
    _weighted(columns, recipe, reasons)
    _duplicates(columns, recipe, reasons)
    _drawn(columns, recipe, reasons)
    dev = np.zeros(len(reasons), np.bool_)
    if recipe.dev:
        component = split.components(columns.keys("recording")[0], columns.keys("speaker")[0])
        dev = split.in_dev(component, recipe.dev, recipe.seed)
    values = pa.array([*REASONS, None], pa.string())
    start = 0
    for shard, size in enumerate(columns.sizes()):
        end = start + size
        table = pa.table({"reason": values.take(pa.array(reasons[start:end] % len(values))), "dev": dev[start:end]})
        put(store, DECIDED, shard, table, DECIDED_SCHEMA, fingerprint)
        start = end


def _duplicates(columns: Columns, recipe: Recipe, reasons: draw.Codes) -> None:
    for kind, name in (("text", "text_key"), ("units", "units_key")):
        if kind in recipe.dedupe:
            keys, valid = columns.keys(name)
            reasons[dedupe.later_of_equal(keys, (reasons == KEPT) & valid)] = _CODES[f"duplicate_{kind}"]
    if "near" in recipe.dedupe:
        kept = reasons == KEPT  # each of these has all bands
        bands = (columns.keys(name)[0] for name in dedupe.BAND_NAMES)
        reasons[dedupe.near_duplicates(bands, kept)] = _CODES["near_duplicate"]


def _weighted(columns: Columns, recipe: Recipe, reasons: draw.Codes) -> None:
    if recipe.weights:
        corpora, names = columns.codes("corpus")
        for name in sorted(recipe.weights.keys() - set(names)):
            print(f"spire-ray: --weights {one_line(name)}: no utterance is of such a corpus", file=sys.stderr)
        outside = draw.outside_weights(columns.keys("utterance")[0], corpora, names, recipe.weights, recipe.seed)
        reasons[outside & (reasons == KEPT)] = _CODES["weight"]


def _drawn(columns: Columns, recipe: Recipe, reasons: draw.Codes) -> None:
    if recipe.per_language is not None:
        scores = columns.numbers(recipe.top_k) * draw.BEST_FIRST[recipe.top_k] if recipe.top_k else None
        languages, _ = columns.codes("language")
        keys, _ = columns.keys("draw")
        left = draw.not_drawn(keys, languages, reasons == KEPT, recipe.per_language, recipe.seed, scores)
        reasons[left] = _CODES["not_drawn"]
