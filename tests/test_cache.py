"""The child process that converts, and the cache of what it made."""

import os
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from sklearn.cluster import MiniBatchKMeans
from transformers import HubertConfig, HubertModel

from spire_ray.cache import cached_codebook, cached_encoder, convert_in_child
from spire_ray.convert import convert_encoder
from spire_ray.errors import UserError


class Canary:
    """Unpickled for real, it makes a folder: the proof that something ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_the_child_converts_and_the_cache_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRE_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "joblib.py").write_text("raise SystemExit('the folder of the user must not be on the path')")
    estimator = MiniBatchKMeans(5, n_init=1).fit(np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32))
    joblib.dump(estimator, tmp_path / "model")
    path = cached_codebook(tmp_path / "model")
    assert np.array_equal(load_file(path)["centroids"], estimator.cluster_centers_)
    assert path.parent.parent == tmp_path / "cache"
    made = path.stat()
    assert cached_codebook(tmp_path / "model") == path
    assert path.stat().st_mtime_ns == made.st_mtime_ns
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_the_childs_line_becomes_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRE_RAY_CACHE", str(tmp_path / "cache"))
    canary = tmp_path / "canary"
    (tmp_path / "model").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UserError, match=r"refers to posix\.mkdir") as refused:
        cached_codebook(tmp_path / "model")
    assert "\n" not in str(refused.value)
    assert not canary.exists()
    assert list((tmp_path / "cache" / "kmeans").iterdir()) == []
    with pytest.raises(UserError, match="No such file"):
        cached_codebook(tmp_path / "none")
    monkeypatch.setattr("spire_ray.cache.TIMEOUT_S", 0.01)
    with pytest.raises(UserError, match="took more than"):
        convert_in_child("kmeans", tmp_path / "model", tmp_path / "out")


def hub_folder(folder: Path, *, zipped: bool = True) -> HubertModel:
    """As a hub folder was written years ago: config.json and pytorch_model.bin."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = HubertConfig(**sizes, conv_dim=(8,) * 7, do_stable_layer_norm=True, feat_extract_norm="layer")
    model = HubertModel(config).eval()
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return model


@pytest.mark.parametrize("zipped", [True, False])
def test_transformers_loads_a_converted_encoder(tmp_path: Path, zipped: bool) -> None:
    (tmp_path / "old").mkdir()
    model = hub_folder(tmp_path / "old", zipped=zipped)
    convert_encoder(tmp_path / "old", tmp_path / "new")
    loaded = HubertModel.from_pretrained(tmp_path / "new", use_safetensors=True, local_files_only=True).state_dict()
    expected = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert (tmp_path / "new" / "config.json").read_bytes() == (tmp_path / "old" / "config.json").read_bytes()


def test_a_hostile_encoder_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRE_RAY_CACHE", str(tmp_path / "cache"))
    canary = tmp_path / "canary"
    hub_folder(tmp_path)
    torch.save({"weight": Canary(canary)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        cached_encoder(tmp_path)
    assert not canary.exists()
    assert list((tmp_path / "cache" / "encoder").iterdir()) == []


def test_a_cached_encoder_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRE_RAY_CACHE", str(tmp_path / "cache"))
    hub_folder(tmp_path)
    folder = cached_encoder(tmp_path)
    assert cached_encoder(tmp_path) == folder
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
