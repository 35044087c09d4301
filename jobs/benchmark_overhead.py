"""What the framework costs: `spire-ray speech-to-text` against its bare parts, on CPUs.

The bare parts are a loop that decodes, encodes and assigns, then vLLM's own `LLM.generate` over the same prompts. Each
runs in a process of its own with the job's models, settings and cores. Their processes, Ray and the models have started
before a clock starts, on both sides.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

# Nothing that loads torch is imported up here: torch reads OMP_NUM_THREADS then, and a child sets it first.
import pyarrow.parquet as pq
import soundfile

from benchmark_corpus import write_corpus

MINUTES = 45.0  # with which the bare parts last over 120 s on two cores
SHARD_MINUTES = 3.0
ENCODER_LAYERS, ENCODER_WIDTH, UNITS = 22, 256, 1000
LLM_LAYERS, LLM_WIDTH, HEAD_DIM, LLM_PARAMETERS = 8, 512, 64, 20_000_000
LANGUAGES = ("de", "fr")
MAX_TOKENS = 64
END_BIAS = 60.0  # see tests/bundle.py: most answers end, as those of a trained model do
TARGET = 1.25
RAY_NICENESS = 15  # of every worker process, unless RAY_worker_niceness says otherwise

Units = dict[str, list[int]]  # by utterance id
Texts = dict[tuple[str, str | None], tuple[str, int]]  # text and its tokens by id and target language; None: transcript
T = TypeVar("T")


@dataclass(frozen=True)
class Bare:
    """What a bare part took and made."""

    seconds: float
    cpu_seconds: float
    threads: int
    made: Any


@dataclass(frozen=True)
class Job:
    """What the job recorded of itself (runs/ID.json), and made."""

    record: dict[str, Any]
    wall_seconds: float
    units: Units
    texts: Texts


def measure(minutes: float, folder: Path) -> dict[str, Any]:
    """Make models and corpus in `folder`, measure both sides, compare what they made. The report, ready for JSON."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    bundle, parameters = _bundle(folder / "bundle")
    lengths = write_corpus(folder / "corpus", minutes)
    load = os.getloadavg()[0]
    encode = _in_child(bare_encode, bundle, folder / "corpus")
    generate = _in_child(bare_generate, bundle, encode.made)
    job = run_job(bundle, folder / "corpus", folder / "out")
    stages = job.record["stages"]
    units_ids, texts_ids = encode.made.keys() | job.units.keys(), generate.made.keys() | job.texts.keys()
    made = rows(sum(lengths), encode, generate, stages)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": job.record["hardware"],
        "versions": job.record["versions"],
        "load_before": round(load, 2),
        "threads": {"encode": encode.threads, "generate": generate.threads},
        "parameters": parameters,
        "corpus": {
            "utterances": len(lengths),
            "minutes": round(sum(lengths) / 60, 2),
            "units_per_second": round(sum(map(len, encode.made.values())) / sum(lengths), 1),
            **{name: stages["text"][name] for name in ("shards", "prompt_tokens", "cached_tokens", "generated_tokens")},
            "requests": len(generate.made),
        },
        "rows": made,
        "ratio": made[-1]["ratio"],
        "job_wall_seconds": round(job.wall_seconds, 1),
        "job_startup_seconds": {name: stage["startup_seconds"] for name, stage in stages.items()},
        "units_differ": sorted(key for key in units_ids if encode.made.get(key) != job.units.get(key)),
        "texts": {
            "of": len(texts_ids),
            "equal": sum(generate.made.get(key) == job.texts.get(key) for key in texts_ids),
        },
    }


def rows(audio_s: float, encode: Bare, generate: Bare, stages: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and RTFx of each part and of both sums; `ratio` of each of the job's to the bare one beside it."""
    bare = {"decode + encode": encode.seconds, "generate": generate.seconds}
    job = {name: float(stages[name]["work_seconds"]) for name in ("units", "text")}
    cpu = {"decode + encode": encode.cpu_seconds, "generate": generate.cpu_seconds}
    made: list[dict[str, Any]] = []
    for side, parts in (("bare", bare), ("job", job)):
        for name, seconds in [*parts.items(), ("sum", sum(parts.values()))]:
            made.append({"name": f"{side}: {name}", "seconds": round(seconds, 2), "rtfx": round(audio_s / seconds, 1)})
            if name in cpu:
                made[-1]["cpu_seconds"] = round(cpu[name], 2)
    for bare_row, job_row in zip(made[:3], made[3:], strict=True):
        job_row["ratio"] = round(job_row["seconds"] / bare_row["seconds"], 3)
    return made


def bare_encode(bundle: Path, corpus: Path) -> Bare:
    """The loop: every file decoded by soundfile, then micro-batches through encoder and codebook. Makes units."""
    import torch

    from spire_ray.encode import EncodeUnits
    from spire_ray.pools import encoder_pool
    from spire_ray.resources import Cluster
    from spire_ray.units import collapse

    pool = encoder_pool(Cluster(_cores(), 0, _cores()))
    torch.set_num_threads(pool.size * (pool.threads or 1))
    stage = EncodeUnits(str(bundle / "encoder"), str(bundle / "codebook.safetensors"), ENCODER_LAYERS, device="cpu")
    paths = sorted(corpus.rglob("*.flac"))
    began, cpu_began = time.perf_counter(), time.process_time()
    waveforms = [soundfile.read(path, dtype="int16")[0] for path in paths]
    units = [collapse(frames)[0] for frames in stage.frame_units(waveforms)]
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    names = [path.relative_to(corpus).as_posix() for path in paths]
    made = {name: of_one.tolist() for name, of_one in zip(names, units, strict=True)}
    return Bare(seconds, cpu_seconds, torch.get_num_threads(), made)


def bare_generate(bundle: Path, units: Units) -> Bare:
    """`LLM.generate` over every prompt at once, in the order in which the job submits them. Makes texts."""
    from spire_ray.engine import EngineSettings, engine_arguments, greedy, set_environment, stop_token_ids

    settings = EngineSettings.for_device("cpu")
    set_environment(settings)
    import numpy as np
    import torch
    from transformers import AutoTokenizer
    from vllm import LLM

    from spire_ray.checkpoints import resolve
    from spire_ray.generate import STOP_STRINGS
    from spire_ray.prompts import Prompts

    checkpoint = resolve(str(bundle))
    llm = bundle / "llm"
    tokenizer = AutoTokenizer.from_pretrained(llm, trust_remote_code=False)
    prompts = Prompts(tokenizer, checkpoint.prompt_style, unit_offset=checkpoint.unit_offset, num_units=UNITS)
    asked: dict[tuple[str, str | None], Any] = {}
    for name, of_one in sorted(units.items()):
        heard = np.array(of_one, np.int16)
        asked[name, None] = {"prompt_token_ids": prompts.transcribe(heard)}
        asked |= {(name, to): {"prompt_token_ids": prompts.translate(heard, to)} for to in sorted(LANGUAGES)}
    sampling = greedy(MAX_TOKENS, stop_token_ids(llm, tokenizer))
    engine = LLM(**engine_arguments(llm, settings))
    began, cpu_began = time.perf_counter(), time.process_time()
    outputs = engine.generate(list(asked.values()), sampling, use_tqdm=False)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    made: Texts = {}
    for key, output in zip(asked, outputs, strict=True):
        ids = list(output.outputs[0].token_ids)
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
        cut = min((at for at in map(text.find, STOP_STRINGS) if at >= 0), default=None)
        made[key] = (text[:cut].strip(), len(ids))
    return Bare(seconds, cpu_seconds, torch.get_num_threads(), made)


def run_job(bundle: Path, corpus: Path, out: Path) -> Job:
    """`spire-ray speech-to-text`, as a person would run it. CalledProcessError when it fails."""
    command = ["speech-to-text", str(corpus), str(out), "--checkpoint", str(bundle), "--languages", *LANGUAGES]
    command += ["--max-tokens", str(MAX_TOKENS), "--shard-minutes", str(SHARD_MINUTES)]
    program = "import sys; from spire_ray.cli import main; sys.exit(main())"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, *command], check=True, stdout=sys.stderr)
    wall = time.perf_counter() - began
    (record,) = (out / "runs").glob("*.json")
    units = {row["utterance_id"]: row["units"] for row in pq.read_table(out / "units").to_pylist()}
    texts: Texts = {}
    for table in ("transcripts", "translations"):
        for row in pq.read_table(out / table).to_pylist():
            texts[row["utterance_id"], row.get("target_language")] = (row["text"], row["generated_tokens"])
    return Job(json.loads(record.read_text()), wall, units, texts)


def _bundle(folder: Path) -> tuple[Path, dict[str, int]]:
    from safetensors.numpy import load_file

    from bundle import make_bundle

    make_bundle(
        folder,
        encoder_layers=ENCODER_LAYERS,
        encoder_width=ENCODER_WIDTH,
        layer=ENCODER_LAYERS,
        units=UNITS,
        llm_layers=LLM_LAYERS,
        llm_width=LLM_WIDTH,
        head_dim=HEAD_DIM,
        end_bias=END_BIAS,
    )
    parameters = {}
    for model in ("encoder", "llm"):
        weights = load_file(folder / model / "model.safetensors")
        parameters[model] = sum(weight.size for weight in weights.values())
    assert parameters["llm"] >= LLM_PARAMETERS, parameters
    return folder, parameters


def _in_child(work: Callable[..., T], *arguments: Any) -> T:
    """`work` in a process of its own, at the priority that Ray gives to the job's actors."""
    with ProcessPoolExecutor(1, get_context("spawn"), os.nice, (RAY_NICENESS,)) as pool:
        return pool.submit(work, *arguments).result()


def _cores() -> int:
    return len(os.sched_getaffinity(0))
