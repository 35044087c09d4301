"""Codebooks: the k-means of this package against scikit-learn's, and fastkmeans and faiss where they are installed.

Each runs in a process of its own with the same cores, on the same frames of real speech in memory: prompts of the
Asterisk project in three languages (CC-BY-SA-3.0, from Debian's archive), through a HuBERT with random weights. What
each fit made is judged in one way, on frames that none has seen. Starting a process and loading libraries and frames
are not counted; seeding, and the looks of ours at its held-out frames, are.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.metadata import distributions
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Nothing that loads torch is imported up here: torch reads OMP_NUM_THREADS then, and a child sets it first.
import numpy as np
from numpy.typing import NDArray

LANGUAGES, PACKAGES_VERSION = ("en", "es", "fr"), "1.6.1-1"
MIN_SAMPLES = 8_000  # of a prompt: half a second
LAYER, WIDTH = 6, 256
CLUSTERS, HELD_OUT, SEED = 500, 0.06, 42
SEED_FRAMES = 20  # of each cluster, that ours seeds on
AUTHORS = {"init": "k-means++", "batch_size": 20_000, "reassignment_ratio": 0.01, "random_state": SEED}
TARGETS = {"of_minibatch": 1.0, "of_full": 1.005, "faster": 1.5}
COLUMNS = {"name": "", "seconds": "seconds", "iterations": "iterations", "held_out": "held-out", "of_full": "of full"}
COST_COLUMNS = {"frames": "frames", "clusters": "K", "holders": "holders", "seconds": "seconds an iteration"}
VERSIONS = ("spire-ray", "torch", "numpy", "scikit-learn", "fastkmeans", "faiss-cpu")

Frames16 = NDArray[np.float16]  # [N, WIDTH]


def measure(kept: Path) -> dict[str, Any]:
    """Every fit, and what an iteration of ours costs; frames are kept in `kept` for the next time."""
    paths = [_in_child(make_frames, kept, language) for language in LANGUAGES]
    load = [_load()]
    minibatch = _in_child(fit_minibatch, paths)
    load.append(_load())
    ours = _in_child(fit_ours, paths, minibatch["held_out"])
    load.append(_load())
    others = []
    for package, fit in (("fastkmeans", fit_fastkmeans), ("faiss-cpu", fit_faiss)):
        installed = _version(package) is not None
        others.append(_in_child(fit, paths) if installed else {"name": f"{package}: not installed"})
    costs = _in_child(cost_of_iterations, paths)
    load.append(_load())
    full = _in_child(fit_full, paths)
    rows = [minibatch, full, {**ours, "name": "ours, until it stops"}, until_target(ours), *others]
    for row in (each for each in rows if "held_out" in each):
        row["of_full"] = f"{row['held_out'] / full['held_out']:.4f}"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": {"processor": _processor(), "cpus": _cores(), "gpus": 0},
        "versions": {name: found for name in VERSIONS if (found := _version(name))},
        "load": load,
        "frames": dict(zip(("training", "held_out"), _in_child(_sizes, paths), strict=True)),
        "encoder": {"width": WIDTH, "layer": LAYER, "weights": "random"},
        "clusters": CLUSTERS,
        "rows": rows,
        "costs": costs,
        "of_minibatch": round(ours["held_out"] / minibatch["held_out"], 4),
        "of_full": round(ours["held_out"] / full["held_out"], 4),
        "faster": round(minibatch["seconds"] / ours["at_target"]["seconds"], 2) if ours["at_target"] else None,
        "targets": TARGETS,
    }


def until_target(ours: Mapping[str, Any]) -> dict[str, Any]:
    """The row of our fit up to MiniBatchKMeans's held-out inertia, which it may never have reached."""
    name, at = "ours, until as good as MiniBatchKMeans", ours["at_target"]
    return {**ours, **at, "name": name} if at else {"name": f"{name}: not reached"}


def heading(report: Mapping[str, Any]) -> str:
    """What was measured, on what."""
    frames = report["frames"]
    return (
        f"load    {', '.join(map(str, report['load']))}: before, and after parts of it\n"
        f"frames  {frames['training']:,} of real speech to train on and {frames['held_out']:,} held out, "
        f"{WIDTH}-d, layer {LAYER} of a HuBERT with random weights; K = {CLUSTERS}"
    )


def verdict(report: Mapping[str, Any]) -> str:
    """The ratios beside their targets."""
    of, faster = report["targets"], report["faster"] or "not reached"
    return "\n".join(
        [
            f"held-out inertia / MiniBatchKMeans: {report['of_minibatch']:.4f} (target: at most {of['of_minibatch']})",
            f"held-out inertia / full Lloyd: {report['of_full']:.4f} (target: at most {of['of_full']})",
            f"MiniBatchKMeans's seconds / ours, to its held-out inertia: {faster} (target: at least {of['faster']})",
        ]
    )


def fit_minibatch(paths: list[Path]) -> dict[str, Any]:
    """scikit-learn's MiniBatchKMeans with the settings of SPIRE's authors' newer trainer."""
    from sklearn.cluster import MiniBatchKMeans

    training, held_out = split(paths)
    x = training.astype(np.float32)
    model, seconds = _timed(lambda: MiniBatchKMeans(CLUSTERS, **AUTHORS).fit(x))
    judged = inertia(model.cluster_centers_, held_out)
    return _row("sklearn MiniBatchKMeans, authors' settings", seconds, f"{model.n_steps_} batches", judged)


def fit_full(paths: list[Path]) -> dict[str, Any]:
    """scikit-learn's KMeans: Lloyd's iterations over all frames from k-means++, until it stops by itself."""
    from sklearn.cluster import KMeans

    training, held_out = split(paths)
    x = training.astype(np.float32)
    model, seconds = _timed(lambda: KMeans(CLUSTERS, init="k-means++", n_init=1, random_state=SEED).fit(x))
    return _row("sklearn KMeans, full Lloyd", seconds, model.n_iter_, inertia(model.cluster_centers_, held_out))


def fit_ours(paths: list[Path], target: float) -> dict[str, Any]:
    """One holder, from frames in memory to the end; and when its held-out inertia was first at `target`."""
    import torch

    from spire_ray.kmeans import Frames, growing_shares, lloyd
    from spire_ray.seeding import seed_centroids

    torch.set_num_threads(_cores())
    training, held_out = split(paths)
    frames = np.concatenate([training, held_out])
    of_held_out = np.arange(len(frames)) >= len(training)
    keys = np.random.default_rng(SEED).integers(0, 2**64, len(frames), dtype=np.uint64)
    torch.mm(torch.ones(512, 512), torch.ones(512, 512))  # starts torch's threads
    at_target: dict[str, Any] = {}
    began = time.perf_counter()
    holder = Frames(WIDTH)
    holder.add(0, frames, keys, of_held_out)
    seeds = seed_centroids(holder.smallest(SEED_FRAMES * CLUSTERS)[1], CLUSTERS, SEED)
    seeded = time.perf_counter() - began
    shares = growing_shares(len(training), CLUSTERS)
    curve: list[dict[str, Any]] = []
    for iteration in lloyd(holder.step, holder.held_out_inertia, seeds, shares):
        seconds = time.perf_counter() - began
        assert iteration.held_out is not None
        curve.append({"seconds": round(seconds, 2), "share": iteration.share, "held_out": round(iteration.held_out, 3)})
        if not at_target and iteration.held_out <= target:
            at_target = {**curve[-1], "iterations": iteration.number}
    row = _row("ours", time.perf_counter() - began, iteration.number, inertia(iteration.centroids, held_out))
    return {**row, "seeded_after": round(seeded, 2), "curve": curve, "at_target": at_target}


def fit_fastkmeans(paths: list[Path]) -> dict[str, Any]:
    """As fastkmeans comes: 25 iterations from random frames, over all frames."""
    fastkmeans = import_module("fastkmeans")

    training, held_out = split(paths)
    x = training.astype(np.float32)
    model = fastkmeans.FastKMeans(WIDTH, CLUSTERS, gpu=False, use_triton=False, seed=SEED)
    _, seconds = _timed(lambda: model.train(x))
    return _row("fastkmeans, as it comes", seconds, model.niter, inertia(model.centroids, held_out))


def fit_faiss(paths: list[Path]) -> dict[str, Any]:
    """As faiss comes: 25 iterations from random frames, over at most 256 frames a cluster."""
    faiss = import_module("faiss")

    faiss.omp_set_num_threads(_cores())
    training, held_out = split(paths)
    x = training.astype(np.float32)
    model = faiss.Kmeans(WIDTH, CLUSTERS, seed=SEED)
    _, seconds = _timed(lambda: model.train(x))
    return _row("faiss, as it comes", seconds, model.cp.niter, inertia(model.centroids, held_out))


def cost_of_iterations(paths: list[Path]) -> list[dict[str, Any]]:
    """Seconds of one `step`, the best of three, with half the frames and all, K, and holders one after the other."""
    import torch

    from spire_ray.kmeans import Frames

    torch.set_num_threads(_cores())
    training, _ = split(paths)
    keys = np.random.default_rng(SEED).integers(0, 2**64, len(training), dtype=np.uint64)
    rows, half, whole = [], len(training) // 2, len(training)
    for count, clusters, holders in (
        *((half, CLUSTERS, 1), (whole, CLUSTERS // 2, 1), (whole, CLUSTERS, 1), (whole, 2 * CLUSTERS, 1)),
        *((whole, CLUSTERS, 2), (whole, CLUSTERS, 4)),
    ):
        shares = [Frames(WIDTH) for _ in range(holders)]
        for number, holder in enumerate(shares):
            mine = slice(number, count, holders)
            holder.add(number, training[mine], keys[mine], np.zeros(len(keys[mine]), np.bool_))
        centroids = training[:clusters].astype(np.float32)
        shares[0].step(centroids)
        seconds = min(_timed(_step_all, shares, centroids)[1] for _ in range(3))
        rows.append({"frames": f"{count:,}", "clusters": clusters, "holders": holders, "seconds": f"{seconds:.2f}"})
    return rows


def _step_all(holders: list[Any], centroids: NDArray[np.float32]) -> Any:
    first, *others = [holder.step(centroids) for holder in holders]
    return sum(others, start=first)


def split(paths: list[Path]) -> tuple[Frames16, Frames16]:
    """Frames to train on, and held out: the same each time."""
    frames = np.concatenate([np.load(path) for path in paths])
    held_out = np.random.default_rng(SEED).random(len(frames)) < HELD_OUT
    return frames[~held_out], frames[held_out]


def inertia(centroids: NDArray[np.floating[Any]], frames: Frames16) -> float:
    """Mean squared distance to the nearest centroid, in numpy's float64."""
    x, c = frames.astype(np.float64), np.asarray(centroids, np.float64)
    total = 0.0
    for part in np.array_split(x - c.mean(axis=0), 16):
        scores = np.square(c - c.mean(axis=0)).sum(axis=1) - 2 * part @ (c - c.mean(axis=0)).T
        total += float((scores.min(axis=1) + np.square(part).sum(axis=1)).sum())
    return total / len(frames)


def make_frames(folder: Path, language: str) -> Path:
    """Features of one language's prompts, float16 [N, WIDTH] in an .npy file: made once."""
    path = folder / f"frames-{language}.npy"
    if path.exists():
        return path
    import torch

    from bundle import make_bundle
    from spire_ray.hubert import Encoder, micro_batches

    torch.set_num_threads(_cores())
    bundle = make_bundle(folder / f"bundle-{language}", encoder_layers=LAYER, encoder_width=WIDTH, layer=LAYER)
    encoder = Encoder(bundle / "encoder", LAYER)
    sounds = [_decode(each) for each in _prompts(folder, language)]
    sounds = [sound for sound in sounds if len(sound) >= MIN_SAMPLES]
    made: list[NDArray[np.float16]] = [np.empty((0, WIDTH), np.float16)] * len(sounds)
    for group in micro_batches([len(sound) for sound in sounds], 30.0):
        for index, features in zip(group, encoder.features([sounds[i] for i in group]), strict=True):
            made[index] = features.half().numpy()
    with path.with_suffix(".partial").open("wb") as file:
        np.save(file, np.concatenate(made))
    return path.with_suffix(".partial").rename(path)


def _prompts(folder: Path, language: str) -> list[Path]:
    name = f"asterisk-core-sounds-{language}-g722"
    if not (folder / name).exists():
        subprocess.run(["apt-get", "download", "--quiet", f"{name}={PACKAGES_VERSION}"], cwd=folder, check=True)
        subprocess.run(["dpkg", "-x", *map(str, folder.glob(f"{name}_*.deb")), str(folder / name)], check=True)
    sounds = sorted((folder / name).rglob("*.g722"))
    return [path for path in sounds if path.stat().st_size and "silence" not in path.parts]


def _decode(path: Path) -> NDArray[np.int16]:
    import av

    with av.open(str(path), format="g722") as container:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])


def _row(name: str, seconds: float, iterations: int | str, held_out: float) -> dict[str, Any]:
    print(f"{name}: {seconds:.1f} s", file=sys.stderr)
    return {"name": name, "seconds": round(seconds, 2), "iterations": iterations, "held_out": round(held_out, 3)}


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    made = work(*arguments)
    return made, time.perf_counter() - began


def _sizes(paths: list[Path]) -> list[int]:
    return [len(part) for part in split(paths)]


def _version(package: str) -> str | None:
    found = [each.version for each in distributions(name=package)]
    return found[0] if found else None


def _in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    os.environ |= {"OMP_NUM_THREADS": str(_cores()), "OPENBLAS_NUM_THREADS": str(_cores()), "CUDA_VISIBLE_DEVICES": ""}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _load() -> float:
    return round(os.getloadavg()[0], 2)
