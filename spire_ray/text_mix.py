"""Lines of text for continued pre-training: so many to a line of speech, drawn by a seeded hash.

Text corpora are read twice as a stream, so that memory holds 8 bytes a line: once to see which hashes are drawn, once
for the lines themselves, which go to the shards in proportion to their lines of speech.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spire_ray import manifest
from spire_ray.dataset_tables import TEXT, TEXT_SCHEMA, put, there
from spire_ray.dedupe import Keys, hash64
from spire_ray.errors import RowFault, UserError
from spire_ray.locations import locate, patiently
from spire_ray.measure import TokenCounter
from spire_ray.parquet import open_parquet
from spire_ray.recipe import Recipe
from spire_ray.split import mixed
from spire_ray.store import Store

KINDS = ("txt", "jsonl", "csv", "tsv", "psv", "parquet")


@dataclass(frozen=True)
class Mixed:
    """What came of the text corpora: for dataset.json."""

    lines: int  # with text
    without_text: int  # empty or damaged
    asked: int
    drawn: int
    too_long: int  # of those that were drawn: over the bound on tokens


def check_text(files: Sequence[str], storage_options: Mapping[str, Any]) -> None:
    """UserError for a file that is none of KINDS or has no column of text."""
    for file in files:
        next(_texts(file, storage_options), None)


def mix(
    store: Store, recipe: Recipe, speech_lines: Sequence[int], counter: TokenCounter | None, fingerprint: str
) -> Mixed:
    """Put `work/text/part-NNNNN.parquet` (TEXT_SCHEMA) for each shard; `speech_lines`: those it has of speech."""
    asked = round(recipe.text_ratio * sum(speech_lines))
    unusable: Counter[str] = Counter()
    hashes = np.fromiter((key for key, _, _ in _lines(recipe, store, unusable)), np.uint64)
    chances = mixed(hashes, recipe.seed, "text")
    count = min(asked, len(chances))
    limit = np.partition(chances, count - 1)[count - 1] if count else None
    done = there(store, TEXT)
    # Shard i gets the lines up to its share of all that are drawn.
    ends = np.rint(np.cumsum(speech_lines) / max(1, sum(speech_lines)) * count).astype(int).tolist()
    drawn = _drawn(_lines(recipe, store, Counter()), chances, limit)
    taken = too_long = 0
    for shard, end in enumerate(ends):
        rows = [_row(*next(drawn), counter) for _ in range(end - taken)]
        taken = end
        too_long += sum(not is_short(row, recipe) for row in rows)
        if shard not in done:
            put(store, TEXT, shard, rows, TEXT_SCHEMA, fingerprint)
    return Mixed(len(hashes), unusable.total(), asked, count, too_long)


def is_short(row: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a line of text keeps to the bounds on tokens."""
    return all(bound.holds(row) for bound in recipe.all_bounds if bound.name == "tokens")


def _drawn(lines: Iterator[tuple[int, str, str]], chances: Keys, limit: Any) -> Iterator[tuple[str, str]]:
    for chance, (_, name, text) in zip(chances, lines, strict=True):
        if limit is not None and chance <= limit:
            yield name, text


def _row(name: str, text: str, counter: TokenCounter | None) -> dict[str, Any]:
    return {"utterance_id": name, "text": text, "tokens": counter.count(text) if counter else None}


def _lines(recipe: Recipe, store: Store, unusable: Counter[str]) -> Iterator[tuple[int, str, str]]:
    """Key, id and text of every line; the key is of place and text, so that equal lines have different ones.

    `unusable` counts the others, by file: billions of lines may be blank.
    """
    for file in recipe.text:
        for number, text in enumerate(_texts(file, store.storage_options)):
            name = f"{file}#{number}"
            if text is None:
                unusable[file] += 1
            else:
                yield hash64(name, text), name, text


def _texts(file: str, storage_options: Mapping[str, Any]) -> Iterator[str | None]:
    """The text of each row; None where it is empty or damaged."""
    fs, path = locate(file, storage_options)
    try:
        kind = patiently(file, lambda: manifest.kind_of(fs, path))
    except FileNotFoundError:
        raise UserError(f"--text {file} does not exist") from None
    if kind not in KINDS:
        raise UserError(f"--text {file} is not a file of the types read: .txt, JSONL, CSV, TSV, Parquet")
    with manifest.opened(fs, path) as opened:
        if kind == "parquet":
            open_parquet(opened, path)
            opened.seek(0)
        for record in manifest.records(opened, kind):
            column = manifest.parts(tuple(record.values)).columns.get("source")
            if column is None and not record.problem:
                accepted = ", ".join(manifest.NAMES["source"])
                raise UserError(f"--text {file}, {record.where} has no text column: accepted are {accepted}")
            yield _text(record.values, column)


def _text(values: Mapping[str, Any], column: str | None) -> str | None:
    try:
        text = manifest.text(values, column)
    except RowFault:
        return None
    return text if text and text.strip() else None
