"""The pipelines, top to bottom; the only module that builds Ray Datasets.

    long recordings ─> pauses found ─> segments/part-00017.parquet, of which the plan is cut (--segment)

    corpus ──plan──> shards ─> read audio ─> HuBERT + codebook ─> units/part-00017.parquet
                                                                       │
                         units/ ─> prompts ─> vLLM ─> translations/, then transcripts/part-00017.parquet

    corpus ──plan──> shards ─> read audio ─> HuBERT ─> some of the frames, held on the devices to fit a codebook

    a run's tables ─> pairs measured ─> work/measured; once all are decided upon ─> examples ─> train/part-00017.parquet

A shard is one Ray row, one task, one part of each table, and so one checkpoint. `run.py` settles the settings, plans,
subtracts what is committed and has the rest done here. `pools`: of each stage's actors, in the order of the stages.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias
from warnings import catch_warnings, filterwarnings

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from spire_ray.commit import CommitText, CommitUnits
from spire_ray.driver import Driver
from spire_ray.encode import EncodeUnits
from spire_ray.generate import GenerateText
from spire_ray.groups import Groups
from spire_ray.measure_stage import Material, MeasurePairs
from spire_ray.parity import BOUNDS
from spire_ray.plan import Shard
from spire_ray.pools import Pool, cutter_pool, encoder_pool, engine_pool, fed, sharing
from spire_ray.recordings import CommitSegments, CutRecordings
from spire_ray.sampling import Keep, Sample, SampleFrames
from spire_ray.scorers import NAMED
from spire_ray.segment import Segmentation
from spire_ray.settings import Encoding, Features, Generation
from spire_ray.shards import ReadShard, StoreAt
from spire_ray.stop import unless_stopped

Stage: TypeAlias = tuple[type[Any], Mapping[str, Any]]  # its class, and what that is made with
MAX_BLOCKS = 2_000  # each costs the driver 1.2 ms before the first shard: 10^4 took 12 s, 10^5 take 100 s and 1 GB
SHARDS_IN_AN_ENGINE = 4  # so that its batch never drains between shards
SHARDS_IN_AN_ENCODER = 2  # on CPUs one is read or committed, on a GPU packed, while another is computed


def recordings_to_segments(
    driver: Driver,
    shards: Sequence[Shard],
    pools: Sequence[Pool],
    places: tuple[StoreAt, StoreAt],
    segmentation: Segmentation,
    mark: str,
) -> Dataset:
    """Before the plan, with --segment: every CPU listens. `places`: the recordings' plan, and OUT. Rows as below."""
    recordings, out = places
    cutters, commits = pools
    listen = {
        "flag": driver.stop.flag,
        "recordings": recordings,
        "segmentation": segmentation,
        "storage_options": out.storage_options,
    }
    dataset = _source(shards)
    dataset = _stage(dataset, [(unless_stopped(CutRecordings), listen)], cutters)
    return _stage(dataset, [(CommitSegments, {"out": out, "fingerprint": mark})], commits)


def audio_to_units(
    driver: Driver,
    shards: Sequence[Shard],
    pools: Sequence[Pool],
    out: StoreAt,
    encoding: Encoding,
    fingerprint: str,
) -> Dataset:
    """Pipeline 1: every GPU encodes. Iterating over the dataset runs it; its rows are those of `commit.Summary`."""
    encoders = pools[-1]
    flag = driver.stop.flag
    read = {"flag": flag, "run": out, "max_seconds": encoding.max_seconds}
    encode = {
        "flag": flag,
        "encoder_folder": encoding.encoder,
        "codebook_path": encoding.codebook,
        "layer": encoding.layer,
        "dtype": encoding.settled_dtype,
        "device": encoders.device,
        "threads": encoders.threads,
        "parity_bound": BOUNDS[encoding.settled_dtype],
    }
    commit = {"out": out, "fingerprint": fingerprint}

    encode_and_commit: list[Stage] = [(unless_stopped(EncodeUnits), encode), (CommitUnits, commit)]
    return _from_audio(_source(shards), read, encode_and_commit, pools)


def audio_to_frames(
    driver: Driver, shards: Sequence[Shard], run: StoreAt, features: Features, sample: Sample, keep: Keep
) -> Dataset:
    """The frames a codebook is fitted on go to `keep`, and nowhere else. Rows as in pipeline 1, one to a shard."""
    encoders = sharing(encoder_pool(driver.cluster))
    flag = driver.stop.flag
    read = {"flag": flag, "run": run, "max_seconds": features.max_seconds}
    encode = {
        "flag": flag,
        "encoder_folder": features.encoder,
        "layer": features.layer,
        "dtype": features.dtype,
        "sample": sample,
        "keep": keep,
        "device": encoders.device,
        "threads": encoders.threads,
    }

    sampling: list[Stage] = [(unless_stopped(SampleFrames), encode)]
    return _from_audio(_source(shards), read, sampling, fed(driver.cluster, encoders))


def units_to_text(
    driver: Driver,
    shards: Sequence[Shard],
    pools: Sequence[Pool],
    load: tuple[type[Any], Mapping[str, Any]],
    out: StoreAt,
    generation: Generation,
    fingerprint: str,
) -> Dataset:
    """Pipeline 2: every GPU generates. `load` is its first stage and that stage's settings; rows as in pipeline 1."""
    loaders, engines, commits = pools
    flag = driver.stop.flag
    first, settings = load
    generate = {
        "flag": flag,
        "checkpoint": generation.checkpoint,
        "tasks": generation.tasks,
        "engine": generation.engine(engines.device),
        "strikes": out,
        "run": driver.id,
    }
    commit = {"out": out, "tables": generation.tables, "fingerprint": fingerprint}

    dataset = _source(shards)
    dataset = _stage(dataset, [(unless_stopped(first), {"flag": flag, **settings})], loaders)
    dataset = _stage(dataset, [(unless_stopped(GenerateText), generate)], engines, SHARDS_IN_AN_ENGINE, driver.groups)
    return _stage(dataset, [(CommitText, commit)], commits)


def tables_to_training_set(driver: Driver, shards: Sequence[Shard], stage: type[Any], material: Material) -> Dataset:
    """A pass over a run's tables: `stage` is MeasurePairs or WriteExamples, and commits. Rows as in pipeline 1."""
    pool = cutter_pool(driver.cluster)
    scorer = material.recipe.scorer if stage is MeasurePairs else None
    if scorer and (driver.cluster.gpus or scorer in NAMED):  # a named one's model has gigabytes: not one for each CPU
        pool = engine_pool(driver.cluster)
    settings = {"flag": driver.stop.flag, "material": material}
    return _stage(_source(shards), [(unless_stopped(stage), settings)], pool)


def _from_audio(dataset: Dataset, read: Mapping[str, Any], then: Sequence[Stage], pools: Sequence[Pool]) -> Dataset:
    """GPUs have readers in a pool of their own; on CPUs an encoder reads for itself.

    Nothing of a node of CPUs that is lost is then waited for by the others: with readers and commits of their own they
    stood still for 10 to 15 s.
    """
    *readers, encoders = pools
    reading: Stage = (unless_stopped(ReadShard), read)
    if not readers:
        return _stage(dataset, [reading, *then], encoders, SHARDS_IN_AN_ENCODER)
    dataset = _stage(dataset, [reading], readers[0])
    return _stage(dataset, then, encoders, SHARDS_IN_AN_ENCODER)


def _source(shards: Sequence[Shard]) -> Dataset:
    rows = [{"shard": shard.index, "attempt": shard.attempt} for shard in shards]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))


def _stage(
    dataset: Dataset, stages: Sequence[Stage], pool: Pool, in_flight: int = 1, groups: Groups | None = None
) -> Dataset:
    """Actors, in each of which a shard goes through `stages`, `in_flight` shards at a time."""
    stage, settings = stages[0] if len(stages) == 1 else _in_turn(stages, one_at_a_time=not pool.num_gpus)
    place = groups.of(int(pool.num_gpus)) if groups and pool.in_groups else None
    if pool.off_gpus:
        # By itself Ray Data spreads actors over all nodes; Ray's own default takes those without GPUs first.
        place = partial(dict, scheduling_strategy="DEFAULT")
    actors = ActorPoolStrategy(
        size=pool.size,
        max_concurrent_calls_per_actor=in_flight,
        # By itself Ray Data calls a stage from one thread, however many shards are under way.
        enable_true_multi_threading=in_flight > 1,
        # A CPU's shard may take a quarter of an hour: an actor holds two, or as many as it works on. By itself Ray
        # Data gives it twice as many as it works on.
        max_tasks_in_flight_per_actor=None if pool.num_gpus else max(2, in_flight),
    )
    with catch_warnings():
        # Ray has it up to 2.63, and nothing in its place yet.
        filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
        return dataset.map_batches(
            stage,
            fn_constructor_kwargs=dict(settings),
            batch_size=1,
            batch_format="pyarrow",
            compute=actors,
            num_cpus=pool.num_cpus,
            num_gpus=None if pool.in_groups else pool.num_gpus or None,
            ray_remote_args_fn=place,
        )


def _in_turn(stages: Sequence[Stage], one_at_a_time: bool) -> Stage:
    """One stage that is all of `stages`; `one_at_a_time`: none of them has more than one shard."""
    classes = [stage for stage, _ in stages]

    class InTurn:
        def __init__(self, settings: Sequence[Mapping[str, Any]]) -> None:
            self.stages = [stage(**given) for stage, given in zip(classes, settings, strict=True)]
            self.locks = [threading.Lock() if one_at_a_time else nullcontext() for _ in classes]

        def __call__(self, row: pa.Table) -> pa.Table:
            for stage, lock in zip(self.stages, self.locks, strict=True):
                if not row.num_rows:  # the run is being stopped
                    break
                with lock:
                    row = stage(row)
            return row

    name = "+".join(stage.__name__ for stage, _ in stages)
    return type(name, (InTurn,), {}), {"settings": [settings for _, settings in stages]}
