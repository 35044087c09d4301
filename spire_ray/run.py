"""The commands as functions: settle the settings, plan, subtract what is committed, run the rest, write the records.

Whatever a user can get wrong is checked before anything is written.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spire_ray import outputs, pipeline
from spire_ray.checkpoints import LLM, NAMED, PARTS, Checkpoint, Part, check_languages, resolve
from spire_ray.corpus import NOTE, read_corpus, read_text_corpus
from spire_ray.driver import Driver
from spire_ray.encode import check_codebook
from spire_ray.engine import EngineSettings
from spire_ray.errors import MachineFault, UserError
from spire_ray.locations import absolute
from spire_ray.plan import Plan, Shard, cut, cut_text, freeze, load_plan, write_plan
from spire_ray.progress import Progress
from spire_ray.records import load_json, plan_of, units_run, write_records
from spire_ray.retry import text_to_retry, units_to_retry
from spire_ray.settings import ENGINE, Encoding, EngineOptions, Generation
from spire_ray.shards import LoadText, LoadUnits, StoreAt
from spire_ray.store import Store
from spire_ray.tasks import TextTasks, check_tasks
from spire_ray.vocabulary import check_vocabulary

SHARD_MINUTES = {"cuda": 60.0, "cpu": 10.0}
ENCODER_DTYPE = {"cuda": "float16", "cpu": "float32"}
MAX_SECONDS = 600.0  # HuBERT's memory grows with the square of the length, and a run of one unit must fit int16
# How slow a stage may be before it is taken for dead: audio per second, and generated tokens per second of an engine.
SLOWEST_RTFX = 0.05
SLOWEST_TOKENS = {"cuda": 100.0, "cpu": 1.0}


@dataclass(frozen=True)
class AudioOptions:
    """How a corpus of speech is planned and read."""

    source_language: str = "en"
    shard_minutes: float | None = None  # of audio; None: 60 with GPUs, 10 without
    max_seconds: float = 120.0  # longer utterances become `too_long`
    dtype: str | None = None  # of the encoder; None: float32 on CPUs, float16 on GPUs
    gpus_per_encoder: float = 1.0  # 0.5: two encoders share a GPU


def speech_to_text(
    corpus: str,
    out: str,
    checkpoint: str,
    tasks: TextTasks,
    audio: AudioOptions,
    address: str | None = None,
    engine: EngineOptions = ENGINE,
) -> None:
    """CORPUS to units, transcripts and translations in OUT."""
    with _driver("speech-to-text", out, address, engine) as (driver, store):
        found = _resolve(store, checkpoint, PARTS)
        encoding = encoding_of(found, audio)
        check_tasks(found, tasks)
        check_vocabulary(found, clusters=encoding.clusters)
        plan = plan_audio(driver, store, corpus, audio)
        _encode(driver, store, plan, encoding, audio)
        _generate(driver, store, store, plan, Generation(found, tasks, engine))


def tokenize(corpus: str, out: str, encoding: Encoding, audio: AudioOptions, address: str | None = None) -> None:
    """CORPUS to units in OUT."""
    check_codebook(encoding.encoder, encoding.codebook, encoding.layer)
    with _driver("tokenize", out, address) as (driver, store):
        _encode(driver, store, plan_audio(driver, store, corpus, audio), encoding, audio)


def generate(
    out: str,
    to: str | None,
    checkpoint: str,
    tasks: TextTasks,
    address: str | None = None,
    engine: EngineOptions = ENGINE,
) -> None:
    """The units in OUT to transcripts and translations, in OUT or in TO."""
    source = Store(out)
    plan = plan_of(source)
    units = load_json(source, "units.json")
    if units is None or (missing := len(plan.without(outputs.committed(source, "units")))):
        raise UserError(
            f"{out}: {missing if units else 'all'} of {plan.shards} shards lack units: finish tokenize first"
        )
    with _driver("generate", to or out, address, engine) as (driver, store):
        if store.url != source.url and load_plan(store) is not None:
            raise UserError(f"{store.url} holds a run of its own: give --to a new folder")
        found = _resolve(store, checkpoint, LLM)
        check_tasks(found, tasks)
        check_vocabulary(found, units["settings"]["clusters"])
        _generate(driver, source, store, plan, Generation(found, tasks, engine))


def translate(
    corpus: str,
    out: str,
    checkpoint: str,
    tasks: TextTasks,
    address: str | None = None,
    engine: EngineOptions = ENGINE,
) -> None:
    """A text corpus to translations in OUT."""
    with _driver("translate", out, address, engine) as (driver, store):
        found = _resolve(store, checkpoint, LLM)
        check_languages(found, [tasks.source_language])
        check_tasks(found, tasks)
        check_vocabulary(found, clusters=None)
        settings = {"text_corpus": absolute(corpus), "source_language": tasks.source_language}
        plan = load_plan(store)
        if plan is None:
            rows = read_text_corpus(corpus, source_language=tasks.source_language)
            check_languages(found, sorted(set(pc.unique(rows.column("source_language")).drop_null().to_pylist())))
            plan = _write_plan(store, cut_text(rows), settings)
        plan.refuse_other(store, settings)
        _generate(driver, store, store, plan, Generation(found, tasks, engine))


def retry(out: str, address: str | None = None) -> None:
    """The error rows of OUT again, with the settings they were made with: adds `.r1` parts, touches no old one."""
    source = units_run(Store(out))
    plan = plan_of(source)
    with _driver("retry", out, address) as (driver, store):
        if units := load_json(store, "units.json"):
            encoding = Encoding.of(units)
            mark = freeze(store, "units.json", encoding.frozen(plan))
            _run_units(driver, store, plan, encoding, mark, units_to_retry(store, plan))
        if text := load_json(store, "text.json"):
            generation = Generation.of(text)
            mark = freeze(store, "text.json", generation.frozen(_made_from(source, store, plan)), generation.places())
            shards = text_to_retry(source, store, generation.tables, plan)
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
    command: str, out: str, address: str | None, engine: EngineOptions = ENGINE
) -> Iterator[tuple[Driver, Store]]:
    """A driver for a run in OUT. What it did before an error or a stop is written down too."""
    store = Store(out)
    store.check_writable()
    with Driver(command, address) as driver:
        if engine.needs_gpus:
            engine.check_fits(driver.cluster.gpus)
        try:
            yield driver, store
        finally:
            if driver.stages:
                write_records(driver, store)


def _resolve(store: Store, checkpoint: str, need: Collection[Part]) -> Checkpoint:
    """The checkpoint; a named one at the revision that a run already has, whatever the hub's newest is."""
    text = load_json(store, "text.json")
    began_with = text and text["settings"]["checkpoint"] == checkpoint in NAMED
    return resolve(checkpoint, need=need, revision=text["settings"]["revision"] if text and began_with else None)


def plan_audio(
    driver: Driver,
    store: Store,
    corpus: str,
    audio: AudioOptions,
    check: Callable[[pa.Table], None] = lambda rows: None,
) -> Plan:
    """The plan that lies in `store`, else a new one of `corpus`, whose rows `check` may refuse before it is written.

    UserError when the plan there is of other settings.
    """
    if audio.max_seconds > MAX_SECONDS:
        raise UserError(f"--max-seconds {audio.max_seconds:g} is above {MAX_SECONDS:g}")
    if units_run(store).url != store.url:
        raise UserError(f"{store.url} holds the text of another run's units: use another OUT")
    settings: dict[str, Any] = {"corpus": absolute(corpus).rstrip("/"), "source_language": audio.source_language}
    if audio.shard_minutes is not None:
        settings["shard_minutes"] = audio.shard_minutes
    plan = load_plan(store)
    if plan is not None:
        plan.refuse_other(store, settings)
        return plan
    rows = read_corpus(corpus, source_language=audio.source_language)
    if note := (rows.schema.metadata or {}).get(NOTE):
        driver.say(note.decode())
    check(rows)
    minutes = audio.shard_minutes or SHARD_MINUTES[driver.device]
    return _write_plan(store, cut(rows, minutes), settings | {"shard_minutes": minutes})


def _write_plan(store: Store, rows: pa.Table, settings: Mapping[str, Any]) -> Plan:
    try:
        return write_plan(store, rows, settings)
    except MachineFault as fault:
        # The first put of a run: a folder or bucket that the user may not write to is the user's to mend.
        if isinstance(fault.__cause__, PermissionError):
            raise UserError(f"{store.url} cannot be written: {fault.__cause__}") from fault
        raise


def _encode(driver: Driver, store: Store, plan: Plan, encoding: Encoding, audio: AudioOptions) -> None:
    done = load_json(store, "units.json")
    encoding = encoding.settled(done["settings"]["dtype"] if done else ENCODER_DTYPE[driver.device])
    mark = freeze(store, "units.json", encoding.frozen(plan), encoding.places())
    shards = plan.without(outputs.committed(store, "units"))
    _run_units(driver, store, plan, encoding, mark, shards, audio.gpus_per_encoder)


def _generate(driver: Driver, source: Store, store: Store, plan: Plan, generation: Generation) -> None:
    done = load_json(store, "text.json")
    default = done["settings"]["dtype"] if done else EngineSettings.for_device(driver.device).dtype
    generation = generation.settled(default)
    mark = freeze(store, "text.json", generation.frozen(_made_from(source, store, plan)), generation.places())
    shards = plan.without(outputs.committed(store, generation.tables[-1]))
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
        dataset = pipeline.audio_to_units(driver, shards, StoreAt(store.url), encoding, mark, gpus_per_encoder)
        patience_s = max(shard.seconds for shard in shards) / SLOWEST_RTFX
        driver.run(dataset, Progress.of("units", plan, shards), patience_s)
    outputs.mark_complete(store, "units", plan.shards, mark)


def _run_text(
    driver: Driver, source: Store, store: Store, plan: Plan, generation: Generation, mark: str, shards: list[Shard]
) -> None:
    if shards:
        run, out = StoreAt(source.url), StoreAt(store.url)
        load: tuple[type[Any], Mapping[str, Any]] = (LoadText, {"run": run})
        if generation.tasks.method != "text":
            attempts = outputs.committed(source, "units")
            load = (LoadUnits, {"run": run, "out": out, "attempts": attempts, "tables": generation.tables})
        dataset = pipeline.units_to_text(driver, shards, load, out, generation, mark)
        tokens = max(shard.utterances for shard in shards) * generation.tasks.tokens
        patience_s = tokens * pipeline.SHARDS_IN_FLIGHT / SLOWEST_TOKENS[driver.device]
        driver.run(dataset, Progress.of("text", plan, shards), patience_s)
    for table in generation.tables:
        outputs.mark_complete(store, table, plan.shards, mark)
