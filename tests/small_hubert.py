"""A small HuBERT with random weights, and transformers' own features of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

# Longer and shorter than a frame's stride apart, odd, equal, from one frame to some seconds.
LENGTHS = [400, 719, 720, 1_000, 4_801, 16_000, 16_000, 33_333, 80_007]


def small_config(**changes: object) -> HubertConfig:
    """Four layers, and convolutions of another kernel and count than HuBERT's, so that nothing can be hard-wired."""
    fields: dict[str, object] = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "conv_dim": (16, 24, 32, 32, 32, 32, 32),
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "conv_bias": True,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
    }
    return HubertConfig(**{**fields, **changes})


# The real HuBERT-large widths of the convolutions and heads of 64, but narrow and shallow after them.
REAL_CONVOLUTIONS = {"conv_dim": (512,) * 7, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}


def save_model(config: HubertConfig, folder: Path, seed: int = 0) -> HubertModel:
    """An untouched HubertModel with random biases and norms: at their initial 0 and 1 they would prove little."""
    torch.manual_seed(seed)
    model = HubertModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
            elif "norm" in name or name.endswith("original0"):
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
    model.save_pretrained(folder)
    return model


def speechlike(samples: int, seed: int) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * rng.uniform(90, 400) * time) * (1 + np.sin(2 * np.pi * 3 * time))
    return (2_000 * tone + rng.normal(0, 900, samples) + 300).astype(np.int16)


def reference(model: HubertModel, waveform: NDArray[np.int16], layer: int) -> torch.Tensor:
    """transformers' own path: its feature extractor, one utterance, float32."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    inputs = extractor(waveform.astype(np.float32) / 32_768, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        return model(inputs.input_values, output_hidden_states=True).hidden_states[layer][0]


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[HubertModel, Path]:
    folder = tmp_path_factory.mktemp("small")
    return save_model(small_config(), folder), folder
