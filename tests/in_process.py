"""The whole job in this process: the real flow, plan, reader, commits and records, without Ray and without models.

What Ray would do, run a shard's row through the stages one after the other, a loop does; an encoder and an engine that
are a line of arithmetic stand for the models. So a run takes some ten milliseconds, and can be run to each of its
deaths. What Ray and the models add is tested where they are started (test_run.py, test_interruption.py).
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import save_file
from transformers import HubertConfig

from spire_ray import commands, driver, pipeline, run
from spire_ray.answers import Answer, transcripts_table, translations_table
from spire_ray.checkpoints import LANGUAGES, Checkpoint
from spire_ray.driver import Driver
from spire_ray.encode import pcm_views, units_table
from spire_ray.plan import Shard
from spire_ray.resources import Cluster
from spire_ray.shards import shard_of
from spire_ray.tables import SOURCES, TRANSCRIPTS, WAVEFORMS, error, nest, unnest
from spire_ray.tasks import TextTasks

FRAME = 320  # samples to a unit, as HuBERT's 20 ms


class Arithmetic:
    """Stands for EncodeUnits: the unit of a frame is the low bits of the sum of its samples."""

    def __init__(self, **settings: Any) -> None:
        pass

    def __call__(self, row: pa.Table) -> pa.Table:
        waveforms = unnest(row, "utterances", WAVEFORMS)
        frames = [
            None if view is None else np.abs(view[: len(view) // FRAME * FRAME].reshape(-1, FRAME).sum(axis=1)) % 7
            for view in pcm_views(waveforms.column("pcm").combine_chunks())
        ]
        shard, attempt = shard_of(row)
        made = nest(shard, attempt, utterances=units_table(waveforms, frames))
        return made.append_column("encode_seconds", pa.array([0.01], pa.float64()))


class Echo:
    """Stands for GenerateText: says how many units or letters it was given."""

    def __init__(self, tasks: TextTasks, **settings: Any) -> None:
        self.tasks = tasks

    def __call__(self, row: pa.Table) -> pa.Table:
        shard, attempt = shard_of(row)
        sources = unnest(row, "utterances", SOURCES)
        ids, answers = sources.column("utterance_id").to_pylist(), [self._answers(one) for one in sources.to_pylist()]
        wanted = self.tasks.transcripts
        made = nest(
            shard,
            attempt,
            transcripts=transcripts_table(ids, answers) if wanted else TRANSCRIPTS.empty_table(),
            translations=translations_table(ids, answers, self.tasks),
        )
        seconds = pc.sum(sources.column("duration_s")).as_py() or 0.0
        for name in ("audio_seconds", "generate_seconds"):
            made = made.append_column(name, pa.array([seconds], pa.float64()))
        for name in ("cached_tokens", "shareable_tokens"):
            made = made.append_column(name, pa.array([0], pa.int64()))
        return made

    def _answers(self, source: Mapping[str, Any]) -> dict[str | None, Answer]:
        given = source["text"] if self.tasks.method == "text" else source["units"]
        fault = source["error"] and (
            source["error"] if self.tasks.method == "text" else error("no_units", source["error"])
        )
        return {
            to: Answer(error=fault)
            if fault
            else Answer(f"{len(given)} in {to}", "stop", avg_logprob=-0.5, prompt_tokens=9, generated_tokens=3)
            for to in [None, *self.tasks.languages]
        }


@dataclass
class Rows:
    """Stands for a Ray Dataset: its rows are made when they are asked for, a shard at a time."""

    shards: Sequence[Shard]
    stages: list[Any] = field(default_factory=list)
    context: Any = field(default_factory=SimpleNamespace)

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        stages = [stage(**settings) for stage, settings in self.stages]
        ready_at = pa.array([0.0], pa.float64())
        for shard in self.shards:
            row = pa.table(
                {"shard": pa.array([shard.index], pa.int32()), "attempt": pa.array([shard.attempt], pa.int32())}
            )
            for stage in stages:
                row = stage(row)
                if "ready_at" not in row.schema.names:
                    row = row.append_column("ready_at", ready_at)
            yield from row.to_pylist()


class Unstopped:
    """Stands for StopSignal: nobody stops this run."""

    def __init__(self) -> None:
        self.flag = None
        self.requested = threading.Event()

    def __enter__(self) -> "Unstopped":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _stage(dataset: Rows, stages: Sequence[pipeline.Stage], pool: Any, in_flight: int = 1, groups: Any = None) -> Rows:
    for stage, settings in stages:
        dataset.stages.append((stage, {name: value for name, value in settings.items() if name != "flag"}))
    return dataset


def run_in_process(monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint | None = None) -> None:
    """From here on the commands run in this process; `checkpoint` is what every --checkpoint names."""
    monkeypatch.setattr(pipeline, "_source", Rows)
    monkeypatch.setattr(pipeline, "_stage", _stage)
    monkeypatch.setattr(pipeline, "unless_stopped", lambda stage: stage)
    monkeypatch.setattr(pipeline, "EncodeUnits", Arithmetic)
    monkeypatch.setattr(pipeline, "GenerateText", Echo)
    monkeypatch.setattr(driver, "_versions", dict)  # 150 ms
    monkeypatch.setattr(Driver, "cluster", Cluster(cpus=2, gpus=0, node_cpus=2))
    monkeypatch.setattr(Driver, "stop", property(lambda self: vars(self).setdefault("_unstopped", Unstopped())))
    if checkpoint:
        for module in (run, commands):
            monkeypatch.setattr(module, "resolve", lambda *named, **needed: checkpoint)
        monkeypatch.setattr(run, "check_vocabulary", lambda *given, **clusters: None)


def small_checkpoint(folder: Path) -> Checkpoint:
    """An encoder and a codebook of a few bytes that fit each other; of the LLM there is only its context's length."""
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 4096}')
    HubertConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(8,) * 7,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    ).save_pretrained(folder / "encoder")
    save_file({"nothing": torch.zeros(1)}, folder / "encoder" / "model.safetensors")
    save_file({"centroids": torch.rand(7, 8)}, folder / "codebook.safetensors")
    return Checkpoint(
        name=str(folder),
        llm=folder,
        encoder=folder / "encoder",
        codebook=folder / "codebook.safetensors",
        layer=1,
        prompt_style="chat",
        languages=LANGUAGES,
        unit_offset=0,
        revision="made for a test",
        speech=True,
    )
