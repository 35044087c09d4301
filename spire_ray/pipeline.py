"""The flows, top to bottom; the only module that builds Ray Datasets.

    corpus ──plan──> shards ─> read audio ─> HuBERT + codebook ─> units/part-00017.parquet
                                                                       │
                         units/ ─> prompts ─> vLLM ─> translations/, then transcripts/part-00017.parquet

A shard is one Ray row, one task, one part of each table, and so one checkpoint. Every flow is: settle the settings, plan,
subtract what is committed, run the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy, Dataset

from spire_ray.commit import commit_text, commit_units
from spire_ray.driver import Driver
from spire_ray.encode import EncodeUnits
from spire_ray.generate import EngineSettings, GenerateText
from spire_ray.plan import Shard
from spire_ray.resources import Pool, encoder_pool, engine_pool, reader_pool
from spire_ray.settings import Encoding, Generation
from spire_ray.shards import ReadShard, StoreAt
from spire_ray.stop import unless_stopped

MAX_BLOCKS = 10_000  # 10^5 one-row blocks cost the driver 100 s and 1 GB
SHARDS_IN_FLIGHT = 4  # in one engine, so that its batch never drains between shards
COMMIT_CPUS = 0.25


def audio_to_units(
    driver: Driver, shards: Sequence[Shard], out: StoreAt, encoding: Encoding, fingerprint: str
) -> Dataset:
    """Pipeline 1: every GPU encodes. Iterating over the dataset runs it; its rows are `commit.Summary` rows."""
    encoders = encoder_pool(driver.cluster)
    read = {"run": out, "max_seconds": encoding.max_seconds}
    encode = {
        "encoder_folder": encoding.encoder,
        "codebook_path": encoding.codebook,
        "layer": encoding.layer,
        "dtype": encoding.dtype,
        "device": encoders.device,
        "threads": encoders.threads,
    }
    dataset = _source(shards)
    dataset = _stage(dataset, driver, ReadShard, read, reader_pool(driver.cluster, encoders))
    dataset = _stage(dataset, driver, EncodeUnits, encode, encoders)
    return _commit(dataset, partial(commit_units, out=out, fingerprint=fingerprint))


def units_to_text(
    driver: Driver,
    shards: Sequence[Shard],
    load: tuple[type[Any], Mapping[str, Any]],
    out: StoreAt,
    generation: Generation,
    fingerprint: str,
) -> Dataset:
    """Pipeline 2: every GPU generates. `load` is its first stage and that stage's settings; rows as in pipeline 1."""
    engines = engine_pool(driver.cluster)
    settings = replace(EngineSettings.for_device(engines.device), dtype=generation.dtype or "auto")
    generate = {"checkpoint": generation.checkpoint, "tasks": generation.tasks, "engine": settings}
    dataset = _source(shards)
    dataset = _stage(dataset, driver, *load, Pool(engines.size, num_cpus=0.5, num_gpus=0))
    dataset = _stage(dataset, driver, GenerateText, generate, engines, in_flight=SHARDS_IN_FLIGHT)
    return _commit(dataset, partial(commit_text, out=out, tables=generation.tables, fingerprint=fingerprint))


def _source(shards: Sequence[Shard]) -> Dataset:
    rows = [{"shard": shard.index, "attempt": shard.attempt} for shard in shards]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))


def _stage(
    dataset: Dataset, driver: Driver, stage: type[Any], settings: Mapping[str, Any], pool: Pool, in_flight: int = 1
) -> Dataset:
    return dataset.map_batches(
        unless_stopped(stage),
        fn_constructor_kwargs={"flag": driver.stop.flag, **settings},
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=pool.size, max_concurrent_calls_per_actor=in_flight),
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus or None,
    )


def _commit(dataset: Dataset, commit: Any) -> Dataset:
    return dataset.map_batches(commit, batch_size=1, batch_format="pyarrow", num_cpus=COMMIT_CPUS)
