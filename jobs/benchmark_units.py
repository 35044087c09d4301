"""Speech to units: the usual ways, the packed encoder, and the whole `spire-ray tokenize`, on one machine in one run.

Each way runs in a process of its own, with the same cores, on the same speech in memory, after a warm-up; the job reads
it from files. Units are compared, on every frame, with those of
transformers' float32 features, one utterance at a time, and the nearest centroid in float64.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Nothing that loads torch is imported up here: torch reads OMP_NUM_THREADS then, and a child sets it first.
import numpy as np
import pyarrow.parquet as pq
import soundfile
from numpy.typing import NDArray

from benchmark_corpus import write_corpus
from benchmark_encoder import LAYER, write_encoder

MINUTES = {"cpu": 2.5, "cuda": 80.0}
HALF = {"cpu": "bfloat16", "cuda": "float16"}
BATCH_S = 240.0  # the authors' batches: sorted by length, padded
TARGETS = {"cpu": (1.5, 0.85), "cuda": (1.5, 0.80)}  # ours over the authors' way; the job over the bare encoder

COLUMNS = {
    "name": "",
    "seconds": "seconds",
    "rtfx": "RTFx",
    "over_authors": "of authors'",
    "agreement": "same units",
    "memory_gb": "GB",
}

Units = list[NDArray[np.int64]]


@dataclass(frozen=True)
class Ran:
    """What one way took (wall time after the warm-up; the peak of the process's or the GPU's memory) and made."""

    seconds: float
    memory_gb: float | None
    units: Units  # of every frame, in the order of the files
    padding: float = 1.0  # samples computed over samples there were
    own_units: Units | None = None  # where `units` are not what it made but what the others are compared with


def measure(minutes: float | None, encoder: Path | None, codebook: Path | None, folder: Path) -> dict[str, Any]:
    """Every way over `minutes` of synthetic speech: what came out. Random weights unless both are given."""
    device = _in_child(_device)
    if encoder is None or codebook is None:
        encoder, codebook = _in_child(write_encoder, folder / "weights")
    lengths = write_corpus(folder / "corpus", minutes or MINUTES[device])
    place = (encoder, codebook, folder / "corpus", device)
    audio_s, load = sum(lengths), [round(os.getloadavg()[0], 2)]
    ways: list[tuple[str, Ran]] = []
    for name, work, more in (
        ("transformers, one by one, 24 layers, float32", transformers_alone, ()),
        ("authors' way: transformers, padded batches of 240 s, 22 layers, float32", transformers_padded, ()),
        ("packed encoder, float32", packed_encoder, ("float32",)),
        (f"packed encoder, {HALF[device]}", packed_encoder, (HALF[device],)),
    ):
        ways.append((name, _in_child(work, *place, *more)))
        load.append(round(os.getloadavg()[0], 2))
    # The job runs in what it would choose by itself: float32 on CPUs, float16 on GPUs.
    bare = ways[2] if device == "cpu" else ways[3]
    job, record = run_job(encoder, codebook, folder / "corpus", folder / "out", bare[1])
    load.append(round(os.getloadavg()[0], 2))
    ways.append((f"job: spire-ray tokenize, {'float32' if device == 'cpu' else HALF[device]}", job))
    reference = np.concatenate(ways[0][1].units)
    rows = [
        {
            "name": name,
            "seconds": round(ran.seconds, 2),
            "rtfx": round(audio_s / ran.seconds, 2),
            "agreement": round(float(np.mean(np.concatenate(ran.own_units or ran.units) == reference)), 5),
            "memory_gb": round(ran.memory_gb, 2) if ran.memory_gb else None,
            "over_authors": round(ways[1][1].seconds / ran.seconds, 2),
        }
        for name, ran in ways
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": record["hardware"] | {"gpu": _in_child(_gpu)},
        "versions": record["versions"],
        "gemm": _in_child(_gemm),
        "load": load,
        "corpus": {"minutes": round(audio_s / 60, 2), "utterances": len(lengths), "frames": len(reference)},
        "padding": round(ways[1][1].padding, 3),
        "parity": record["stages"]["units"]["parity"],
        "rows": rows,
        "over_authors": round(ways[1][1].seconds / bare[1].seconds, 3),
        "job_over_bare": round(bare[1].seconds / job.seconds, 3),
        "targets": TARGETS[device],
    }


def add_options(one: argparse.ArgumentParser) -> None:
    """The options of `measure`."""
    one.add_argument("--minutes", type=float, help="of speech (2.5 on CPUs, 80 on a GPU)")
    one.add_argument("--encoder", type=Path, metavar="DIR", help="a transformers HuBERT folder (random weights)")
    one.add_argument("--codebook", type=Path, metavar="FILE", help="its codebook for layer 22, safetensors")


def heading(report: Mapping[str, Any]) -> str:
    """What was measured, on what."""
    corpus = report["corpus"]
    lines = [
        f"GPU     {report['hardware']['gpu']}; matrix products in {report['gemm']}",
        f"load    {', '.join(map(str, report['load']))}: before, and after each row",
        f"corpus  synthetic, {corpus['minutes']:.1f} minutes, {corpus['utterances']} utterances, "
        f"{corpus['frames']:,} frames; padding makes it {report['padding']:.2f} times as much for the authors' way",
    ]
    return "\n".join(lines)


def verdict(report: Mapping[str, Any]) -> str:
    """The ratios beside their targets."""
    parity = report["parity"]
    over_authors, job_over_bare = report["targets"]
    lines = [
        f"packed / authors' way: {report['over_authors']:.2f} (target: at least {over_authors})",
        f"job / bare encoder: {report['job_over_bare']:.2f} (target: at least {job_over_bare})",
        f"the job's parity gate: {parity['other_units']} of {parity['frames']} frames have another unit",
    ]
    return "\n".join(lines)


def transformers_alone(encoder: Path, codebook: Path, corpus: Path, device: str) -> Ran:
    """`output_hidden_states` of all layers, one utterance at a time, and `cdist`."""
    import torch

    model, extractor, centroids = _transformers(encoder, codebook, device, None)
    features: list[torch.Tensor] = []

    def encode(waveforms: Sequence[NDArray[np.int16]]) -> Units:
        made = []
        features.clear()
        for waveform in waveforms:
            inputs = extractor(waveform / np.float32(32_768), sampling_rate=16_000, return_tensors="pt").to(device)
            hidden = model(inputs.input_values, output_hidden_states=True).hidden_states[LAYER][0]
            made.append(torch.cdist(hidden, centroids).argmin(dim=1).cpu().numpy())
            features.append(hidden)
        return made

    ran = _timed(encode, corpus, device)
    # What the others are compared with, and not timed: torch's float32 cdist errs between centroids nearly as near.
    exact = [torch.cdist(hidden.double(), centroids.double()).argmin(dim=1).cpu().numpy() for hidden in features]
    return replace(ran, units=exact, own_units=ran.units)


def transformers_padded(encoder: Path, codebook: Path, corpus: Path, device: str) -> Ran:
    """Sorted by length, padded to the longest of each batch of BATCH_S, with the attention mask, 22 layers."""
    import torch

    model, extractor, centroids = _transformers(encoder, codebook, device, LAYER)
    padded = 0

    def encode(waveforms: Sequence[NDArray[np.int16]]) -> Units:
        nonlocal padded
        padded = 0
        made: dict[int, NDArray[np.int64]] = {}
        for batch in _sorted_batches([len(waveform) for waveform in waveforms]):
            samples = [waveforms[index] / np.float32(32_768) for index in batch]
            inputs = extractor(
                samples, sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="pt"
            ).to(device)
            padded += inputs.input_values.numel()
            hidden = model(**inputs).last_hidden_state
            counts = model._get_feat_extract_output_lengths(inputs.attention_mask.sum(dim=1)).tolist()
            for index, features, count in zip(batch, hidden, counts, strict=True):
                made[index] = torch.cdist(features[:count], centroids).argmin(dim=1).cpu().numpy()
        return [made[index] for index in range(len(waveforms))]

    ran = _timed(encode, corpus, device)
    return replace(ran, padding=padded / sum(map(len, _read(corpus))))


def packed_encoder(encoder: Path, codebook: Path, corpus: Path, device: str, dtype: str) -> Ran:
    """The encoder and codebook of this package, without Ray."""
    from spire_ray.encode import EncodeUnits

    stage = EncodeUnits(str(encoder), str(codebook), LAYER, device, dtype, threads=_cores())
    return _timed(stage.frame_units, corpus, device)


def run_job(encoder: Path, codebook: Path, corpus: Path, out: Path, bare: Ran) -> tuple[Ran, dict[str, Any]]:
    """`spire-ray tokenize` as a person would run it, and its record. CalledProcessError when it fails."""
    command = ["tokenize", str(corpus), str(out), "--encoder", str(encoder), "--layer", str(LAYER)]
    program = "import sys; from spire_ray.cli import main; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-c", program, *command, "--codebook", str(codebook)], check=True, stdout=sys.stderr
    )
    (path,) = (out / "runs").glob("*.json")
    record: dict[str, Any] = json.loads(path.read_text())
    rows = sorted(pq.read_table(out / "units").to_pylist(), key=lambda row: row["utterance_id"])
    units = [np.repeat(np.asarray(row["units"], np.int64), row["run_lengths"]) for row in rows]
    # Its actors' memory is not measured: beside the encoder, Ray has processes and a store of its own.
    return Ran(record["stages"]["units"]["work_seconds"], None, units), record


def _transformers(encoder: Path, codebook: Path, device: str, layers: int | None) -> tuple[Any, Any, Any]:
    import torch
    from safetensors.torch import load_file
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    torch.set_num_threads(_cores())
    torch.set_grad_enabled(False)
    model = HubertModel.from_pretrained(encoder).eval()  # type: ignore[no-untyped-call]
    if layers is not None:
        # `hidden_states[22]` of the whole model is the output of a 22-layer one without its final norm.
        model.encoder.layers = model.encoder.layers[:layers]
        model.encoder.layer_norm = torch.nn.Identity()
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)  # type: ignore[no-untyped-call]
    return model.to(device), extractor, load_file(codebook)["centroids"].to(device)


def _sorted_batches(lengths: Sequence[int]) -> list[list[int]]:
    batches: list[list[int]] = []
    room = 0.0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or lengths[index] > room:
            batches.append([])
            room = BATCH_S * 16_000
        batches[-1].append(index)
        room -= lengths[index]
    return batches


def _timed(encode: Callable[[Sequence[NDArray[np.int16]]], Units], corpus: Path, device: str) -> Ran:
    import torch

    waveforms = _read(corpus)
    # On a GPU everything once: a shape seen for the first time costs about 0.3 s there.
    encode(waveforms if device == "cuda" else waveforms[:1])
    began = time.perf_counter()
    units = encode(waveforms)
    seconds = time.perf_counter() - began
    if device == "cuda":
        return Ran(seconds, torch.cuda.max_memory_allocated() / 1e9, units)
    return Ran(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, units)


def _read(corpus: Path) -> list[NDArray[np.int16]]:
    return [soundfile.read(path, dtype="int16")[0] for path in sorted(corpus.rglob("*.flac"))]


def _in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    os.environ["OMP_NUM_THREADS"] = str(_cores())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _gemm() -> str:
    import torch

    from spire_ray.linear import for_products

    ours = "oneDNN" if for_products((torch.zeros(16, 16), None))[0].is_mkldnn else "torch's own"
    theirs = "MKL" if "Math Kernel Library" in torch.__config__.show() else "another BLAS"
    return f"float32 on CPUs: {ours} for the packed encoder, {theirs} for transformers"


def _cores() -> int:
    return len(os.sched_getaffinity(0))
