"""Pass 1 over the shards: what is measured of every pair, and the keys by which pairs are compared with all others."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from spire_ray import filters, outputs, scorers
from spire_ray.checkpoints import Checkpoint, on_this_machine
from spire_ray.commit import SUMMARY, Summary
from spire_ray.dataset_tables import JOINED_MT, MEASURED, MEASURED_SCHEMA, MT_SCHEMA, put
from spire_ray.dedupe import BAND_NAMES, band_keys, hash64, text_key, units_key
from spire_ray.joined import Joined
from spire_ray.measure import TokenCounter, values_of
from spire_ray.pairs import Pair, Text, pairs_of
from spire_ray.recipe import Recipe
from spire_ray.shards import StoreAt, shard_of
from spire_ray.split import recording_key, speaker_key
from spire_ray.store import Store


@dataclass(frozen=True)
class Material:
    """What both passes read and write."""

    run: StoreAt
    dataset: StoreAt
    recipe: Recipe
    fingerprint: str
    tokenizer: Checkpoint | str | None = None  # a checkpoint, or the folder of a tokenizer alone
    scorer_python: str | None = None

    def token_counter(self) -> TokenCounter | None:
        """By the tokenizer, loaded in this process; None without one."""
        return token_counter(self.tokenizer, self.recipe)


def token_counter(tokenizer: Checkpoint | str | None, recipe: Recipe) -> TokenCounter | None:
    """Of the tokenizer of a checkpoint or a folder. UserError when it cannot write the recipe's examples."""
    if tokenizer is None:
        return None
    return TokenCounter(_load_tokenizer(tokenizer), pretraining=recipe.format == "pretraining")


def _load_tokenizer(given: Checkpoint | str) -> Any:
    from transformers import AutoTokenizer

    folder = given if isinstance(given, str) else on_this_machine(given).llm
    assert folder
    return AutoTokenizer.from_pretrained(Path(folder), trust_remote_code=False)


@dataclass(frozen=True)
class Shards:
    """The pairs of a run, shard by shard: the same in both passes."""

    joined: Joined
    dataset: Store
    recipe: Recipe

    @classmethod
    def of(cls, material: Material) -> "Shards":
        """Opened in this process."""
        return cls(Joined(material.run.open()), material.dataset.open(), material.recipe)

    def pairs(self, shard: int) -> list[tuple[Mapping[str, Any], Pair]]:
        """Every pair of a shard beside its row of JOINED, in the order of the plan."""
        recipe = self.recipe
        found = self._of_other_run(shard) if recipe.from_run else {}
        made: list[tuple[Mapping[str, Any], Pair]] = []
        for row in self.joined.shard(shard):
            translations = found.get(row["utterance_id"], {}) if recipe.from_run else recipe.translations
            made += [(row, pair) for pair in pairs_of(row, recipe.tasks, recipe.transcripts, translations)]
        return made

    def _of_other_run(self, shard: int) -> dict[str, dict[str, Text]]:
        found: dict[str, dict[str, Text]] = {}
        for row in outputs.read_part(self.dataset, outputs.part_key(JOINED_MT, shard), MT_SCHEMA.names).to_pylist():
            text = Text(row["text"], tuple(row["flags"] or ()), row["avg_logprob"])
            found.setdefault(row["utterance_id"], {})[row["language"]] = text
        return found


class MeasurePairs:
    """A shard's pairs measured, filtered by themselves, and committed as `work/measured/part-NNNNN.parquet`.

    Input columns: shard, attempt. Output columns: those of `commit.Summary` but ready_at.
    """

    def __init__(self, material: Material) -> None:
        self.material = material
        self.shards = Shards.of(material)
        self.store = material.dataset.open()
        self.counter = material.token_counter()
        name = material.recipe.scorer
        self.scorer = scorers.load(name, material.scorer_python) if name else None

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's descriptor to its summary."""
        began = time.monotonic()
        shard, _ = shard_of(row)
        pairs = self.shards.pairs(shard)
        put(self.store, MEASURED, shard, self.measured(pairs), MEASURED_SCHEMA, self.material.fingerprint)
        return summary(row, pairs, began)

    def measured(self, pairs: Sequence[tuple[Mapping[str, Any], Pair]]) -> list[dict[str, Any]]:
        """Rows of MEASURED_SCHEMA, one a pair."""
        rows = [self._row(row, pair) for row, pair in pairs]
        asked = [at for at, (_, pair) in enumerate(pairs) if pair.lack is None and self._lost(rows[at]) is None]
        self._score([(pairs[at][1], rows[at]) for at in asked])  # last: it costs more than all others
        for (_, pair), row in zip(pairs, rows, strict=True):
            if pair.lack is None:
                lost = self._lost(row)
                row |= self._keys(pair) if lost is None else {"reason": lost[0], "detail": lost[1]}
        return rows

    def _lost(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        recipe = self.material.recipe
        return filters.first_reason(row, recipe.all_bounds, recipe.allowed_flags)

    def _row(self, row: Mapping[str, Any], pair: Pair) -> dict[str, Any]:
        measured: dict[str, Any] = {
            "utterance_id": pair.utterance_id,
            "language": pair.language,
            "corpus": row["corpus"],
            "duration_s": row["duration_s"],
            "recording": recording_key(row),
            "speaker": speaker_key(row),
            "utterance": hash64(pair.utterance_id),
            "draw": hash64(pair.utterance_id, pair.language or ""),
        }
        if pair.lack:
            return measured | {"reason": pair.lack[0], "detail": pair.lack[1]}
        if self.counter:
            measured["tokens"] = max(self.counter.counts(pair, self.material.recipe.tasks))
        return measured | values_of(pair, row)

    def _score(self, pairs: Sequence[tuple[Pair, dict[str, Any]]]) -> None:
        """`qe` of the pairs that have both texts."""
        if self.scorer is None:
            return
        rows, asked = [], []
        for pair, row in pairs:
            if pair.transcript and pair.translation and pair.language:
                rows.append(row)
                asked.append((pair.transcript.text, pair.translation.text, (pair.source, pair.language)))
        for row, score in zip(rows, scorers.scored(self.scorer, asked), strict=True):
            row["qe"] = score

    def _keys(self, pair: Pair) -> dict[str, Any]:
        """The keys of the kinds of duplicates that are looked for."""
        kinds, language = self.material.recipe.dedupe, pair.language or ""
        transcript = pair.transcript.text if pair.transcript else None
        translation = pair.translation.text if pair.translation else None
        keys: dict[str, Any] = {}
        if "text" in kinds:
            keys["text_key"] = text_key(language, transcript, translation)
        if "units" in kinds and pair.units is not None:
            keys["units_key"] = units_key(language, pair.units)
        if "near" in kinds:
            text = transcript if transcript is not None else translation or ""
            keys |= dict(zip(BAND_NAMES, band_keys(language, text), strict=True))
        return keys


def summary(row: pa.Table, pairs: Sequence[tuple[Mapping[str, Any], Pair]], began: float) -> pa.Table:
    """The one row that travels back to the driver: what was done, without `ready_at`, which the driver's wrap adds."""
    shard, attempt = shard_of(row)
    seconds = {pair.utterance_id: its["duration_s"] or 0.0 for its, pair in pairs}
    told = Summary(
        shard=shard,
        attempt=attempt,
        utterances=len(seconds),
        audio_s=sum(seconds.values()),
        reasons=[],
        faults=[],
        ready_at=0.0,
        committed_at=time.time(),
        busy_s=time.monotonic() - began,
    )
    return pa.Table.from_pylist([vars(told)], schema=SUMMARY).drop_columns(["ready_at"])
