"""One real engine and transformers' own generation beside it, for the tests of the generation actor."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bundle import make_bundle
from spire_ray import generate
from spire_ray.checkpoints import Checkpoint, resolve
from spire_ray.engine import EngineSettings, start_engine
from spire_ray.generate import GenerateText, TextTasks
from spire_ray.tables import SOURCES, TRANSCRIPTS, TRANSLATIONS, from_rows, nest, unnest

SETTINGS = EngineSettings(
    "cpu", "float32", max_num_seqs=16, enforce_eager=True, block_size=32, kv_cache_memory_bytes=32 << 20, threads=1
)
MAX_TOKENS = 40
NEWLINE = 13  # Llama-2's <0x0A>, and the tiny tokenizer's
NAMES = {"en": "English", "de": "German", "fr": "French", "zh": "Chinese"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(make_bundle(tmp_path_factory.mktemp("checkpoint"), context=512)), need=("llm",))


@dataclass
class Recording:
    """The real engine, and the token ids that went in and came out of it, in order of submission."""

    engine: Any
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    answers: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    async def get_supported_tasks(self) -> Any:
        return await self.engine.get_supported_tasks()

    async def generate(self, prompt: Any, sampling: Any, request_id: str) -> AsyncIterator[Any]:
        asked = tuple(prompt["prompt_token_ids"])
        self.prompts.append(asked)
        async for output in self.engine.generate(prompt, sampling, request_id):
            self.answers[asked] = list(output.outputs[0].token_ids)
            yield output


@dataclass
class Engine:
    """One engine and its event loop for the whole module: starting it takes longer than all the tests."""

    checkpoint: Checkpoint
    engine: Any
    loop: asyncio.AbstractEventLoop

    def stage(self, monkeypatch: pytest.MonkeyPatch, **tasks: Any) -> GenerateText:
        recording = Recording(self.engine)
        monkeypatch.setattr(generate, "start_engine", lambda *started: recording)
        return GenerateText(self.checkpoint, TextTasks(**{"max_tokens": MAX_TOKENS, **tasks}), SETTINGS)

    def run(self, stage: GenerateText, rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any], pa.Table]:
        """The stage's transcripts and translations as dicts, and its row."""
        given = nest(4, 1, utterances=from_rows(rows, SOURCES))
        made = self.loop.run_until_complete(stage(given))
        transcripts, translations = unnest(made, "transcripts", TRANSCRIPTS), unnest(made, "translations", TRANSLATIONS)
        return transcripts.to_pylist(), translations.to_pylist(), made


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint, orphaned: subprocess.Popen[str]) -> Iterator[Engine]:
    """Starts while the process of `orphaned` does: both wait for a child most of the time."""
    yield from running_engine(checkpoint)


def running_engine(checkpoint: Checkpoint) -> Iterator[Engine]:
    """An engine over the checkpoint's LLM, for a fixture: it ends when the fixture is left."""
    loop = asyncio.new_event_loop()
    assert checkpoint.llm is not None
    started = start_engine(checkpoint.llm, SETTINGS)
    yield Engine(checkpoint, started, loop)

    async def stop() -> None:
        started.shutdown(timeout=0.1)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop.run_until_complete(stop())
    loop.close()


class Reference:
    """transformers' own greedy generation from the written prompt, one prompt at a time, and what SPIRE makes of it."""

    def __init__(self, llm: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(llm)
        self.model = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32).eval()
        self.ends = [self.tokenizer.eos_token_id, NEWLINE]

    def chat(self, *turns: str) -> tuple[int, ...]:
        messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tuple(self.tokenizer(text)["input_ids"])

    def answer(self, prompt: tuple[int, ...], max_tokens: int = MAX_TOKENS) -> dict[str, Any]:
        made = self.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self.ends,
            output_logits=True,
            return_dict_in_generate=True,
        )
        ids = made.sequences[0, len(prompt) :].tolist()
        logprobs = [torch.log_softmax(step[0], -1)[token].item() for step, token in zip(made.logits, ids, strict=True)]
        ended = ids[-1] in self.ends
        text = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
        return {
            "ids": ids,
            "text": re.split(r"\n|\\n|<\\s>|<END>", text)[0].strip(),
            "finish_reason": "stop" if ended else "length",
            "avg_logprob": sum(logprobs) / len(logprobs),
            "prompt_tokens": len(prompt),
            "generated_tokens": len(ids),
            "flags": [] if ended else ["truncated"],
            "error": None,
        }


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Reference:
    assert checkpoint.llm is not None
    return Reference(checkpoint.llm)


def utterances(count: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 120, count)
    return [
        {"utterance_id": f"u{n:02}", "units": random.integers(0, 100, length).tolist(), "duration_s": length / 35}
        for n, length in enumerate(lengths)
    ]


def speech(row: dict[str, Any], language: str) -> str:
    return f"Speech: {''.join(chr(0xF0000 + unit) for unit in row['units'])}\n{NAMES[language]}:"


def same(row: dict[str, Any], expected: dict[str, Any]) -> None:
    others = ("ids", "avg_logprob", "flags")
    assert {name: row[name] for name in expected if name not in others} == {
        name: value for name, value in expected.items() if name not in others
    }
    assert ("truncated" in row["flags"]) == (expected["flags"] == ["truncated"])
    assert row["avg_logprob"] == pytest.approx(expected["avg_logprob"], abs=1e-4)


DEAD_ENGINE = """
import asyncio, sys
from multiprocessing import active_children
from spire_ray.checkpoints import resolve
from spire_ray.engine import EngineSettings
from spire_ray.generate import GenerateText, TextTasks
from spire_ray.tables import SOURCES, from_rows, nest

async def main(folder):
    settings = EngineSettings("cpu", "float32", 4, enforce_eager=True, kv_cache_memory_bytes=32 << 20, threads=1)
    stage = GenerateText(resolve(folder, need=("llm",)), TextTasks(max_tokens=200), settings)
    rows = [{"utterance_id": f"u{n}", "units": [1, 2, n % 100]} for n in range(2000)]
    running = asyncio.create_task(stage(nest(0, 0, utterances=from_rows(rows, SOURCES))))
    while not stage.engine.output_processor.request_states:
        await asyncio.sleep(0.01)
    for child in active_children():
        child.kill()
    await running

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def orphaned(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process whose engine is killed while it generates."""
    script = tmp_path_factory.mktemp("orphaned") / "dead_engine.py"
    script.write_text(DEAD_ENGINE)
    command = [sys.executable, str(script), checkpoint.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()
