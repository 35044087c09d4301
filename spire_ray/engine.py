"""vLLM as this project runs it: its settings, its environment, and how it starts, decodes and ends."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spire_ray.checkpoints import context_length, read_json
from spire_ray.errors import MachineFault

CPU_KV_BYTES = 1 << 30
# A loop: up to LOOP_TOKENS tokens, LOOP_TIMES in a row. It costs 64 tokens then, not max_tokens. Looking for 20 tokens
# costs the scheduler 7 microseconds a token instead of 3; fewer times would cut 1000000 off.
LOOP_TOKENS, LOOP_TIMES = 8, 8
# vLLM reads these while it is imported, in this process and in the engine's own.
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # INFO prints requests, and what people said is in them
    "OTEL_SDK_DISABLED": "true",  # exporters beside a loading model crashed workers (NeMo Curator PR 1842)
    "TOKENIZERS_PARALLELISM": "false",
}
CPU_ENVIRONMENT = {
    # One engine process and no executor processes under it: it starts 10 s sooner and needs half the memory.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # "auto" pins threads to one logical CPU per core, less one, whatever else runs there: on 2 cores to one.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


@dataclass(frozen=True)
class EngineSettings:
    """How the engine is run. Nothing here is meant to change the text; dtype and quantization change low bits."""

    device: str  # cpu or cuda
    dtype: str  # of weights and activations: bfloat16 is the authors', float32 the reference
    max_num_seqs: int  # requests in one step
    enforce_eager: bool = False  # True: no CUDA graphs, no compilation
    max_num_batched_tokens: int | None = None  # tokens in one step; None: vLLM's choice
    gpu_memory_utilization: float = 0.92  # of a GPU's memory, weights and KV cache together
    kv_cache_memory_bytes: int | None = None  # None: on GPUs what memory is left, on CPUs 1 GiB or one full context
    block_size: int | None = None  # tokens in a KV block, the grain of prefix sharing; None: vLLM's choice
    tensor_parallel_size: int = 1  # GPUs to one engine
    quantization: str | None = None  # "fp8": weights in 8 bits, quantised while loading (+10 to 26 % on an H100)
    async_scheduling: bool | None = None  # plan a step while the last one runs; None: vLLM's choice, which is to
    deterministic: bool = False  # an answer does not depend on what else is in the engine
    load_format: str = "safetensors"  # never a pickle; "dummy": made-up weights, for benchmarks
    max_logprobs: int = 20  # most that a request may ask for of a token; beam search needs some
    threads: int | None = None  # on CPUs; None: one for each that the process may use

    @classmethod
    def for_device(cls, device: str, tensor_parallel_size: int = 1) -> "EngineSettings":
        """Defaults: bfloat16 on GPUs, 1024 sequences; float32 on CPUs without compilation, 256 sequences."""
        if device == "cuda":
            # More would not help an H100: the step grows with it, and the KV cache holds about 1150 that share.
            return cls("cuda", "bfloat16", max_num_seqs=1024, tensor_parallel_size=tensor_parallel_size)
        # Compiling takes over a minute on CPUs. Their default block of 128 tokens shares less of a prompt of 300.
        return cls("cpu", "float32", max_num_seqs=256, enforce_eager=True, block_size=32)

    def reproducible(self) -> "EngineSettings":
        """The same, deterministic: on GPUs with vLLM's batch-invariant kernels (1 to 35 % slower).

        CPUs have none, and the shape of a product decides its low bits: there one request is computed at a time.
        """
        if self.device == "cuda":
            return replace(self, deterministic=True)
        return replace(self, deterministic=True, max_num_seqs=1)


def start_engine(llm: Path, settings: EngineSettings) -> Any:
    """A started `vllm.AsyncLLM` over the folder `llm`. MachineFault, of one line, when it does not start.

    The engine lives in a process of its own. It needs no running event loop yet; the loop of the first request is its
    loop from then on.
    """
    set_environment(settings)
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = engine_arguments(llm, settings)
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments, enable_log_requests=False))
    except (RuntimeError, ValueError, OSError, KeyError, AssertionError) as fault:
        reason = " ".join(str(fault).split())[:300]
        raise MachineFault(f"vLLM did not start with {llm} on {settings.device}: {reason}") from fault


def engine_arguments(llm: Path, settings: EngineSettings) -> dict[str, Any]:
    """The arguments of an engine over the folder `llm`, such as `vllm.LLM` takes them too."""
    arguments: dict[str, Any] = {
        "model": str(llm),
        "dtype": settings.dtype,
        "max_model_len": context_length(llm),
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,  # prompts go in and answers come out as token ids
        "generation_config": "vllm",  # not the checkpoint's: it may ask for sampling
        "tensor_parallel_size": settings.tensor_parallel_size,
        "disable_log_stats": True,
        "load_format": settings.load_format,
        "max_logprobs": settings.max_logprobs,
    }
    chosen = {
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "kv_cache_memory_bytes": settings.kv_cache_memory_bytes,
        "block_size": settings.block_size,
        "quantization": settings.quantization,
        "async_scheduling": settings.async_scheduling,
        # Left to itself vLLM looks for as many GPUs in this process, and its actor holds none: see groups.py.
        "distributed_executor_backend": "ray" if settings.tensor_parallel_size > 1 else None,
    }
    arguments |= {name: value for name, value in chosen.items() if value is not None}
    if settings.device == "cuda":
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    else:
        arguments.setdefault("kv_cache_memory_bytes", max(CPU_KV_BYTES, full_context_bytes(llm, settings.dtype)))
    return arguments


def set_environment(settings: EngineSettings) -> None:
    """The environment of an engine, where the user has set nothing else. Must come before vLLM is imported."""
    for name, value in (ENVIRONMENT | (CPU_ENVIRONMENT if settings.device == "cpu" else {})).items():
        os.environ.setdefault(name, value)
    if settings.device == "cuda" and settings.deterministic:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    if settings.device == "cpu":
        # Not a default: Ray sets it to the CPUs an actor reserves, often 1, and the engine's process reads it.
        os.environ["OMP_NUM_THREADS"] = str(settings.threads or len(os.sched_getaffinity(0)))


def full_context_bytes(llm: Path, dtype: str) -> int:
    """What one sequence as long as the context takes in the KV cache, and a block more."""
    config = read_json(llm / "config.json")
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = heads * (config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    per_token = 2 * int(config["num_hidden_layers"]) * int(width) * (4 if dtype == "float32" else 2)
    return per_token * (context_length(llm) + 128)


def greedy(max_tokens: int, stop_token_ids: list[int]) -> Any:
    """`vllm.SamplingParams` of SPIRE's evaluation: greedy, ended by `stop_token_ids`, answered once, as ids.

    One addition: an answer that has got into a loop is ended too, with finish_reason `repetition`.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind

    return SamplingParams(
        temperature=0.0,
        max_tokens=max_tokens,
        repetition_detection=RepetitionDetectionParams(max_pattern_size=LOOP_TOKENS, min_count=LOOP_TIMES),
        stop_token_ids=stop_token_ids,
        ignore_eos=True,  # every end of text is among stop_token_ids
        output_kind=RequestOutputKind.FINAL_ONLY,  # an object a step costs the event loop as much as the engine's step
        detokenize=False,  # text is decoded once, outside the engine
        logprobs=0,  # of the generated tokens alone
        skip_clone=True,
    )


def next_token(candidates: int) -> Any:
    """`vllm.SamplingParams` of one step of beam search: one token, with the log-probabilities of the best of them."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        ignore_eos=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        detokenize=False,
        logprobs=candidates,
        skip_clone=True,
    )


def stop_token_ids(llm: Path, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the ends of text, and all tokens with a newline in them (Llama-2: `<0x0A>`)."""
    ends: set[int] = set()
    settings: list[Mapping[str, Any]] = [read_json(llm / "config.json")]
    if (llm / "generation_config.json").is_file():
        settings.append(read_json(llm / "generation_config.json"))
    for named in (*(one.get("eos_token_id") for one in settings), tokenizer.eos_token_id):
        ends.update(named if isinstance(named, list) else [] if named is None else [named])
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    # Some instruct checkpoints name </s> in their config and end their turns all the same.
    ends.update(vocabulary[piece] for piece in ("<|im_end|>",) if piece in vocabulary)
    ids = sorted(vocabulary.values())
    texts = tokenizer.batch_decode([[index] for index in ids])
    return sorted(ends | {index for index, text in zip(ids, texts, strict=True) if "\n" in text})
