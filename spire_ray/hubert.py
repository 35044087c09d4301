"""Waveforms to HuBERT features, packed: utterances lie one after another and no padding is ever computed.

The reference is transformers' HubertModel in float32, one utterance at a time: `output_hidden_states[layer]`, that is
the output of layer N (one-indexed) without the encoder's final LayerNorm, which is what SPIRE's codebook was fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spire_ray.hubert_weights import read_config, read_weights

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # the receptive field of one frame
CONV_KERNEL = (10, 3, 3, 3, 3, 2, 2)
CONV_STRIDE = (5, 2, 2, 2, 2, 2, 2)
# Under about 4 rows BLAS takes other kernels, which sum in another order: an utterance of one frame would get other
# features alone than in a batch. From there on the rows came out the same bits in every batch tried (MKL, oneDNN).
MIN_ROWS = 16

Affine: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]  # weight, bias


def num_frames(samples: int) -> int:
    """Frames of 20 ms that HuBERT makes of `samples` at 16 kHz; 0 under 400 samples."""
    for kernel, stride in zip(CONV_KERNEL, CONV_STRIDE, strict=True):
        samples = max((samples - kernel) // stride + 1, 0)
    return samples


def micro_batches(lengths: Sequence[int], budget_s: float) -> list[list[int]]:
    """Indices of `lengths` (samples), longest first, in groups of at most `budget_s` seconds of audio.

    A pure function of its arguments, so that a shard is cut the same way in every attempt. An utterance longer than
    the budget is a group of its own.
    """
    groups: list[list[int]] = []
    room = 0.0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if not groups or lengths[index] > room:
            groups.append([])
            room = budget_s * SAMPLE_RATE
        groups[-1].append(index)
        room -= lengths[index]
    return groups


def normalise(waveform: NDArray[np.int16]) -> NDArray[np.float32]:
    """Zero mean and unit variance over the utterance [n], as transformers' Wav2Vec2FeatureExtractor computes it."""
    samples = waveform.astype(np.float32) * np.float32(1 / 32_768)
    centred: NDArray[np.float32] = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    return centred


@dataclass(frozen=True)
class _Layer:
    attention_norm: Affine
    qkv: Affine
    out: Affine
    mlp_norm: Affine
    up: Affine
    down: Affine


class Encoder:
    """The first `layer` layers of a HuBERT with layer-norm features. `dim` is the width of its features.

    Matrix products run in `dtype`; the residual stream and its norms stay float32, which keeps 99 % of the units in
    float16 where a half-precision residual loses several percent.
    """

    def __init__(self, folder: Path, layer: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """Loads config.json and model.safetensors of `folder`. UserError when they cannot serve."""
        self.config = read_config(folder, layer)
        self.dim = self.config.hidden_size
        self.device = torch.device(device)
        self.dtype = dtype
        weights = read_weights(folder, self.config, layer)

        def affine(name: str, dtype: torch.dtype = dtype) -> Affine:
            bias = weights.get(f"{name}.bias")
            weight = weights[f"{name}.weight"].to(self.device, dtype)
            return weight, None if bias is None else bias.to(self.device, dtype)

        front = "feature_extractor.conv_layers"
        count = len(self.config.conv_kernel)
        self._convolutions = [_as_matrix(affine(f"{front}.{index}.conv")) for index in range(count)]
        self._conv_norms = [affine(f"{front}.{index}.layer_norm") for index in range(count)]
        self._projection_norm = affine("feature_projection.layer_norm")
        self._projection = affine("feature_projection.projection")
        self._position = affine("encoder.pos_conv_embed.conv")
        self._layers = []
        for index in range(layer):
            prefix = f"encoder.layers.{index}"
            attention = [affine(f"{prefix}.attention.{part}_proj") for part in "qkv"]
            self._layers.append(
                _Layer(
                    attention_norm=affine(f"{prefix}.layer_norm", torch.float32),
                    qkv=_stack(attention),
                    out=affine(f"{prefix}.attention.out_proj"),
                    mlp_norm=affine(f"{prefix}.final_layer_norm", torch.float32),
                    up=affine(f"{prefix}.feed_forward.intermediate_dense"),
                    down=affine(f"{prefix}.feed_forward.output_dense"),
                )
            )

    @torch.inference_mode()
    def features(self, waveforms: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        """Float32 features [T_i, D] on the device, one per waveform [n_i] (16 kHz mono), in their order.

        The waveforms are one micro-batch: memory grows with their sum. ValueError for one under 400 samples.
        """
        short = [len(waveform) for waveform in waveforms if len(waveform) < MIN_SAMPLES]
        if short:
            raise ValueError(f"a waveform of {short[0]} samples is under HuBERT's receptive field of {MIN_SAMPLES}")
        if not waveforms:
            return []
        convolved = [self._convolve(torch.from_numpy(normalise(waveform))) for waveform in waveforms]
        lengths = [len(frames) for frames in convolved]
        x = _linear(self._norm(torch.cat(convolved), self._projection_norm), self._projection)
        residual = x.float() + torch.cat([self._positions(part) for part in torch.split(x, lengths)])
        for layer in self._layers:
            qkv = _linear(self._norm(residual, layer.attention_norm), layer.qkv)
            residual += _linear(self._attend(qkv, lengths), layer.out)
            hidden = functional.gelu(_linear(self._norm(residual, layer.mlp_norm), layer.up))
            residual += _linear(hidden, layer.down)
        return list(torch.split(residual, lengths))

    def _convolve(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [n] to frames [T, C]: each convolution is one matrix product over overlapping windows."""
        x = samples.to(self.device, self.dtype)[:, None]
        steps = zip(self._convolutions, self._conv_norms, self.config.conv_kernel, self.config.conv_stride, strict=True)
        for convolution, (weight, bias), kernel, stride in steps:
            frames, width = (len(x) - kernel) // stride + 1, x.shape[1]
            windows = x.as_strided((frames, kernel * width), (stride * width, 1))
            # The norms of the convolutions have torch's default epsilon, whatever the config says.
            x = functional.gelu(
                functional.layer_norm(_linear(windows, convolution), (weight.numel(),), weight, bias, 1e-5)
            )
        return x

    def _positions(self, x: torch.Tensor) -> torch.Tensor:
        """The positional convolution [T, D] of one utterance [T, D]."""
        weight, bias = self._position
        config = self.config
        padding = config.num_conv_pos_embeddings // 2
        y = functional.conv1d(x.T[None], weight, bias, padding=padding, groups=config.num_conv_pos_embedding_groups)
        return functional.gelu(y[0, :, : len(x)]).T

    def _attend(self, qkv: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Attention [N, D] over packed queries, keys and values [N, 3D], each utterance by itself.

        A plain loop: right everywhere. On CUDA one variable-length kernel over the packed rows would be faster.
        """
        heads = self.config.num_attention_heads
        out = qkv.new_empty(len(qkv), self.dim)
        for part, into in zip(torch.split(qkv, lengths), torch.split(out, lengths), strict=True):
            query, key, value = part.view(len(part), 3, 1, heads, -1).permute(1, 2, 3, 0, 4)
            attended = functional.scaled_dot_product_attention(query, key, value)
            into.view(len(part), heads, -1).copy_(attended[0].transpose(0, 1))
        return out

    def _norm(self, x: torch.Tensor, norm: Affine) -> torch.Tensor:
        weight, bias = norm
        return functional.layer_norm(x, (len(weight),), weight, bias, self.config.layer_norm_eps).to(self.dtype)


def _linear(x: torch.Tensor, affine: Affine) -> torch.Tensor:
    weight, bias = affine
    if len(x) >= MIN_ROWS:
        return functional.linear(x, weight, bias)
    return functional.linear(functional.pad(x, (0, 0, 0, MIN_ROWS - len(x))), weight, bias)[: len(x)]


def _as_matrix(convolution: Affine) -> Affine:
    """A convolution weight [C_out, C_in, k] as the matrix [C_out, k * C_in] for windows of rows [k, C_in]."""
    weight, bias = convolution
    return weight.permute(0, 2, 1).flatten(1).contiguous(), bias


def _stack(parts: list[Affine]) -> Affine:
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts if bias is not None])
