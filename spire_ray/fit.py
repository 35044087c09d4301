"""`spire-ray fit-codebook`: plan, settle what the fit is, sample frames, iterate, save each iteration, write the file.

Beside CODEBOOK lies the folder CODEBOOK.fit: plan, fit.json (what decides the result), one file for each iteration.
No frame ever lies on a disk: a fit that goes on encodes the same frames again.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spire_ray import __version__, pipeline
from spire_ray.checkpoints import revision_of
from spire_ray.codebook_card import FEATURES, Card, codebook_bytes
from spire_ray.driver import Driver
from spire_ray.errors import Interrupted, UserError
from spire_ray.fit_iterations import Saved, last_iteration, line_of, save_iteration
from spire_ray.fit_plan import (
    check_frames,
    check_sizes,
    corpus_sha256,
    new_codebook,
    rounds_that_fit,
    split_rounds,
)
from spire_ray.frozen import freeze
from spire_ray.holders import Holders
from spire_ray.hubert_weights import read_config
from spire_ray.kmeans import Iteration, growing_shares, lloyd, update_minibatch
from spire_ray.plan import Plan, Shard
from spire_ray.planning import AudioOptions, plan_audio
from spire_ray.progress import Progress, show_line
from spire_ray.records import load_json
from spire_ray.resources import encoder_pool, holder_pool
from spire_ray.run import ENCODER_DTYPE, HERE, SLOWEST_RTFX, DriverOptions
from spire_ray.sampling import FRAMES_PER_S, KEYS, Sample
from spire_ray.settings import Features
from spire_ray.shards import StoreAt
from spire_ray.store import Store

# Frames that the first centroids are chosen among, for each cluster and at most: 1 GB in one place at D = 1024.
SEED_FRAMES, MAX_SEED_FRAMES = 20, 500_000


@dataclass(frozen=True)
class FitOptions:
    """What a user asks of a fit."""

    encoder: str  # folder of a transformers HuBERT
    encoder_name: str  # as the user named it
    layer: int  # counted from 1
    clusters: int
    frames: int = 10_000_000  # to train on; 5 % as many are held out
    seed: int = 0


@dataclass
class _Fit:
    """A fit under way."""

    driver: Driver
    store: Store
    options: FitOptions
    features: Features
    plan: Plan
    sample: Sample
    rounds: int
    saved: Saved | None


def fit_codebook(corpus: str, target: str, options: FitOptions, audio: AudioOptions, on: DriverOptions = HERE) -> str:
    """A codebook fitted on CORPUS at `target`, a new .safetensors file. Returns its SHA-256."""
    home, name = new_codebook(target, on.storage_options)
    dim = read_config(Path(options.encoder), options.layer).hidden_size
    check_sizes(options.clusters, options.frames, options.seed)
    store = Store(f"{home.path(name)}.fit" if home.local else f"{target}.fit", on.storage_options)
    store.check_writable()
    with _driver(store, on) as driver:
        enough = partial(check_frames, clusters=options.clusters, corpus=corpus)
        plan = plan_audio(driver, store, corpus, audio, check=enough)
        fit = _settled(driver, store, plan, options, audio)
        if fit.saved is None or not _finished(fit, fit.saved):
            _run(fit, dim)
        assert fit.saved is not None
        return _write(home, name, fit)


@contextmanager
def _driver(store: Store, on: DriverOptions) -> Iterator[Driver]:
    """A driver whose runs/ID.json is written down however it ends."""
    with Driver("fit-codebook", on.address) as driver:
        try:
            yield driver
        finally:
            if driver.stages:
                record = json.dumps(driver.record(), indent=2, sort_keys=True, ensure_ascii=False)
                store.create(f"runs/{driver.id}.json", f"{record}\n".encode())


def _settled(driver: Driver, store: Store, plan: Plan, options: FitOptions, audio: AudioOptions) -> _Fit:
    """The fit as fit.json has it, where there is one: UserError naming what is now other. It is frozen later."""
    frozen = load_json(store, "fit.json")
    was = frozen["settings"] if frozen else {}
    dtype = audio.dtype or was.get("dtype") or ENCODER_DTYPE[driver.device]
    features = Features(options.encoder, options.layer, dtype, audio.max_seconds)
    planned = round(sum(plan.shard_seconds) * 1000) * FRAMES_PER_S // 1000
    sample = Sample.of(options.seed, options.frames, max(planned, 1))
    fit = _Fit(driver, store, options, features, plan, sample, was.get("rounds", 0), last_iteration(store))
    if frozen:
        freeze(store, "fit.json", _frozen(fit))
    return fit


def _frozen(fit: _Fit) -> dict[str, Any]:
    """fit.json: what decides the centroids."""
    return {
        "plan": fit.plan.fingerprint,
        **fit.features.frozen(),
        "clusters": fit.options.clusters,
        "frames": fit.options.frames,
        "seed": fit.options.seed,
        # Whole numbers up to 2^64, which JSON readers would round.
        "training_keys_below": str(fit.sample.training),
        "held_out_keys_below": str(fit.sample.held_out),
        "mode": _mode(fit),
        "rounds": fit.rounds,
    }


def _mode(fit: _Fit) -> str:
    return "full" if fit.rounds == 1 else "mini-batch"


def _finished(fit: _Fit, saved: Saved) -> bool:
    return saved.ends_round and saved.round == fit.rounds


def _run(fit: _Fit, dim: int) -> None:
    """Rounds of sampling and iterating, from the last saved iteration to the end."""
    driver = fit.driver
    holders = Holders.start(driver.cluster, holder_pool(encoder_pool(driver.cluster)))
    try:
        shards = fit.plan.without(())
        if not fit.rounds:
            kept_a_second = FRAMES_PER_S * fit.sample.held_out / KEYS
            fit.rounds = rounds_that_fit(
                shards, fit.options.seed, kept_a_second, len(holders.actors), holders.capacity(dim)
            )
        if fit.rounds > 1:
            driver.say(f"mini-batch mode: the devices cannot hold all frames, so they are taken in {fit.rounds} rounds")
        parts = split_rounds(shards, fit.options.seed, fit.rounds)
        for number in range(_next_round(fit.saved), fit.rounds + 1):
            holders.begin(dim, fit.sample.training)
            hours = _sample(fit, number, parts[number - 1], holders)
            _iterate(fit, number, hours, holders)
    finally:
        holders.end()


def _next_round(saved: Saved | None) -> int:
    return 1 if saved is None else saved.round + saved.ends_round


def _sample(fit: _Fit, number: int, shards: Sequence[Shard], holders: Holders) -> float:
    """Encode a round's shards and leave the chosen frames with the holders. Returns the hours of audio it read."""
    driver = fit.driver
    known = fit.plan.unknown_durations == 0
    stage = "frames" if fit.rounds == 1 else f"frames, round {number} of {fit.rounds}"
    progress = Progress(stage, len(shards), sum(shard.seconds for shard in shards), estimated=not known)
    dataset = pipeline.audio_to_frames(
        driver, shards, StoreAt(fit.store.url, fit.store.storage_options), fit.features, fit.sample, holders.keep
    )
    try:
        driver.run(dataset, progress, max(shard.seconds for shard in shards) / SLOWEST_RTFX)
    except Interrupted:
        raise Interrupted("stopped while frames were sampled, which is done again") from None
    training, held_out = holders.sizes()
    driver.say(f"{training:,} frames to train on, {held_out:,} held out")
    before = fit.saved
    if before is None and training < fit.options.clusters:
        raise UserError(_too_few(fit, training, progress))
    if (
        before is not None
        and before.round == number
        and (training, held_out) != (before.frames, before.held_out_frames)
    ):
        raise UserError(
            f"the corpus is not what it was: {before.frames} frames to train on and {before.held_out_frames} held out "
            f"when this fit began; mend it ({'; '.join(progress.faults[:1]) or 'no error'}), or name another codebook"
        )
    return progress.audio_s / 3600


def _too_few(fit: _Fit, training: int, progress: Progress) -> str:
    if not progress.audio_s:
        first = f" (the first: {progress.faults[0]})" if progress.faults else ""
        why = f"the corpus has no readable audio: all {progress.utterances} utterances have errors{first}"
    else:
        why = f"{training} frames were sampled to train on, fewer than --clusters {fit.options.clusters}"
    return f"{why}; no codebook was made, only the plan in {fit.store.url}"


def _iterate(fit: _Fit, number: int, hours: float, holders: Holders) -> None:
    """One round: Lloyd's iterations in the first, one update in each that follows."""
    started = time.monotonic()
    stop = fit.driver.stop
    with stop:
        training, held_out = holders.sizes()
        for iteration in _iterations(fit, number, training, holders):
            fit.saved = _saved(fit.saved, iteration, number, (training, held_out), hours)
            save_iteration(fit.store, fit.saved)
            now = time.monotonic()
            stopping = stop.requested.is_set() and not _finished(fit, fit.saved)
            show_line(sys.stderr, line_of(iteration, now - started), last=iteration.done or stopping)
            started = now
            if stopping:
                fit.driver.was_stopped = True
                raise Interrupted(f"iteration {iteration.number} is saved")


def _saved(before: Saved | None, iteration: Iteration, number: int, sizes: tuple[int, int], hours: float) -> Saved:
    earlier = before if number > 1 else None  # the end of the round before: of later rounds each has one iteration
    return Saved(
        iteration,
        number,
        frames=sizes[0] + (earlier.frames if earlier else 0),
        held_out_frames=sizes[1],
        hours=hours + (earlier.hours if earlier else 0.0),
        reseeded=iteration.reseeded + (before.reseeded if before else 0),
    )


def _iterations(fit: _Fit, number: int, training: int, holders: Holders) -> Iterator[Iteration]:
    clusters = fit.options.clusters
    if number == 1:
        if fit.saved is None:
            # Only now: before there is anything to lose, other settings may be tried on the same plan.
            freeze(fit.store, "fit.json", _frozen(fit))
            among = min(SEED_FRAMES * clusters, MAX_SEED_FRAMES)
            seeds = holders.seed(max(among, clusters), clusters, fit.options.seed)
        start = fit.saved.iteration if fit.saved else seeds
        yield from lloyd(holders.step, holders.held_out_inertia, start, growing_shares(training, clusters))
        return
    assert fit.saved is not None
    yield _update(fit.saved.iteration, holders)


def _update(last: Iteration, holders: Holders) -> Iteration:
    """One more round of mini-batch mode on top of `last`: counts are of all frames seen until then."""
    sums = holders.step(last.centroids)
    centroids, seen = update_minibatch(last.centroids, last.counts, sums)
    total, count = holders.held_out_inertia(centroids)
    return replace(
        last,
        number=last.number + 1,
        centroids=centroids,
        counts=seen,
        inertia=sums.inertia / max(sums.frames, 1),
        held_out=total / count if count else None,
        reseeded=0,
        share=1.0,
        done=True,
    )


def _write(home: Store, name: str, fit: _Fit) -> str:
    """The codebook file, whole or not at all; its SHA-256."""
    assert fit.saved is not None
    data = codebook_bytes(fit.saved.iteration.centroids, _card(fit, fit.saved))
    if not home.create(name, data) and home.get(name) != data:
        raise UserError(f"{home.url}/{name} was written by something else just now: it is left as it is")
    return hashlib.sha256(data).hexdigest()


def _card(fit: _Fit, saved: Saved) -> Card:
    iteration = saved.iteration
    return Card(
        encoder=fit.features.frozen()["encoder"],
        encoder_name=fit.options.encoder_name,
        revision=revision_of(Path(fit.features.encoder)),
        layer=str(fit.features.layer),
        **FEATURES,
        dtype=fit.features.dtype,
        corpus=corpus_sha256(fit.store),
        hours=f"{saved.hours:.6f}",
        frames=str(saved.frames),
        held_out_frames=str(saved.held_out_frames),
        seed=str(fit.options.seed),
        mode=_mode(fit) + (f", {fit.rounds} rounds" if fit.rounds > 1 else ""),
        iterations=str(iteration.number),
        reseeded=str(saved.reseeded),
        inertia=repr(iteration.inertia),
        held_out_inertia="none" if iteration.held_out is None else repr(iteration.held_out),
        source="none",
        made_by=f"spire_ray {__version__}",
    )
