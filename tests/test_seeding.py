"""The first centroids against scikit-learn's k-means++, and what clusters are re-seeded with."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from spire_ray.seeding import CANDIDATES, Candidates, exponentials, seed_centroids


def blobs(count: int, seed: int = 0) -> NDArray[np.float16]:
    """Frames around 40 centres, one of which has half of them, far from 0 in every channel."""
    rng = np.random.default_rng(seed)
    centres = 8 * rng.normal(size=(40, 12)) + 50
    of = np.where(rng.random(count) < 0.5, 0, rng.integers(0, 40, count))
    return (centres[of] + 0.3 * rng.normal(size=(count, 12))).astype(np.float16)


def potential(frames: NDArray[np.float16], centroids: NDArray[np.floating]) -> float:
    """The sum of squared distances to the nearest centroid, in float64."""
    away = frames.astype(np.float64)[:, None] - centroids.astype(np.float64)
    return float(np.square(away).sum(axis=2).min(axis=1).sum())


@pytest.mark.parametrize("clusters", [12, 40, 70])
def test_seeds_are_frames_and_serve_the_rest_as_well_as_sklearns(clusters: int) -> None:
    frames = blobs(3_000)
    ours = [seed_centroids(frames, clusters, seed) for seed in range(10)]
    sklearns = [kmeans_plusplus(frames.astype(np.float64), clusters, random_state=seed)[0] for seed in range(10)]
    for seeds in ours:
        assert seeds.dtype == np.float32
        assert seeds.shape == (clusters, 12)
        assert len(np.unique(seeds, axis=0)) == clusters
        assert {row.tobytes() for row in seeds.astype(np.float16)} <= {row.tobytes() for row in frames}
    mean = np.mean([potential(frames, seeds) for seeds in ours])
    assert mean <= 1.05 * np.mean([potential(frames, seeds) for seeds in sklearns])


def test_a_seed_decides_the_seeds() -> None:
    frames = blobs(500)
    assert np.array_equal(seed_centroids(frames, 20, 7), seed_centroids(frames, 20, 7))
    assert not np.array_equal(seed_centroids(frames, 20, 7), seed_centroids(frames, 20, 8))


def test_every_frame_that_differs_is_taken_before_one_is_taken_twice() -> None:
    frames = np.repeat(blobs(9), 30, axis=0)
    seeds = seed_centroids(frames, 12, 0)
    assert len(np.unique(seeds, axis=0)) == 9
    assert len(seed_centroids(frames, len(frames), 0)) == len(frames)


def test_more_centroids_than_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="12 centroids of 11 frames"):
        seed_centroids(blobs(11), 12, 0)


def candidates(frames: NDArray[np.float16], keys: NDArray[np.uint64], distances: NDArray[np.float64]) -> Candidates:
    return Candidates(frames, keys, distances, exponentials(keys).astype(np.float64))


def test_candidates_are_the_same_however_the_frames_are_parted() -> None:
    rng = np.random.default_rng(0)
    frames, keys = blobs(2_000), rng.permutation(2_000).astype(np.uint64)
    distances = np.square(rng.normal(size=2_000))
    whole = candidates(frames, keys, distances).first()
    assert len(whole.keys) == CANDIDATES
    for holders in (2, 5):
        parts = [candidates(frames[i::holders], keys[i::holders], distances[i::holders]) for i in range(holders)]
        first, *others = reversed(parts)
        assert np.array_equal(sum(others, start=first).keys, whole.keys)


def test_a_frame_is_drawn_in_proportion_to_its_distance() -> None:
    keys = np.arange(60_000, dtype=np.uint64)
    drawn = exponentials(keys).reshape(20_000, 3).astype(np.float64)
    won = np.bincount((np.array([1.0, 2.0, 5.0]) / drawn).argmax(axis=1), minlength=3)
    assert won / 20_000 == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.015)


def test_no_candidate_is_chosen_that_is_served_already() -> None:
    frames = np.repeat(np.array([[0, 0], [9, 0], [0, 9]], np.float16), 4, axis=0)
    distances = np.repeat([0.0, 81.0, 81.0], 4)
    worst = candidates(frames, np.arange(12, dtype=np.uint64), distances).first()
    assert sorted(map(tuple, worst.choose(12).tolist())) == [(0, 9), (9, 0)]
    assert worst.choose(0).shape == (0, 2)
