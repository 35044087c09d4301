"""What only CUDA does of the search for the nearest centroid, as far as a CPU can tell."""

import numpy as np
import torch

from spire_ray.nearest import Nearest, rows_at_once


def test_a_chunk_fits_a_gpu_whatever_the_codebook() -> None:
    # Float32 scores [rows, K], and frames [rows, D] in float16, float32 and float64, with two copies in between.
    for clusters, dim in ((2, 1024), (2, 24), (500, 1024), (5_000, 1024), (32_767, 1280)):
        rows = rows_at_once(clusters, dim, "cuda")
        assert rows >= 2_048
        assert rows * clusters * 4 <= 2**30
        assert rows * dim * (2 + 4 + 4 + 8) <= 2**31
        assert rows_at_once(clusters, dim, "cpu") == 2_048
    assert rows_at_once(5_000, 1024, "cuda") == 2**28 // 5_000


def test_products_as_on_a_gpu_find_the_nearest_of_rounded_operands() -> None:
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(40, 24)).astype(np.float32) + 7
    frames = (centroids[rng.integers(40, size=2_000)] + 0.5 * rng.normal(size=(2_000, 24))).astype(np.float16)
    nearest = Nearest(centroids, torch.device("cpu"))
    mean = centroids.astype(np.float64).mean(axis=0).astype(np.float32)
    x, c = frames.astype(np.float32) - mean, centroids - mean
    products = x.astype(np.float16).astype(np.float64) @ (-2 * c).astype(np.float16).astype(np.float64).T
    scores = products + np.square(c.astype(np.float64)).sum(axis=1)
    two = np.sort(scores, axis=1)[:, :2]
    clear = two[:, 1] - two[:, 0] > 1e-2
    units = nearest.by_half_products(torch.from_numpy(x)).numpy()
    assert clear.mean() > 0.95
    assert np.array_equal(units[clear], scores.argmin(axis=1)[clear])
