"""From CORPUS to the plan of a run: its rows read, cut into segments where that is asked for, and frozen as shards."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
from ray.data import Dataset

from spire_ray import outputs, pipeline
from spire_ray.corpus import open_corpus
from spire_ray.cut import cut
from spire_ray.driver import Driver
from spire_ray.errors import MachineFault, UserError
from spire_ray.job_part import WHOLE, JobPart
from spire_ray.locations import absolute
from spire_ray.plan import Plan, Shard, load_plan, write_plan
from spire_ray.pools import Pool, segment_pools
from spire_ray.progress import Progress
from spire_ray.recordings import TABLE, read_segments
from spire_ray.records import units_run
from spire_ray.segment import Segmentation
from spire_ray.shards import StoreAt
from spire_ray.store import Store

SHARD_MINUTES = {"cuda": 60.0, "cpu": 10.0}
MAX_SECONDS = 600.0  # HuBERT's memory grows with the square of the length, and a run of one unit must fit int16
SLOWEST_CUT = 1.0  # audio per second: how slow cutting may be before it is taken for dead
Check: TypeAlias = Callable[[Iterator[pa.Table]], Iterator[pa.Table]]  # rows through; UserError before the last of them


@dataclass(frozen=True)
class AudioOptions:
    """How a corpus of speech is planned and read."""

    source_language: str = "en"
    shard_minutes: float | None = None  # of audio; None: 60 with GPUs, 10 without
    max_seconds: float = 120.0  # longer utterances become `too_long`
    dtype: str | None = None  # of the encoder; None: float32 on CPUs, float16 on GPUs
    segment: str | None = None  # vad, fixed:SECONDS or none; None: as the plan has it, none in a new one

    @property
    def segmentation(self) -> Segmentation | None:
        """How recordings are cut; None: not at all. UserError when pieces would be longer than `max_seconds`."""
        segmentation = Segmentation.parse(self.segment or "none")
        if segmentation is not None and segmentation.seconds > self.max_seconds:
            longest = f"{segmentation.seconds:g} s, but --max-seconds is {self.max_seconds:g}"
            raise UserError(f"--segment {segmentation} makes pieces of up to {longest}")
        return segmentation


def plan_audio(
    driver: Driver, store: Store, corpus: str, audio: AudioOptions, part: JobPart = WHOLE, check: Check = iter
) -> Plan:
    """The plan of OUT, which is made if it is not there. UserError when it is of another corpus or other settings.

    A new plan's rows go through `check`, which may refuse them: shards are cut, and written, once it has seen all.
    """
    asked = asked_for(store, corpus, audio)
    plan = load_plan(store)
    if plan is not None:
        plan.refuse_other(store, asked)
        return plan
    segmentation = audio.segmentation
    settings = asked | {"shard_minutes": shard_minutes(driver, audio), "segment": str(segmentation or "none")}
    if segmentation is None:
        rows = rows_of(driver, store, corpus, audio)
    else:
        rows = _segments(driver, store, settings, audio, (corpus, segmentation, part))
    return put_plan(store, cut(check(rows), settings["shard_minutes"]), settings)


def shard_minutes(driver: Driver, audio: AudioOptions) -> float:
    """Of audio in a shard: what was asked for, or what suits the cluster."""
    return audio.shard_minutes or SHARD_MINUTES[driver.device]


def asked_for(store: Store, corpus: str, audio: AudioOptions) -> dict[str, Any]:
    """The settings of plan.json that the command names. UserError when they cannot be, or not in this OUT."""
    if audio.max_seconds > MAX_SECONDS:
        raise UserError(f"--max-seconds {audio.max_seconds:g} is above {MAX_SECONDS:g}")
    segmentation = audio.segmentation
    if units_run(store).url != store.url:
        raise UserError(f"{store.url} holds the text of another run's units: use another OUT")
    asked: dict[str, Any] = {"corpus": absolute(corpus).rstrip("/"), "source_language": audio.source_language}
    if audio.shard_minutes is not None:
        asked["shard_minutes"] = audio.shard_minutes
    if audio.segment is not None:
        asked["segment"] = str(segmentation or "none")
    return asked


def rows_of(driver: Driver, store: Store, corpus: str, audio: AudioOptions) -> Iterator[pa.Table]:
    """Everything in CORPUS as tables of PLANNED; says what lies there and is not read."""
    found = open_corpus(corpus, source_language=audio.source_language, storage_options=store.storage_options)
    if found.note:
        driver.say(found.note)
    return _counted(driver, found.tables)


def _counted(driver: Driver, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    rows = 0
    for table in tables:
        rows += table.num_rows
        driver.doing(f"planning, {rows:,} rows")
        yield table


def put_plan(store: Store, shards: Iterable[pa.Table], settings: Mapping[str, Any]) -> Plan:
    """`write_plan`, with a UserError where OUT cannot be written."""
    try:
        return write_plan(store, shards, settings)
    except MachineFault as fault:
        # The first put of a run: a folder or bucket that the user may not write to is the user's to mend.
        if isinstance(fault.__cause__, PermissionError):
            raise UserError(f"{store.url} cannot be written: {fault.__cause__}") from fault
        raise


def _segments(
    driver: Driver,
    store: Store,
    settings: Mapping[str, Any],
    audio: AudioOptions,
    how: tuple[str, Segmentation, JobPart],
) -> Iterator[pa.Table]:
    """The segments of all recordings in CORPUS, listened to in a pipeline of its own: OUT/segments/part-NNNNN.parquet.

    The recordings have a plan too, OUT/segments/plan.json, so that this step resumes like any other.
    """
    corpus, segmentation, part = how
    under = Store(f"{store.url}/{TABLE}", store.storage_options)
    recordings = load_plan(under)
    if recordings is None:
        shards = cut(rows_of(driver, store, corpus, audio), settings["shard_minutes"])
        recordings = put_plan(under, shards, settings)
    recordings.refuse_other(under, settings)
    at = StoreAt(under.url, under.storage_options), StoreAt(store.url, store.storage_options)

    def listen(left: Sequence[Shard], pools: Sequence[Pool]) -> Dataset:
        return pipeline.recordings_to_segments(driver, left, pools, at, segmentation, recordings.fingerprint)

    # Its own part first, and then what no other driver has done by then: so that none waits for one that died.
    for own in (part.own, list):
        if shards_left := own(recordings.without(outputs.committed(store, TABLE))):
            patience_s = max(shard.seconds for shard in shards_left) / SLOWEST_CUT
            progress = Progress.of(TABLE, recordings, shards_left)
            driver.run_shards(shards_left, segment_pools, listen, progress, patience_s, gpus_needed=0)
    return read_segments(store, recordings)
