"""The card of a codebook file: written so that safetensors reads it, compared field by field, and refused by name."""

import hashlib
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.cluster import MiniBatchKMeans

from spire_ray.codebook import load_codebook
from spire_ray.codebook_card import FEATURES, UNKNOWN, Card, codebook_bytes, read_card, refuse_other
from spire_ray.convert import convert_kmeans
from spire_ray.encode import check_codebook
from spire_ray.errors import UserError

CENTROIDS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def write(path: Path, card: Card, centroids: np.ndarray = CENTROIDS) -> Path:
    path.write_bytes(codebook_bytes(centroids, card))
    return path


def test_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    card = Card(encoder="abc", encoder_name="größe/名", layer="22", hours="1.5")
    path = write(tmp_path / "c.safetensors", card)
    assert list(load_file(path)) == ["centroids"]
    assert np.array_equal(load_file(path)["centroids"], CENTROIDS)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert (metadata["layer"], metadata["encoder_name"], metadata["seed"]) == ("22", "größe/名", UNKNOWN)
    sha256 = hashlib.sha256(CENTROIDS.tobytes()).hexdigest()
    assert read_card(path) == replace(card, sha256=sha256)
    assert np.array_equal(load_codebook(path).centroids.numpy(), CENTROIDS)


@pytest.mark.parametrize("name", ["", "x", "xx", "xxx", "xxxx", "xxxxx", "xxxxxx", "xxxxxxx"])
def test_the_tensor_is_aligned_whatever_the_card(tmp_path: Path, name: str) -> None:
    data = codebook_bytes(CENTROIDS, Card(encoder_name=name))
    assert int.from_bytes(data[:8], "little") % 8 == 0
    assert data == codebook_bytes(CENTROIDS, Card(encoder_name=name))
    assert data.endswith(CENTROIDS.tobytes())


def test_a_file_without_a_card_has_none(tmp_path: Path) -> None:
    save_file({"centroids": CENTROIDS}, tmp_path / "c.safetensors", {"format": "pt"})
    assert read_card(tmp_path / "c.safetensors") is None
    (tmp_path / "kmeans_model").write_bytes(b"\x80\x04\x95" * 40)
    for name in ("kmeans_model", "none"):
        with pytest.raises(UserError, match="cannot be read"):
            read_card(tmp_path / name)


@pytest.mark.parametrize("field", ["encoder", "layer", "final_layer_norm", "normalisation"])
def test_a_card_that_does_not_match_is_refused_by_its_field(field: str) -> None:
    used = {"encoder": "a" * 64, "layer": 22, **FEATURES}
    card = Card(**{name: str(value) for name, value in used.items()}, dtype="float16")
    refuse_other(Path("c"), card, used)
    refuse_other(Path("c"), replace(card, **{field: UNKNOWN}), used)
    with pytest.raises(UserError, match=f"codebook c was fitted with {field} = other .*this run has {field} = "):
        refuse_other(Path("c"), replace(card, **{field: "other"}), used)


def test_tokenization_refuses_another_encoder_or_layer(bundle: Path, tmp_path: Path) -> None:
    encoder = bundle / "encoder"
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update(hashlib.sha256((encoder / name).read_bytes()).digest())
    centroids = np.zeros((3, 64), np.float32)
    card = Card(encoder=digest.hexdigest(), layer="3", **FEATURES)
    path = write(tmp_path / "c.safetensors", card, centroids)
    check_codebook(str(encoder), str(path), 3)
    with pytest.raises(UserError, match=r"fitted with layer = 3 .*has layer = 2"):
        check_codebook(str(encoder), str(path), 2)
    other = write(tmp_path / "other.safetensors", replace(card, encoder="0" * 64), centroids)
    with pytest.raises(UserError, match=f"encoder = 0000.*has encoder = {digest.hexdigest()}"):
        check_codebook(str(encoder), str(other), 3)
    normed = write(tmp_path / "normed.safetensors", replace(card, final_layer_norm="applied"), centroids)
    with pytest.raises(UserError, match=r"final_layer_norm = applied .*final_layer_norm = none"):
        check_codebook(str(encoder), str(normed), 3)


def test_a_converted_codebook_says_what_is_unknown_and_serves_any_encoder(bundle: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 64))
    joblib.dump(MiniBatchKMeans(5, n_init=1, random_state=0).fit(rows), tmp_path / "kmeans_model")
    path = tmp_path / "c.safetensors"
    sha256 = convert_kmeans(tmp_path / "kmeans_model", path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    card = read_card(path)
    assert card is not None
    assert card.source == hashlib.sha256((tmp_path / "kmeans_model").read_bytes()).hexdigest()
    known = {"source", "sha256", "made_by"}
    assert {value for name, value in vars(card).items() if name not in known} == {UNKNOWN}
    check_codebook(str(bundle / "encoder"), str(path), 2)


def test_centroids_that_are_not_those_of_the_card_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors", Card(layer="3"))
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged: its centroids have not the SHA-256"):
        load_codebook(path)
