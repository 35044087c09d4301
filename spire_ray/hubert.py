"""Waveforms to HuBERT features, packed: utterances lie one after another and no padding is ever computed.

The reference is transformers' HubertModel in float32, one utterance at a time: `output_hidden_states[layer]`, that is
the output of layer N (one-indexed) without the encoder's final LayerNorm, which is what SPIRE's codebook was fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from spire_ray import attention
from spire_ray.hubert_weights import read_config, read_weights
from spire_ray.linear import Affine, as_matrix, for_products, linear, stack

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # the receptive field of one frame
CONV_KERNEL = (10, 3, 3, 3, 3, 2, 2)
CONV_STRIDE = (5, 2, 2, 2, 2, 2, 2)
# Frames that the convolutions take at once on a CPU: 2 s, whose first convolution makes 13 MB and stays in the cache.
CPU_FRONT_FRAMES = 100
# On CUDA every length is padded to a multiple of this many rows (20 s), so that a budget of 400 s has 20 shapes: each
# new one costs cuDNN about 0.3 s.
CUDA_ROWS = 1024


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
class Packed:
    """Utterances one after another, ready for `Encoder.encode`."""

    stream: torch.Tensor  # float32 [S] on the device, each utterance normalised and padded to a multiple of the stride
    starts: list[int]  # the first frame of each utterance in the stream
    lengths: list[int]  # its frames
    copied: torch.cuda.Event | None = None  # when the stream has arrived


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
        self.stride = prod(self.config.conv_stride)
        self._on_cuda = self.device.type == "cuda"
        attention.kernel(self.device.type, dtype)  # imported now, and not in the first shard
        self._copies = torch.cuda.Stream(self.device) if self._on_cuda else None  # type: ignore[no-untyped-call]
        weights = read_weights(folder, self.config, layer)

        def affine(name: str, dtype: torch.dtype = dtype) -> Affine:
            bias = weights.get(f"{name}.bias")
            weight = weights[f"{name}.weight"].to(self.device, dtype)
            return weight, None if bias is None else bias.to(self.device, dtype)

        front = "feature_extractor.conv_layers"
        count = len(self.config.conv_kernel)
        self._convolutions = [for_products(as_matrix(affine(f"{front}.{index}.conv"))) for index in range(count)]
        self._conv_norms = [affine(f"{front}.{index}.layer_norm") for index in range(count)]
        self._projection_norm = affine("feature_projection.layer_norm")
        self._projection = for_products(affine("feature_projection.projection"))
        self._position = affine("encoder.pos_conv_embed.conv")
        self._layers = []
        for index in range(layer):
            prefix = f"encoder.layers.{index}"
            queries_keys_values = [affine(f"{prefix}.attention.{part}_proj") for part in "qkv"]
            self._layers.append(
                _Layer(
                    attention_norm=affine(f"{prefix}.layer_norm", torch.float32),
                    qkv=for_products(stack(queries_keys_values)),
                    out=for_products(affine(f"{prefix}.attention.out_proj")),
                    mlp_norm=affine(f"{prefix}.final_layer_norm", torch.float32),
                    up=for_products(affine(f"{prefix}.feed_forward.intermediate_dense")),
                    down=for_products(affine(f"{prefix}.feed_forward.output_dense")),
                )
            )
        # On a CPU the matrix products are nearly all of the time, and compiling gains nothing.
        self._normed_linear, self._after_attention, self._activate = _normed_linear, _after_attention, _activate
        if self._on_cuda:
            self._normed_linear = torch.compile(_normed_linear, dynamic=True)
            self._after_attention = torch.compile(_after_attention, dynamic=True)
            self._activate = torch.compile(_activate, dynamic=True)

    def features(self, waveforms: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        """Float32 features [T_i, D] on the device, one per waveform [n_i] (16 kHz mono), in their order.

        The waveforms are one micro-batch: memory grows with their sum. ValueError for one under 400 samples.
        """
        return self.encode(self.pack(waveforms)) if waveforms else []

    def pack(self, waveforms: Sequence[NDArray[np.int16]]) -> Packed:
        """One micro-batch on its way to the device: work of the host, which may overlap `encode` of another."""
        short = [len(waveform) for waveform in waveforms if len(waveform) < MIN_SAMPLES]
        if short:
            raise ValueError(f"a waveform of {short[0]} samples is under HuBERT's receptive field of {MIN_SAMPLES}")
        slots = [-(-len(waveform) // self.stride) for waveform in waveforms]
        starts = [0, *accumulate(slots)]
        stream = torch.zeros(self._padded(starts[-1]) * self.stride, pin_memory=self._on_cuda)
        for waveform, start in zip(waveforms, starts, strict=False):
            at = start * self.stride
            stream.numpy()[at : at + len(waveform)] = normalise(waveform)
        lengths = [num_frames(len(waveform)) for waveform in waveforms]
        if self._copies is None:
            return Packed(stream, starts[:-1], lengths)
        with torch.cuda.stream(self._copies):
            there = stream.to(self.device, non_blocking=True)
            return Packed(there, starts[:-1], lengths, self._copies.record_event())

    @torch.inference_mode()
    def encode(self, packed: Packed) -> list[torch.Tensor]:
        """Float32 features [T_i, D] of each packed utterance, on the device."""
        if packed.copied is not None:
            packed.copied.wait()
            packed.stream.record_stream(torch.cuda.current_stream(self.device))
        frames, lengths = sum(packed.lengths), packed.lengths
        x = functional.pad(self._convolve(packed), (0, 0, 0, self._padded(frames) - frames))
        eps = self.config.layer_norm_eps
        x = self._normed_linear(x, self._projection_norm, self._projection, eps, self.dtype)
        residual = x.float()
        residual[:frames] += self._positions(x[:frames], lengths)
        attend = attention.over(lengths, len(x), self.config.num_attention_heads, self.device, self.dtype)
        for layer in self._layers:
            qkv = self._normed_linear(residual, layer.attention_norm, layer.qkv, eps, self.dtype)
            residual = self._after_attention(
                residual, attend(qkv), layer.out, layer.mlp_norm, layer.up, layer.down, eps
            )
        return list(torch.split(residual[:frames], lengths))

    def _padded(self, rows: int) -> int:
        return -(-rows // CUDA_ROWS) * CUDA_ROWS if self._on_cuda else rows

    def _convolve(self, packed: Packed) -> torch.Tensor:
        """The frames [N, C] of the stream, those that lie across two utterances left out.

        A frame is normed by itself, so that neither its neighbours nor where the stream is cut can change it.
        """
        kernels, strides = self.config.conv_kernel, self.config.conv_stride
        field = 1 + sum((kernel - 1) * prod(strides[:index]) for index, kernel in enumerate(kernels))
        count = (len(packed.stream) - field) // self.stride + 1
        step = count if self._on_cuda else CPU_FRONT_FRAMES
        parts = []
        for first in range(0, count, step):
            last = min(first + step, count) - 1
            parts.append(self._convolve_part(packed.stream[first * self.stride : last * self.stride + field]))
        kept = [torch.arange(start, start + n) for start, n in zip(packed.starts, packed.lengths, strict=True)]
        return torch.cat(parts)[torch.cat(kept).to(self.device)]

    def _convolve_part(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [n] to frames [T, C]: each convolution is one matrix product over overlapping windows."""
        x = samples.to(self.dtype)[:, None]
        steps = zip(self._convolutions, self._conv_norms, self.config.conv_kernel, self.config.conv_stride, strict=True)
        for convolution, norm, kernel, stride in steps:
            frames, width = (len(x) - kernel) // stride + 1, x.shape[1]
            windows = x.as_strided((frames, kernel * width), (stride * width, 1), x.storage_offset())
            x = self._activate(linear(windows, convolution), norm)
        return x

    def _positions(self, x: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """The positional convolution [N, D] of packed rows [N, D]: with zeros between utterances none sees another."""
        weight, bias = self._position
        config = self.config
        padding = config.num_conv_pos_embeddings // 2
        starts = [0, *accumulate(length + padding for length in lengths)]
        rows = torch.cat([torch.arange(start, start + n) for start, n in zip(starts, lengths, strict=False)])
        rows = rows.to(self.device)
        spaced = x.new_zeros(self._padded(starts[-1]), self.dim)
        spaced[rows] = x
        y = functional.conv1d(
            spaced.T[None], weight, bias, padding=padding, groups=config.num_conv_pos_embedding_groups
        )
        return functional.gelu(y[0].T[rows])


def _norm(x: torch.Tensor, norm: Affine, eps: float, dtype: torch.dtype) -> torch.Tensor:
    weight, bias = norm
    return functional.layer_norm(x, weight.shape, weight, bias, eps).to(dtype)


def _normed_linear(x: torch.Tensor, norm: Affine, affine: Affine, eps: float, dtype: torch.dtype) -> torch.Tensor:
    return linear(_norm(x, norm, eps, dtype), affine)


def _after_attention(
    residual: torch.Tensor,
    attended: torch.Tensor,
    out: Affine,
    norm: Affine,
    up: Affine,
    down: Affine,
    eps: float,
) -> torch.Tensor:
    residual = residual + linear(attended, out)
    hidden = linear(_norm(residual, norm, eps, attended.dtype), up, gelu=True)
    return residual.add_(linear(hidden, down))


def _activate(x: torch.Tensor, norm: Affine) -> torch.Tensor:
    # The norms of the convolutions have torch's default epsilon, whatever the config says.
    return functional.gelu(_norm(x, norm, 1e-5, x.dtype))
