"""A transformers HuBERT folder (config.json, model.safetensors) as plain tensors: what the packed encoder needs."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from spire_ray.errors import UserError

# What the encoder computes. A field that is absent has the value that transformers gives it, where that is safe to say.
_REQUIRED = {"model_type": "hubert", "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
_ONLY = {
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "conv_pos_batch_norm": False,
    "feat_proj_layer_norm": True,
    "adapter_attn_dim": None,
}


@dataclass(frozen=True)
class HubertConfig:
    """The fields of config.json that shape the computation, under transformers' names."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int
    conv_bias: bool
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]
    layer_norm_eps: float


def read_config(folder: Path, layer: int) -> HubertConfig:
    """The config of `folder`. UserError naming the field that cannot be served, or when it lacks `layer`."""
    path = folder / "config.json"
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is no encoder folder: it has no config.json") from None
    except ValueError as fault:
        raise UserError(f"{path} is not JSON: {fault}") from None
    for name, value in _REQUIRED.items():
        if fields.get(name) != value:
            raise UserError(f"{path}: {name} is {fields.get(name)!r}, only {value!r} is supported")
    for name, value in _ONLY.items():
        if fields.get(name, value) != value:
            raise UserError(f"{path}: {name} is {fields[name]!r}, only {value!r} is supported")
    try:
        config = HubertConfig(
            **{name: int(fields[name]) for name in HubertConfig.__annotations__ if name.startswith(("hidden", "num"))},
            conv_bias=bool(fields["conv_bias"]),
            conv_kernel=tuple(fields["conv_kernel"]),
            conv_stride=tuple(fields["conv_stride"]),
            layer_norm_eps=float(fields.get("layer_norm_eps", 1e-5)),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise UserError(f"{path} is no whole HuBERT config: {type(fault).__name__} {fault}") from None
    if not 1 <= layer <= config.num_hidden_layers:
        raise UserError(f"layer {layer} was asked for, but the encoder {folder} has {config.num_hidden_layers} layers")
    return config


def weights_sha256(encoder: Path) -> str:
    """SHA-256 (hex) over the config and the weights of an encoder folder."""
    digest = hashlib.sha256()
    for path in [encoder / "config.json", *sorted(encoder.glob("*.safetensors"))]:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            raise UserError(f"{path} is missing: an encoder folder needs it") from None
    return digest.hexdigest()


def check_weights(folder: Path) -> None:
    """UserError unless `folder` has a safetensors file with a whole header. Reads nothing else of it."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{folder} has no model.safetensors; weights are read from safetensors only")
    try:
        with safe_open(path, framework="pt", device="cpu"):
            pass
    except SafetensorError as fault:
        raise UserError(f"{path} is not a readable safetensors file: {fault}") from None


def read_weights(folder: Path, config: HubertConfig, layer: int) -> dict[str, torch.Tensor]:
    """The float32 tensors of the convolutions and the first `layer` layers, on the CPU, under transformers' names.

    The positional convolution comes as one folded `encoder.pos_conv_embed.conv.weight`.
    UserError when the folder has no such safetensors file or a tensor is missing.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{folder} has no model.safetensors; weights are read from safetensors only")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            stored = {name.removeprefix("hubert."): name for name in file.keys()}  # noqa: SIM118 (no iterator)

            def tensor(*names: str) -> torch.Tensor:
                found = next((stored[name] for name in names if name in stored), None)
                if found is None:
                    raise UserError(f"{path} has no tensor {names[0]}")
                value: torch.Tensor = file.get_tensor(found)
                return value.float()

            weights = {name: tensor(name) for name in _names(config, layer)}
            conv = "encoder.pos_conv_embed.conv"
            # transformers has stored the weight norm under two names; both are on the hub.
            scale = tensor(f"{conv}.parametrizations.weight.original0", f"{conv}.weight_g")
            direction = tensor(f"{conv}.parametrizations.weight.original1", f"{conv}.weight_v")
    except SafetensorError as fault:
        raise UserError(f"{path} is not a readable safetensors file: {fault}") from None
    weights[f"{conv}.weight"] = direction * (scale / direction.norm(dim=(0, 1), keepdim=True))
    return weights


def _names(config: HubertConfig, layer: int) -> list[str]:
    modules = ["feature_projection.layer_norm", "feature_projection.projection"]
    names = ["encoder.pos_conv_embed.conv.bias"]
    for index in range(len(config.conv_kernel)):
        conv = f"feature_extractor.conv_layers.{index}"
        names += [f"{conv}.conv.weight", *([f"{conv}.conv.bias"] if config.conv_bias else [])]
        modules.append(f"{conv}.layer_norm")
    for index in range(layer):
        parts = [f"attention.{part}_proj" for part in ("q", "k", "v", "out")]
        parts += ["layer_norm", "final_layer_norm", "feed_forward.intermediate_dense", "feed_forward.output_dense"]
        modules += [f"encoder.layers.{index}.{part}" for part in parts]
    return names + [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
