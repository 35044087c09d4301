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
from dataclasses import replace
from functools import partial
from pathlib import Path

from spire_ray import pipeline
from spire_ray.codebook_card import codebook_bytes
from spire_ray.driver import Driver
from spire_ray.errors import Interrupted, UserError
from spire_ray.fit_iterations import Saved, last_iteration, line_of, save_iteration
from spire_ray.fit_plan import (
    check_frames,
    check_sizes,
    new_codebook,
    refuse_overfull,
    rounds_that_fit,
    split_rounds,
)
from spire_ray.fit_state import Fit, FitOptions
from spire_ray.frozen import freeze
from spire_ray.holders import Holders
from spire_ray.hubert_weights import read_config
from spire_ray.kmeans import Iteration, growing_shares, lloyd, update_minibatch
from spire_ray.plan import Plan, Shard
from spire_ray.planning import AudioOptions, plan_audio
from spire_ray.pools import encoder_pool, holder_pool
from spire_ray.progress import Progress, show_line
from spire_ray.records import load_json
from spire_ray.run import ENCODER_DTYPE, HERE, SLOWEST_RTFX, DriverOptions
from spire_ray.sampling import FRAMES_PER_S, Sample
from spire_ray.settings import Features
from spire_ray.shards import StoreAt
from spire_ray.store import Store

# Frames that the first centroids are chosen among, for each cluster and at most: 1 GB in one place at D = 1024.
SEED_FRAMES, MAX_SEED_FRAMES = 20, 500_000


def fit_codebook(corpus: str, target: str, options: FitOptions, audio: AudioOptions, on: DriverOptions = HERE) -> str:
    """A codebook fitted on CORPUS at `target`, a new .safetensors file. Returns its SHA-256."""
    home, name = new_codebook(target, on.storage_options)
    dim = read_config(Path(options.encoder), options.layer).hidden_size
    check_sizes(options.clusters, options.frames, options.seed)
    store = Store(f"{home.path(name)}.fit" if home.local else f"{target}.fit", on.storage_options)
    store.check_writable()
    with _named_codebook(), _driver(store, on) as driver:
        enough = partial(check_frames, clusters=options.clusters, corpus=corpus)
        plan = plan_audio(driver, store, corpus, audio, check=enough)
        fit = _settled(driver, store, plan, options, audio)
        if not fit.finished:
            _run(fit, dim)
        return _write(home, name, fit)


@contextmanager
def _named_codebook() -> Iterator[None]:
    """Refusals of a plan or of settings advise another OUT, which this command has not."""
    try:
        yield
    except UserError as fault:
        raise UserError(str(fault).replace("use another OUT", "name another codebook")) from fault


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


def _settled(driver: Driver, store: Store, plan: Plan, options: FitOptions, audio: AudioOptions) -> Fit:
    """The fit as fit.json has it, where there is one: UserError naming what is now other. It is frozen later."""
    frozen = load_json(store, "fit.json")
    was = frozen["settings"] if frozen else {}
    dtype = audio.dtype or was.get("dtype") or ENCODER_DTYPE[driver.device]
    features = Features(options.encoder, options.layer, dtype, audio.max_seconds)
    planned = round(sum(plan.shard_seconds) * 1000) * FRAMES_PER_S // 1000
    sample = Sample.of(options.seed, options.frames, max(planned, 1))
    fit = Fit(driver, store, options, features, plan, sample, was.get("rounds", 0), last_iteration(store))
    if frozen:
        freeze(store, "fit.json", fit.frozen())
    return fit


def _run(fit: Fit, dim: int) -> None:
    """Rounds of sampling and iterating, from the last saved iteration to the end."""
    driver = fit.driver
    holders = Holders.start(driver.cluster, holder_pool(encoder_pool(driver.cluster)))
    try:
        shards = fit.plan.without(())
        room = len(holders.actors), holders.capacity(dim)
        if not fit.rounds:
            fit.rounds = rounds_that_fit(shards, fit.options.seed, fit.kept_a_second, *room)
        if fit.rounds > 1:
            driver.say(f"mini-batch mode: the devices cannot hold all frames, so they are taken in {fit.rounds} rounds")
        parts = split_rounds(shards, fit.options.seed, fit.rounds)
        refuse_overfull(parts[fit.next_round - 1 :], fit.kept_a_second, *room)
        for number in range(fit.next_round, fit.rounds + 1):
            holders.begin(dim, fit.sample.training)
            hours = _sample(fit, number, parts[number - 1], holders)
            _iterate(fit, number, hours, holders)
    finally:
        holders.end()


def _sample(fit: Fit, number: int, shards: Sequence[Shard], holders: Holders) -> float:
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


def _too_few(fit: Fit, training: int, progress: Progress) -> str:
    if not progress.audio_s:
        first = f" (the first: {progress.faults[0]})" if progress.faults else ""
        why = f"the corpus has no readable audio: all {progress.utterances} utterances have errors{first}"
    else:
        why = f"{training} frames were sampled to train on, fewer than --clusters {fit.options.clusters}"
    return f"{why}; no codebook was made, and {fit.store.url}, which has the plan alone, may be removed"


def _iterate(fit: Fit, number: int, hours: float, holders: Holders) -> None:
    """One round: Lloyd's iterations in the first, one update in each that follows."""
    with fit.driver.stop:
        try:
            _iterate_and_save(fit, number, hours, holders)
        except Interrupted:  # between iterations, at a second signal, or after the time that one has
            fit.driver.was_stopped = True
            raise Interrupted(_how_far(fit)) from None


def _iterate_and_save(fit: Fit, number: int, hours: float, holders: Holders) -> None:
    started = time.monotonic()
    sizes = holders.sizes()
    for iteration in _iterations(fit, number, sizes[0], holders):
        fit.saved = _saved(fit.saved, iteration, number, sizes, hours)
        save_iteration(fit.store, fit.saved)
        now = time.monotonic()
        stopping = fit.driver.stop.requested.is_set() and not fit.finished
        show_line(sys.stderr, line_of(iteration, now - started), last=iteration.done or stopping)
        started = now
        if stopping:
            raise Interrupted


def _how_far(fit: Fit) -> str:
    if fit.saved is None:
        return "stopped before the first iteration was saved: frames are sampled again"
    return f"iteration {fit.saved.iteration.number} is saved"


def _saved(before: Saved | None, iteration: Iteration, number: int, sizes: tuple[int, int], hours: float) -> Saved:
    earlier = before if number > 1 else None  # the end of the round before: of later rounds each has one iteration
    return Saved(
        iteration,
        number,
        frames=sizes[0] + (earlier.frames if earlier else 0),
        # Of this round alone, as the inertia is: frames of earlier rounds are gone, and a fit that goes on lacks them.
        held_out_frames=sizes[1] or (earlier.held_out_frames if earlier else 0),
        hours=hours + (earlier.hours if earlier else 0.0),
        reseeded=iteration.reseeded + (before.reseeded if before else 0),
    )


def _iterations(fit: Fit, number: int, training: int, holders: Holders) -> Iterator[Iteration]:
    clusters = fit.options.clusters
    if number == 1:
        if fit.saved is None:
            # Only now: before there is anything to lose, other settings may be tried on the same plan.
            freeze(fit.store, "fit.json", fit.frozen())
            among = min(SEED_FRAMES * clusters, MAX_SEED_FRAMES)
            seeds = holders.seed(max(among, clusters), clusters, fit.options.seed)
            if fit.driver.stop.requested.is_set():
                raise Interrupted
        start = fit.saved.iteration if fit.saved else seeds
        yield from lloyd(holders.step, holders.held_out_inertia, start, growing_shares(training, clusters))
        return
    assert fit.saved is not None
    yield _update(fit.saved.iteration, holders)


def _update(last: Iteration, holders: Holders) -> Iteration:
    """One more round of mini-batch mode on top of `last`: counts are of all frames seen until then.

    Inertia is that of this round's frames, and stays where the round has none.
    """
    sums = holders.step(last.centroids)
    centroids, seen = update_minibatch(last.centroids, last.counts, sums)
    total, count = holders.held_out_inertia(centroids)
    return replace(
        last,
        number=last.number + 1,
        centroids=centroids,
        counts=seen,
        inertia=sums.inertia / sums.frames if sums.frames else last.inertia,
        held_out=total / count if count else last.held_out,
        reseeded=0,
        share=1.0,
        done=True,
    )


def _write(home: Store, name: str, fit: Fit) -> str:
    """The codebook file, whole or not at all; its SHA-256."""
    assert fit.saved is not None
    data = codebook_bytes(fit.saved.iteration.centroids, fit.card(fit.saved))
    if not home.create(name, data) and home.get(name) != data:
        raise UserError(f"{home.url}/{name} was written by something else just now: it is left as it is")
    return hashlib.sha256(data).hexdigest()
