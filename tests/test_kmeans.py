"""Lloyd's iterations against scikit-learn's and numpy's own sums, on one holder and on several."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans

from spire_ray.codebook import Codebook, assign
from spire_ray.kmeans import Frames, Iteration, Sums, growing_shares, lloyd, update_minibatch
from spire_ray.nearest import Centroids
from spire_ray.seeding import seed_centroids

DIM = 24


def features(count: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float16]:
    """Frames in clumps of several sizes, with channels far from 0 and one much wider than the rest, as HuBERT's."""
    rng = np.random.default_rng(seed)
    clumps = 3 * np.random.default_rng(99).normal(size=(60, dim))
    values = clumps[np.minimum(rng.geometric(0.05, count) - 1, 59)] + rng.normal(size=(count, dim)) + 7
    values[:, 0] *= 20
    return values.astype(np.float16)


def keys_of(count: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def held(frames: NDArray[np.float16], holders: int = 1, shards: int = 20, order: int = 0) -> "Together":
    """The frames in `shards` of unequal size, shuffled, each added to holder shard % n; every 17th is held out."""
    keys, held_out = keys_of(len(frames)), np.arange(len(frames)) % 17 == 0
    cuts = np.sort(np.random.default_rng(5).choice(len(frames), shards - 1, replace=False))
    parts = list(zip(np.split(frames, cuts), np.split(keys, cuts), np.split(held_out, cuts), strict=True))
    together = Together([Frames(frames.shape[1]) for _ in range(holders)])
    for shard in np.random.default_rng(order).permutation(shards):
        together.holders[shard % holders].add(int(shard), *parts[shard])
    return together


class Together:
    """Several holders as one, reduced in their order."""

    def __init__(self, holders: list[Frames]) -> None:
        self.holders = holders

    def step(self, centroids: Centroids, share: float = 1.0) -> Sums:
        first, *others = [holder.step(centroids, share) for holder in self.holders]
        return sum(others, start=first)

    def held_out_inertia(self, centroids: Centroids) -> tuple[float, int]:
        sums, counts = zip(*(holder.held_out_inertia(centroids) for holder in self.holders), strict=True)
        return sum(sums), sum(counts)

    def fit(self, start: Centroids | Iteration, shares: tuple[float, ...] = (1.0,), **limits: float) -> list[Iteration]:
        return list(lloyd(self.step, self.held_out_inertia, start, shares, **limits))  # type: ignore[arg-type]


def trained_on(frames: NDArray[np.float16]) -> NDArray[np.float16]:
    return frames[np.arange(len(frames)) % 17 != 0]


def squared_distances(frames: NDArray[np.float16], centroids: NDArray[np.floating]) -> NDArray[np.float64]:
    away = frames.astype(np.float64)[:, None] - centroids.astype(np.float64)
    return np.asarray(np.square(away).sum(axis=2))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 200),
    dim=st.integers(1, 9),
    clusters=st.integers(1, 12),
    scale=st.sampled_from([0.01, 1.0, 300.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_step_equals_numpys_own_sums(count: int, dim: int, clusters: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = (scale * (rng.normal(size=(count, dim)) + 3)).astype(np.float16)
    centroids = (scale * (rng.normal(size=(clusters, dim)) + 3)).astype(np.float32)
    distances = squared_distances(frames, centroids)
    two = np.sort(distances, axis=1)[:, :2]
    if clusters > 1:
        assume(np.all(two[:, 1] - two[:, 0] > 1e-4 * scale**2))
    units = distances.argmin(axis=1)
    holder = Frames(dim)
    holder.add(0, frames, keys_of(count, seed), np.zeros(count, np.bool_))
    sums = holder.step(centroids)
    assert sums.frames == count
    assert sums.counts.dtype == np.int64
    assert sums.counts.tolist() == np.bincount(units, minlength=clusters).tolist()
    exact = [frames[units == unit].astype(np.float64).sum(axis=0) for unit in range(clusters)]
    assert np.array_equal(sums.sums, np.array(exact))
    assert sums.inertia == pytest.approx(distances.min(axis=1).sum(), rel=1e-4)


def test_one_iteration_equals_one_of_sklearn() -> None:
    frames = features(6_000)
    seeds = seed_centroids(frames[:2_000], 50, 1)
    (ours,) = held(frames).fit(seeds, max_iterations=1)
    theirs = KMeans(50, init=seeds, n_init=1, max_iter=1, algorithm="lloyd").fit(trained_on(frames).astype(np.float64))
    assert ours.counts.min() > 3  # nothing was re-seeded: sklearn would have done it in its own way
    assert ours.reseeded == 0
    assert ours.centroids == pytest.approx(theirs.cluster_centers_, rel=1e-5, abs=1e-5)
    assert ours.counts.sum() == len(trained_on(frames))


def test_a_fit_is_as_good_as_sklearns_from_the_same_seeds() -> None:
    frames, unseen = features(8_000), features(4_000, seed=3)
    seeds = seed_centroids(frames[:2_000], 60, 0)
    fitted = held(frames).fit(seeds)
    theirs = KMeans(60, init=seeds, n_init=1).fit(trained_on(frames).astype(np.float32))
    assert fitted[-1].done
    assert not any(each.done for each in fitted[:-1])
    ours, sklearns = (
        squared_distances(unseen, c).min(axis=1).mean() for c in (fitted[-1].centroids, theirs.cluster_centers_)
    )
    assert ours <= 1.005 * sklearns


@pytest.mark.parametrize("holders", [2, 4])
def test_any_number_of_holders_makes_the_same_codebook(holders: int) -> None:
    frames = features(9_000)
    one, several = held(frames), held(frames, holders, order=holders)
    shares = growing_shares(one.holders[0].sizes()[0], 40)
    assert len(shares) > 1
    seeds = seed_centroids(one.holders[0].smallest(1_200)[1], 40, 0)
    alone, together = one.fit(seeds, shares), several.fit(seeds, shares)
    assert len(alone) == len(together)
    for left, right in zip(alone, together, strict=True):
        # Sums of float16 in float64 are exact, so this holds to the bit, not just to rounding.
        assert np.array_equal(left.centroids, right.centroids)
        assert np.array_equal(left.counts, right.counts)
        assert left.inertia == pytest.approx(right.inertia, rel=1e-9)
        assert left.held_out == pytest.approx(right.held_out, rel=1e-9)
        assert (left.share, left.calm, left.reseeded, left.done) == (
            right.share,
            right.calm,
            right.reseeded,
            right.done,
        )


def test_the_smallest_keys_of_all_holders_are_those_of_one() -> None:
    frames = features(3_000)
    keys, found = held(frames).holders[0].smallest(700)
    training = np.arange(3_000) % 17 != 0
    order = np.flatnonzero(training)[np.argsort(keys_of(3_000)[training])][:700]
    assert np.array_equal(keys, keys_of(3_000)[order])
    assert np.array_equal(found, frames[order])
    parts = [holder.smallest(700) for holder in held(frames, 3).holders]
    assert np.array_equal(np.sort(np.concatenate([part[0] for part in parts]))[:700], keys)


def test_seeding_copies_no_more_frames_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = held(features(3_000), shards=20).holders[0]
    expected = holder.smallest(2_900)
    put_together: list[int] = []
    cat = torch.cat

    def watched(parts: list[torch.Tensor]) -> torch.Tensor:
        put_together.append(sum(map(len, parts)))
        return cat(parts)

    monkeypatch.setattr(torch, "cat", watched)
    keys, frames = holder.smallest(200)
    # Every shard has fewer than 200 frames or not many more: the first 200 of each were nearly all.
    assert put_together == [200]
    assert np.array_equal(keys, expected[0][:200])
    assert np.array_equal(frames, expected[1][:200])
    assert [len(part) for part in Frames(DIM).smallest(5)] == [0, 0]


def test_a_shard_counts_once() -> None:
    frames, keys = features(300), keys_of(300)
    held_out = np.arange(300) < 40
    holder = Frames(DIM)
    for _ in range(2):
        holder.add(3, frames, keys, held_out)
    assert holder.sizes() == (260, 40)
    centroids = frames[100:110].astype(np.float32)
    expected = squared_distances(frames[:40], centroids).min(axis=1).sum()
    total, count = holder.held_out_inertia(centroids)
    assert (total, count) == (pytest.approx(expected, rel=1e-5), 40)


def test_a_holder_without_frames_adds_nothing() -> None:
    empty = Frames(DIM).step(features(10).astype(np.float32))
    assert (empty.frames, empty.counts.sum(), empty.inertia) == (0, 0, 0.0)


def test_a_share_is_of_the_keys_whoever_holds_the_frames() -> None:
    frames, bound = features(4_000), 2**62
    keys = keys_of(4_000) >> np.uint64(2)
    holders = [Frames(DIM, key_bound=bound) for _ in range(3)]
    for shard in range(8):
        part = slice(shard * 500, (shard + 1) * 500)
        holders[shard % 3].add(shard, frames[part], keys[part], np.zeros(500, np.bool_))
    centroids = frames[:30].astype(np.float32)
    sums = Together(holders).step(centroids, 0.25)
    chosen = frames[keys < bound // 4]
    assert 800 < len(chosen) < 1_200
    assert sums.frames == len(chosen)
    assert np.array_equal(sums.sums.sum(axis=0), chosen.astype(np.float64).sum(axis=0))


@pytest.mark.parametrize("fault", ["duplicates", "far away"])
def test_dead_clusters_are_re_seeded_and_counted(fault: str) -> None:
    frames = features(6_000)
    seeds = seed_centroids(frames[:2_000], 40, 0)
    if fault == "duplicates":
        seeds[5:25] = seeds[4]
    else:
        seeds[5:25] = 3e4
    fitted = held(frames).fit(seeds)
    assert fitted[0].reseeded == 20
    assert fitted[-1].counts.min() > 0
    theirs = KMeans(40, init=seeds, n_init=1).fit(trained_on(frames).astype(np.float64))  # re-seeds in its own way
    assert fitted[-1].held_out <= 1.02 * squared_distances(frames[::17], theirs.cluster_centers_).min(axis=1).mean()
    several = held(frames, 4, order=1).fit(seeds)
    assert np.array_equal(fitted[-1].centroids, several[-1].centroids)


def test_starved_clusters_are_re_seeded() -> None:
    frames = features(12_000)
    seeds = seed_centroids(frames[:2_000], 20, 0)
    seeds[7] = frames.max(axis=0).astype(np.float32) + 1  # a corner: nearest to a few frames, if to any
    starved = held(frames).step(seeds).counts[7]
    assert starved < 0.01 * len(trained_on(frames)) / 20
    fitted = held(frames).fit(seeds)
    assert fitted[0].reseeded == 1
    assert fitted[-1].counts.min() > 0.01 * len(trained_on(frames)) / 20


def test_more_clusters_than_different_frames_end_with_the_frames() -> None:
    frames = np.repeat(features(5), 40, axis=0)
    seeds = seed_centroids(frames, 8, 0)
    fitted = held(frames, shards=4).fit(seeds)
    assert fitted[-1].inertia == 0
    assert fitted[-1].reseeded == 0
    assert np.isfinite(fitted[-1].centroids).all()
    assert {row.tobytes() for row in fitted[-1].centroids.astype(np.float16)} == {row.tobytes() for row in frames}


def test_final_assignments_are_those_of_tokenization() -> None:
    frames = features(6_000)
    together = held(frames)
    last = together.fit(seed_centroids(frames[:2_000], 50, 0))[-1]
    codebook = Codebook(torch.from_numpy(last.centroids), "", Path())
    units = assign(torch.from_numpy(trained_on(frames)).float(), codebook)
    assert together.step(last.centroids).counts.tolist() == torch.bincount(units, minlength=50).tolist()
    halves = assign(torch.from_numpy(trained_on(frames)), codebook)  # as features of a half-precision encoder
    assert (units == halves).float().mean() > 0.999


def test_a_fit_that_stopped_goes_on_to_the_same_end() -> None:
    frames = features(9_000)
    seeds = seed_centroids(frames[:1_200], 40, 0)
    shares = growing_shares(len(trained_on(frames)), 40)
    whole = held(frames).fit(seeds, shares)
    for stop in (1, 3, len(whole) - 1):
        rest = held(frames, 2).fit(whole[stop - 1], shares)
        assert [each.number for each in rest] == [each.number for each in whole[stop:]]
        assert np.array_equal(rest[-1].centroids, whole[-1].centroids)
        assert rest[-1].held_out == pytest.approx(whole[-1].held_out, rel=1e-9)
    assert held(frames).fit(whole[-1], shares) == []


def test_mini_batches_are_weighed_as_sklearn_weighs_them() -> None:
    frames = features(6_000)
    seeds = seed_centroids(frames[:2_000], 30, 0)
    theirs = MiniBatchKMeans(30, init=seeds, n_init=1, reassignment_ratio=0)
    centroids, seen = seeds, np.zeros(30, np.int64)
    for batch in np.split(frames, 3):
        theirs.partial_fit(batch.astype(np.float64))
        holder = Frames(DIM)
        holder.add(0, batch, keys_of(2_000), np.zeros(2_000, np.bool_))
        centroids, seen = update_minibatch(centroids, seen, holder.step(centroids))
    assert seen.sum() == 6_000
    assert centroids.dtype == np.float32
    assert centroids == pytest.approx(theirs.cluster_centers_, rel=1e-4, abs=1e-4)
