"""`spire-ray build-dataset OUT DATASET`: a run's tables to a training set, top to bottom.

    OUT ─> pairs measured, shard by shard ─> work/measured
                                                │
           duplicates, draws, train or dev, over all pairs: columns of 8 bytes ─> work/decided
                                                │
    OUT ─> examples, shard by shard ─> train/, dev/, dropped/ ─> README.md, funnel.png, dataset.json

Every part is put create-only and equal input gives equal bytes, so that the same command after an interruption does
what is missing. dataset.json is last.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from spire_ray import __version__, funnel, outputs, pipeline, scorers
from spire_ray.checkpoints import Checkpoint
from spire_ray.dataset_card import card, without_scores
from spire_ray.dataset_tables import DECIDED, DEV, MEASURED, TRAIN, WRITTEN, there
from spire_ray.decide import decide
from spire_ray.driver import Driver
from spire_ray.errors import UserError
from spire_ray.frozen import fingerprint, freeze
from spire_ray.joined import Joined
from spire_ray.locations import absolute, etag_of, locate
from spire_ray.measure_stage import Material, MeasurePairs, token_counter
from spire_ray.mt_join import check_translations, join_translations
from spire_ray.plan import Plan, Shard
from spire_ray.progress import Progress
from spire_ray.recipe import Recipe, tokenizer_identity
from spire_ray.records import load_json
from spire_ray.shards import StoreAt
from spire_ray.store import Store
from spire_ray.text_mix import check_text, mix
from spire_ray.write_stage import WriteExamples

SHARDS_HERE = 8  # so many are done in this process; Ray takes some 10 s to start
_NAMES = frozenset(("README.md", "funnel.png", "dataset.json", "train", "dev", "dropped", "work"))  # of what is put
SLOWEST_PAIRS = 5.0  # a second: below, a stage is taken for dead


@dataclass(frozen=True)
class Build:
    """What is asked for, and where."""

    out: str
    dataset: str
    recipe: Recipe
    tokenizer: Checkpoint | str | None = None  # what counts tokens: a checkpoint, or the folder of a tokenizer
    scorer_python: str | None = None
    address: str | None = None  # of a Ray cluster
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def build(asked: Build) -> dict[str, Any]:
    """Make the training set, or what is missing of it. Returns dataset.json. UserError before anything is written."""
    joined = Joined(Store(asked.out, asked.storage_options))
    store = Store(asked.dataset, asked.storage_options)
    recipe = replace(asked.recipe, text=tuple(map(absolute, asked.recipe.text)))
    if recipe.from_run:
        recipe = replace(recipe, translations=absolute(recipe.translations))
    runs = {joined.text_run.url, joined.units_run.url}
    if recipe.from_run:
        runs.add(Store(recipe.translations, asked.storage_options).url)
    if store.url in runs:
        raise UserError(f"{store.url} is a run that is read: give DATASET a folder of its own")
    store.check_writable()
    settings = _settings(asked, joined, recipe)
    _check_own(store)
    mark = freeze(store, "settings.json", settings, {"out": joined.text_run.url})
    if done := load_json(store, "dataset.json"):
        return done
    material = Material(_at(joined.text_run), _at(store), recipe, mark, asked.tokenizer, asked.scorer_python)
    if recipe.from_run:
        join_translations(joined, Store(recipe.translations, asked.storage_options), store, recipe, mark)
    with Driver("build-dataset", asked.address) as driver:
        plan = joined.plan
        _run(driver, store, plan, MEASURED, material)
        decide(store, plan.shards, recipe, mark)
        text = _mix(store, plan, material)
        _run(driver, store, plan, WRITTEN, material)
    return _finish(store, plan, settings, mark, text)


def _settings(asked: Build, joined: Joined, recipe: Recipe) -> dict[str, Any]:
    """All that decides what comes out, in settings.json; reads OUT and writes nothing."""
    source, text = joined.units_run, joined.text_run
    runs = {"units": source, "transcripts": text, "translations": text}
    parts = {table: sorted(map(list, outputs.committed(run, table).items())) for table, run in runs.items()}
    made = {name: load_json(run, f"{name}.json") for name, run in (("units", source), ("text", text))}
    check_text(recipe.text, asked.storage_options)
    counter = token_counter(asked.tokenizer, recipe)  # or a UserError, while nothing is written
    return {
        "recipe": recipe.frozen(),
        "run": {
            "plan": joined.plan.fingerprint,
            **{name: settings["fingerprint"] if settings else None for name, settings in made.items()},
            # A run that goes on, or is retried, makes another training set.
            "parts": _digest(parts),
        },
        "translations_run": _digest(check_translations(Store(recipe.translations, asked.storage_options)))
        if recipe.from_run
        else None,
        "text": [_etag(file, asked.storage_options) for file in recipe.text],
        "tokenizer": tokenizer_identity(counter.tokenizer) if counter else None,
        "scorer": scorers.identity(recipe.scorer, asked.scorer_python) if recipe.scorer else None,
    }


def _check_own(store: Store) -> None:
    """UserError where DATASET has files of somebody else: nothing is put over them, and they would pass for its own."""
    names = store.find("")
    if "settings.json" not in names and (others := sorted(_NAMES.intersection(names))):
        raise UserError(
            f"{store.url} has a {others[0]} that is not of a training set: give DATASET a folder of its own"
        )


def _digest(told: Mapping[str, Any]) -> str:
    return fingerprint(told)[:16]


def _etag(file: str, storage_options: Mapping[str, Any]) -> str | None:
    fs, path = locate(file, storage_options)
    return etag_of(fs, fs.info(path))


def _run(driver: Driver, store: Store, plan: Plan, table: str, material: Material) -> None:
    """Have every shard done that `table` lacks: in this process, or by Ray where there are many."""
    shards = plan.without(there(store, table))
    stage = MeasurePairs if table == MEASURED else WriteExamples
    if len(shards) <= SHARDS_HERE and driver.address is None:
        made = stage(material) if shards else None
        for shard in shards:
            assert made
            made(_descriptor(shard))
        return
    patience_s = max(shard.utterances for shard in shards) / SLOWEST_PAIRS if shards else 0.0
    if shards:
        dataset = pipeline.tables_to_training_set(driver, shards, stage, material)
        driver.run(dataset, Progress.of("measure" if table == MEASURED else "write", plan, shards), patience_s)


def _descriptor(shard: Shard) -> pa.Table:
    return pa.table({"shard": pa.array([shard.index], pa.int32()), "attempt": pa.array([0], pa.int32())})


def _mix(store: Store, plan: Plan, material: Material) -> dict[str, Any] | None:
    if not material.recipe.text:
        return None
    lines = [
        pc.sum(outputs.read_part(store, outputs.part_key(DECIDED, shard)).column("reason").is_null()).as_py() or 0
        for shard in range(plan.shards)
    ]
    return asdict(mix(store, material.recipe, lines, material.token_counter(), material.fingerprint))


def _finish(
    store: Store, plan: Plan, settings: Mapping[str, Any], mark: str, text: dict[str, Any] | None
) -> dict[str, Any]:
    rows = funnel.Funnel.of(store, plan.shards).as_json()
    told = {
        "settings": dict(settings),
        "fingerprint": mark,
        "counts": _counts(store, plan),
        "funnel": rows,
        "text": text,
        "spire_ray": __version__,
    }
    store.create("funnel.png", funnel.picture(rows))
    store.create("README.md", card(told).encode())
    store.create("dataset.json", (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())
    return told


def _counts(store: Store, plan: Plan) -> dict[str, Any]:
    """Examples and tokens of train and dev, by task."""
    splits: dict[str, dict[str, Any]] = {split: {"examples": 0, "tasks": {}} for split in (TRAIN, DEV)}
    for shard in range(plan.shards):
        for row in outputs.read_part(store, outputs.part_key(WRITTEN, shard)).to_pylist():
            counted = splits[row["split"]]
            counted["examples"] += row["examples"]
            told = counted["tasks"].setdefault(row["task"], {"examples": 0, "tokens": 0})
            told["examples"] += row["examples"]
            known = told["tokens"] is not None and row["tokens"] is not None
            told["tokens"] = told["tokens"] + row["tokens"] if known else None
    return splits


def show(told: Mapping[str, Any], console: Console) -> None:
    """The funnel and what the splits have."""
    funnel.show(told["funnel"], console)
    if unmeasured := without_scores(told["settings"]):
        console.print(unmeasured, highlight=False, soft_wrap=True)
    share = told["settings"]["recipe"]["dev"]
    if share and not told["counts"][DEV]["examples"]:
        few = (
            f"dev: nothing, as no group of speakers and recordings fell into the share of {share:g}: try another --seed"
        )
        console.print(few, highlight=False, soft_wrap=True)
    for split, counted in told["counts"].items():
        for task, numbers in counted["tasks"].items():
            tokens = "" if numbers["tokens"] is None else f", {numbers['tokens']:,} tokens"
            console.print(f"{split}: {numbers['examples']:,} examples of {task}{tokens}", highlight=False)


def _at(store: Store) -> StoreAt:
    return StoreAt(store.url, store.storage_options)
