"""The commands as functions: settle the settings, plan, subtract what is committed, run the rest, write the records.

Whatever a user can get wrong is checked before anything is written.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from spire_ray import outputs, pipeline
from spire_ray.checkpoints import LLM, NAMED, PARTS, Checkpoint, Part, check_languages, resolve
from spire_ray.corpus import read_text_corpus
from spire_ray.cut import cut, cut_text
from spire_ray.driver import NOTHING_MORE, Driver
from spire_ray.encode import check_codebook
from spire_ray.engine import EngineSettings
from spire_ray.errors import UserError
from spire_ray.frozen import freeze
from spire_ray.job_part import WHOLE, JobPart
from spire_ray.locations import absolute
from spire_ray.plan import Plan, Shard, load_plan
from spire_ray.planning import AudioOptions, asked_for, plan_audio, put_plan, rows_of, shard_minutes
from spire_ray.pools import text_pools, unit_pools
from spire_ray.progress import Progress
from spire_ray.records import load_json, plan_of, units_run, write_records
from spire_ray.resources import Wanted
from spire_ray.retry import text_to_retry, units_to_retry
from spire_ray.settings import ENGINE, Encoding, EngineOptions, Generation
from spire_ray.shards import LoadText, LoadUnits, StoreAt
from spire_ray.store import Store
from spire_ray.survey import Survey
from spire_ray.tasks import TextTasks, check_tasks
from spire_ray.vocabulary import check_vocabulary
from spire_ray.without_gpus import slowness

ENCODER_DTYPE = {"cuda": "float16", "cpu": "float32"}
# How slow a stage may be before it is taken for dead: audio per second, and generated tokens per second of an engine.
SLOWEST_RTFX = 0.05
SLOWEST_TOKENS = {"cuda": 100.0, "cpu": 1.0}


@dataclass(frozen=True)
class DriverOptions:
    """Where a driver runs, which shards are its own, and how it opens CORPUS and OUT."""

    address: str | None = None  # of a Ray cluster; None: this machine alone
    part: JobPart = WHOLE
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # fsspec's, without credentials
    gpus_per_encoder: float = 1.0  # 0.5: two encoders share a GPU
    wanted: Wanted = NOTHING_MORE  # than Ray has, of its autoscaler

    def driver(self, command: str) -> Driver:
        """A driver of `command` there."""
        return Driver(command, self.address, str(self.part), self.wanted)


HERE = DriverOptions()


def speech_to_text(
    corpus: str,
    out: str,
    checkpoint: str,
    tasks: TextTasks,
    audio: AudioOptions,
    on: DriverOptions = HERE,
    engine: EngineOptions = ENGINE,
) -> None:
    """CORPUS to units, transcripts and translations in OUT."""
    with _driver("speech-to-text", out, on, engine) as (driver, store):
        found = _resolve(driver, store, checkpoint, PARTS)
        encoding = encoding_of(found, audio)
        check_tasks(found, tasks)
        check_vocabulary(found, clusters=encoding.clusters)
        plan = plan_audio(driver, store, corpus, audio, on.part)
        _encode(driver, store, plan, encoding, on)
        _generate(driver, store, store, plan, Generation(found, tasks, engine), on.part)


def tokenize(corpus: str, out: str, encoding: Encoding, audio: AudioOptions, on: DriverOptions = HERE) -> None:
    """CORPUS to units in OUT."""
    check_codebook(encoding.encoder, encoding.codebook, encoding.layer)
    with _driver("tokenize", out, on) as (driver, store):
        _encode(driver, store, plan_audio(driver, store, corpus, audio, on.part), encoding, on)


def plan(corpus: str, out: str, audio: AudioOptions, on: DriverOptions = HERE) -> Plan:
    """CORPUS to the plan of OUT alone: what the other commands do first."""
    with _driver("plan", out, on) as (driver, store):
        return plan_audio(driver, store, corpus, audio, on.part)


def survey(corpus: str, out: str, audio: AudioOptions, on: DriverOptions = HERE) -> Survey:
    """What the plan of CORPUS would be, written nowhere; with --segment, of the recordings before they are cut."""
    store = Store(out, on.storage_options)
    store.check_writable()
    with on.driver("plan") as driver:
        asked_for(store, corpus, audio)
        rows = rows_of(driver, store, corpus, audio)
        return Survey.of(cut(rows, shard_minutes(driver, audio)), audio.max_seconds)


def generate(
    out: str,
    to: str | None,
    checkpoint: str,
    tasks: TextTasks,
    on: DriverOptions = HERE,
    engine: EngineOptions = ENGINE,
) -> None:
    """The units in OUT to transcripts and translations, in OUT or in TO."""
    source = Store(out, on.storage_options)
    plan = plan_of(source)
    units = load_json(source, "units.json")
    if units is None or (missing := len(on.part.own(plan.without(outputs.committed(source, "units"))))):
        raise UserError(
            f"{out}: {missing if units else 'all'} of {plan.shards} shards lack units: finish tokenize first"
        )
    with _driver("generate", to or out, on, engine) as (driver, store):
        if store.url != source.url and load_plan(store) is not None:
            raise UserError(f"{store.url} holds a run of its own: give --to a new folder")
        found = _resolve(driver, store, checkpoint, LLM)
        check_tasks(found, tasks)
        check_vocabulary(found, units["settings"]["clusters"])
        _generate(driver, source, store, plan, Generation(found, tasks, engine), on.part)


def translate(
    corpus: str,
    out: str,
    checkpoint: str,
    tasks: TextTasks,
    on: DriverOptions = HERE,
    engine: EngineOptions = ENGINE,
) -> None:
    """A text corpus to translations in OUT."""
    with _driver("translate", out, on, engine) as (driver, store):
        found = _resolve(driver, store, checkpoint, LLM)
        check_languages(found, [tasks.source_language])
        check_tasks(found, tasks)
        check_vocabulary(found, clusters=None)
        settings = {"text_corpus": absolute(corpus), "source_language": tasks.source_language}
        plan = load_plan(store)
        if plan is None:
            rows = read_text_corpus(corpus, source_language=tasks.source_language, storage_options=on.storage_options)
            check_languages(found, sorted(set(pc.unique(rows.column("source_language")).drop_null().to_pylist())))
            driver.doing(f"planning, {rows.num_rows:,} rows")
            plan = put_plan(store, cut_text(rows), settings)
        plan.refuse_other(store, settings)
        _generate(driver, store, store, plan, Generation(found, tasks, engine), on.part)


def retry(out: str, on: DriverOptions = HERE) -> None:
    """The error rows of OUT again, with the settings they were made with: adds `.r1` parts, touches no old one."""
    source = units_run(Store(out, on.storage_options))
    plan = plan_of(source)
    with _driver("retry", out, on) as (driver, store):
        if units := load_json(store, "units.json"):
            encoding = Encoding.of(units)
            mark = freeze(store, "units.json", encoding.frozen(plan))
            _run_units(driver, store, plan, encoding, mark, on.part.own(units_to_retry(store, plan)))
        if text := load_json(store, "text.json"):
            generation = Generation.of(text)
            mark = freeze(store, "text.json", generation.frozen(_made_from(source, store, plan)), generation.places())
            shards = on.part.own(text_to_retry(source, store, generation.tables, plan))
            _run_text(driver, source, store, plan, generation, mark, shards)


def encoding_of(checkpoint: Checkpoint, audio: AudioOptions) -> Encoding:
    """The encoder, layer and codebook a checkpoint was trained with. UserError when they do not fit each other."""
    if checkpoint.encoder is None or checkpoint.codebook is None:
        raise UserError(f"{checkpoint.name} translates text, not speech: it has no encoder and no codebook")
    encoder, codebook = str(checkpoint.encoder), str(checkpoint.codebook)
    check_codebook(encoder, codebook, checkpoint.layer)
    return Encoding(encoder, codebook, checkpoint.layer, audio.dtype, audio.max_seconds)


@contextmanager
def _driver(
    command: str, out: str, on: DriverOptions, engine: EngineOptions = ENGINE
) -> Iterator[tuple[Driver, Store]]:
    """A driver for a run in OUT. What it did before an error or a stop is written down too."""
    store = Store(out, on.storage_options)
    store.check_writable()
    with on.driver(command) as driver, driver.beats_in(store):
        if engine.needs_gpus:
            engine.check_fits(driver.aim.gpus)
        try:
            yield driver, store
        except BaseException:
            if driver.stages:
                write_records(driver, store)
            raise
        write_records(driver, store)


def _resolve(driver: Driver, store: Store, checkpoint: str, need: Collection[Part]) -> Checkpoint:
    """The checkpoint; a named one at the revision that a run already has, whatever the hub's newest is."""
    text = load_json(store, "text.json")
    if text:  # a run that goes on: its input was found good, and fetching may take minutes on a new machine
        driver.doing(f"looking for {checkpoint}")
    began_with = text and text["settings"]["checkpoint"] == checkpoint in NAMED
    found = resolve(checkpoint, need=need, revision=text["settings"]["revision"] if text and began_with else None)
    if text:
        driver.doing("starting")
    return found


def _encode(driver: Driver, store: Store, plan: Plan, encoding: Encoding, on: DriverOptions) -> None:
    done = load_json(store, "units.json")
    encoding = encoding.settled(done["settings"]["dtype"] if done else ENCODER_DTYPE[driver.device])
    mark = freeze(store, "units.json", encoding.frozen(plan), encoding.places())
    shards = on.part.own(plan.without(outputs.committed(store, "units")))
    _run_units(driver, store, plan, encoding, mark, shards, on.gpus_per_encoder)


def _generate(driver: Driver, source: Store, store: Store, plan: Plan, generation: Generation, part: JobPart) -> None:
    done = load_json(store, "text.json")
    default = done["settings"]["dtype"] if done else EngineSettings.for_device(driver.device).dtype
    generation = generation.settled(default)
    mark = freeze(store, "text.json", generation.frozen(_made_from(source, store, plan)), generation.places())
    shards = part.own(plan.without(outputs.committed(store, generation.tables[-1])))
    _run_text(driver, source, store, plan, generation, mark, shards)


def _made_from(source: Store, store: Store, plan: Plan) -> dict[str, Any]:
    units = load_json(source, "units.json")
    made_from = {"units": units["fingerprint"]} if units else {"plan": plan.fingerprint}
    return made_from | ({"units_run": source.url} if source.url != store.url else {})


def _run_units(
    driver: Driver,
    store: Store,
    plan: Plan,
    encoding: Encoding,
    mark: str,
    shards: list[Shard],
    gpus_per_encoder: float = 1.0,
) -> None:
    if shards:
        audio_s = sum(shard.seconds for shard in shards)
        cpus = driver.aim.cpus
        if not driver.aim.gpus and (line := slowness(audio_s, cpus, encoding.encoder, encoding.layer)):
            driver.say(line)
        patience_s = max(shard.seconds for shard in shards) / SLOWEST_RTFX
        driver.run_shards(
            shards,
            lambda cluster: unit_pools(cluster, gpus_per_encoder),
            lambda left, pools: pipeline.audio_to_units(driver, left, pools, _at(store), encoding, mark),
            Progress.of("units", plan, shards),
            patience_s,
        )
    outputs.mark_complete(store, "units", plan.shards, mark)


def _run_text(
    driver: Driver, source: Store, store: Store, plan: Plan, generation: Generation, mark: str, shards: list[Shard]
) -> None:
    if shards:
        run, out = _at(source), _at(store)
        load: tuple[type[Any], Mapping[str, Any]] = (LoadText, {"run": run})
        if generation.tasks.method != "text":
            attempts = outputs.committed(source, "units")
            load = (LoadUnits, {"run": run, "out": out, "attempts": attempts, "tables": generation.tables})
        tokens = max(shard.utterances for shard in shards) * generation.tasks.tokens
        patience_s = tokens * pipeline.SHARDS_IN_AN_ENGINE / SLOWEST_TOKENS[driver.device]
        gpus_each = generation.options.tensor_parallel_size
        driver.run_shards(
            shards,
            lambda cluster: text_pools(cluster, gpus_each),
            lambda left, pools: pipeline.units_to_text(driver, left, pools, load, out, generation, mark),
            Progress.of("text", plan, shards),
            patience_s,
            gpus_each,
        )
    for table in generation.tables:
        outputs.mark_complete(store, table, plan.shards, mark)


def _at(store: Store) -> StoreAt:
    return StoreAt(store.url, store.storage_options)
