"""Folders of weights: old names are read, what cannot be served is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertModel

from small_hubert import small as small

# Longer and shorter than a frame's stride apart, odd, equal, from one frame to some seconds.
from small_hubert import speechlike
from spire_ray.errors import UserError
from spire_ray.hubert import Encoder


def test_old_names_of_the_weight_norm_are_read(small: tuple[HubertModel, Path], tmp_path: Path) -> None:
    _, folder = small
    renames = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    stored = load_file(folder / "model.safetensors")
    old = {f"hubert.{name}": tensor for name, tensor in stored.items()}
    for new, former in renames.items():
        old = {name.replace(new, former): tensor for name, tensor in old.items()}
    assert old.keys() != stored.keys()
    save_file(old, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    waveform = speechlike(9_000, 5)
    assert torch.equal(Encoder(tmp_path, 2).features([waveform])[0], Encoder(folder, 2).features([waveform])[0])


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("do_stable_layer_norm", False, "do_stable_layer_norm"),
        ("feat_extract_norm", "group", "feat_extract_norm"),
        ("model_type", "llama", "model_type"),
        ("hidden_act", "relu", "hidden_act"),
        ("hidden_size", None, "config"),
        ("num_hidden_layers", 2, "layer 3 .* has 2 layers"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused_by_name(
    small: tuple[HubertModel, Path], tmp_path: Path, field: str, value: object, named: str
) -> None:
    config = json.loads((small[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(UserError, match=named):
        Encoder(tmp_path, 3)


def test_a_folder_without_weights_is_refused(small: tuple[HubertModel, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        Encoder(tmp_path, 1)
    (tmp_path / "config.json").write_bytes((small[1] / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        Encoder(tmp_path, 1)
    (tmp_path / "model.safetensors").write_bytes(b"not this" * 8)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        Encoder(tmp_path, 1)
    stored = load_file(small[1] / "model.safetensors")
    missing = "encoder.layers.0.attention.k_proj.weight"
    save_file({name: value for name, value in stored.items() if name != missing}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=missing):
        Encoder(tmp_path, 1)
