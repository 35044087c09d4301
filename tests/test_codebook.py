"""Codebook files, and assignment against sklearn's own predict."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.cluster import KMeans, MiniBatchKMeans

from spire_ray.codebook import Codebook, assign, codebook_shape, load_codebook
from spire_ray.errors import UserError


def save(centroids: torch.Tensor, path: Path) -> Path:
    save_file({"centroids": centroids.contiguous()}, path)
    return path


def frames(count: int, dimension: int, seed: int) -> np.ndarray:
    """Features as HuBERT's are: some channels far from 0, and one much wider than the rest."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, dimension)) + 8 * rng.normal(size=dimension)
    values[:, 3] *= 30
    return values.astype(np.float32)


@pytest.mark.parametrize("estimator", [KMeans(50, n_init=1, max_iter=5), MiniBatchKMeans(120, n_init=1, max_iter=5)])
def test_units_equal_sklearns_predict(estimator: KMeans | MiniBatchKMeans, tmp_path: Path) -> None:
    estimator.set_params(random_state=0).fit(frames(3_000, 64, 1))
    codebook = load_codebook(save(torch.from_numpy(estimator.cluster_centers_), tmp_path / "c.safetensors"))
    unseen = frames(9_000, 64, 2)
    expected = estimator.predict(unseen)
    units = assign(torch.from_numpy(unseen), codebook)
    assert units.dtype == torch.int64
    assert np.array_equal(units.numpy(), expected)
    for count in (0, 1, 5):
        assert np.array_equal(assign(torch.from_numpy(unseen[:count]), codebook).numpy(), expected[:count])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_products_keep_the_units(dtype: torch.dtype) -> None:
    centroids = torch.from_numpy(frames(500, 64, 1))
    codebook = Codebook(centroids, "", Path())
    features = torch.from_numpy(frames(4_000, 64, 1)[:500].repeat(8, 0) + frames(4_000, 64, 3) * 0.05)
    exact = torch.cdist(features.double(), centroids.double()).argmin(dim=1)
    naive = torch.cdist(features.to(dtype).float(), centroids.to(dtype).float()).argmin(dim=1)
    units = assign(features, codebook, dtype)
    assert (units == exact).float().mean() > 0.999
    assert (units == exact).sum() >= (naive == exact).sum()
    # Features that are half already choose half products by themselves.
    assert torch.equal(assign(features.to(dtype), codebook), assign(features.to(dtype).float(), codebook, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_of_equal_centroids_the_lowest_index_wins(dtype: torch.dtype) -> None:
    centroids = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    twice = Codebook(torch.cat([centroids, centroids]), "", Path())
    assert assign(centroids.flip(0), twice, dtype).tolist() == list(range(39, -1, -1))


def test_one_centroid_is_a_codebook() -> None:
    one = Codebook(torch.ones(1, 4), "", Path())
    for dtype in (torch.float32, torch.float16):
        assert assign(torch.randn(3, 4), one, dtype).tolist() == [0, 0, 0]


def test_load_gives_the_values_and_the_hash_of_the_file(tmp_path: Path) -> None:
    centroids = torch.randn(7, 3)
    path = save(centroids, tmp_path / "c.safetensors")
    codebook = load_codebook(path)
    assert torch.equal(codebook.centroids, centroids)
    assert codebook.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert codebook_shape(path) == (7, 3)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"centroids": torch.zeros(3, 2), "more": torch.zeros(1)}, "expected one named centroids"),
        ({"centers": torch.zeros(3, 2)}, "expected one named centroids"),
        ({"centroids": torch.zeros(3, 2, dtype=torch.float64)}, "F64"),
        ({"centroids": torch.zeros(3)}, r"expected F32 \[K, D\]"),
        ({"centroids": torch.zeros(0, 2)}, r"expected F32 \[K, D\]"),
        ({"centroids": torch.zeros(32_768, 1)}, "32768 centroids"),
        ({"centroids": torch.tensor([[1.0, float("nan")]])}, "not finite"),
    ],
)
def test_what_is_no_codebook_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file(tensors, tmp_path / "c.safetensors")
    with pytest.raises(UserError, match=message):
        load_codebook(tmp_path / "c.safetensors")


def test_a_pickle_or_nothing_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no codebook"):
        load_codebook(tmp_path / "none")
    (tmp_path / "kmeans_model").write_bytes(b"\x80\x04\x95" * 40)
    with pytest.raises(UserError, match="convert-codebook"):
        load_codebook(tmp_path / "kmeans_model")
