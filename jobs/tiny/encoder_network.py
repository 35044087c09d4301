"""The encoder in training: transformers' HuBERT, narrow, with the heads that teach it."""

from typing import Any, NamedTuple

import torch
from letters import LETTERS
from phones import SOUNDS
from torch import nn
from torch.nn import functional
from transformers import HubertConfig, HubertModel

LAYER = 3  # whose output becomes units; one more follows, as in SPIRE, where 22 of 24 are used
WIDTH = 192
# The original has 512 channels everywhere; most of the work is where there are 3200 and 1600 frames a second.
CHANNELS = (32, 64, 96, 128, 128, 160, 192)
MEL_BANDS, MEL_WINDOW = 64, 400
TIME_MASK, TIME_MASKS_PER_FRAME = 8, 0.01  # frames of a mask; masks begin at 1 % of the frames
BAND_MASK = 24  # channels of the mask over all frames of an utterance


class Said(NamedTuple):
    """What the heads say."""

    letters: torch.Tensor  # [B, T, letters], after the last layer
    letters_at_layer: torch.Tensor  # [B, T, letters], after layer LAYER
    sounds: torch.Tensor  # [B, T, sounds], after layer LAYER
    mel_error: torch.Tensor  # mean squared error of the spectrum, in standard deviations


class Network(nn.Module):
    """HuBERT and its heads."""

    def __init__(self) -> None:
        super().__init__()
        config: Any = HubertConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYER + 1,
            num_attention_heads=4,
            intermediate_size=4 * WIDTH,
            conv_dim=CHANNELS,
            conv_bias=True,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=32,
            num_conv_pos_embedding_groups=8,
            hidden_dropout=0.0,  # the speech is new each time it is heard, and too little to be learnt by heart
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            layerdrop=0.0,
            mask_time_prob=0.0,
            apply_spec_augment=False,
        )
        config._attn_implementation = "eager"  # its backward is 3 times as fast as the fused one on a CPU
        self.hubert: Any = HubertModel(config)
        self.letters = nn.Linear(WIDTH, len(LETTERS))
        self.letters_at_layer = nn.Linear(WIDTH, len(LETTERS))
        self.sounds = nn.Linear(WIDTH, len(SOUNDS))
        self.mel = nn.Linear(CHANNELS[-1], MEL_BANDS)
        self.register_buffer("bands", mel_bands(), persistent=False)

    def groups(self, decay: float) -> list[dict[str, object]]:
        """The parameters for an optimizer: matrices decay, the rest does not."""
        parameters = list(self.parameters())
        return [
            {"params": [x for x in parameters if x.dim() > 1], "weight_decay": decay},
            {"params": [x for x in parameters if x.dim() <= 1], "weight_decay": 0.0},
        ]

    def forward(self, samples: torch.Tensor, frames: torch.Tensor) -> Said:
        """Normalised samples float32 [B, S] of which `frames` [B] count, to what is said in each frame."""
        heard = self.convolve(samples)
        there = torch.arange(heard.shape[1]) < frames[:, None]
        mel_error = self._mel_error(samples, heard, there)
        x = self.hubert.feature_projection(heard)
        x = x[0] if isinstance(x, tuple) else x
        if self.training:
            x = _masked(x)
        x = x * there[..., None]
        encoder = self.hubert.encoder
        x = encoder.dropout(x + encoder.pos_conv_embed(x))
        mask = torch.zeros(there.shape).masked_fill(~there, -1e4)[:, None, None, :]
        at_layer = x
        for index, layer in enumerate(encoder.layers):
            x = layer(x, attention_mask=mask)
            if index == LAYER - 1:
                at_layer = x
        last = encoder.layer_norm(x)
        return Said(self.letters(last), self.letters_at_layer(at_layer), self.sounds(at_layer).float(), mel_error)

    def convolve(self, samples: torch.Tensor) -> torch.Tensor:
        """HubertModel's feature extractor [B, S] to [B, T, C], with the channels innermost: twice as fast on a CPU."""
        x = samples[:, None, None, :].contiguous(memory_format=torch.channels_last)
        for layer in self.hubert.feature_extractor.conv_layers:
            weight = layer.conv.weight[:, :, None].contiguous(memory_format=torch.channels_last)
            x = functional.conv2d(x, weight, layer.conv.bias, stride=(1, layer.conv.stride[0]))
            x = functional.gelu(layer.layer_norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x[:, :, 0].transpose(1, 2)

    def _mel_error(self, samples: torch.Tensor, heard: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            windows = samples.unfold(1, MEL_WINDOW, 320)[:, : heard.shape[1]] * torch.hann_window(MEL_WINDOW)
            power = torch.fft.rfft(windows).abs().square()
            mel = torch.log(power @ self.bands + 1e-2)
            kept = mel[there]
            target = (kept - kept.mean(0)) / (kept.std(0) + 1e-3)
        return functional.mse_loss(self.mel(heard)[there].float(), target)


def mel_bands() -> torch.Tensor:
    """Triangles, evenly spaced on the mel scale from 40 Hz to 8 kHz [MEL_WINDOW / 2 + 1, MEL_BANDS]."""
    edges = 700 * (10 ** (torch.linspace(0.0241, 1.0948, MEL_BANDS + 2)) - 1)  # 2595 mel to a factor of ten
    hertz = torch.linspace(0, 8000, MEL_WINDOW // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)).clamp(min=0)


def _masked(x: torch.Tensor) -> torch.Tensor:
    """Some spans of frames and some channels of each utterance [B, T, D] as zeros."""
    starts = (torch.rand(x.shape[:2]) < TIME_MASKS_PER_FRAME).float()
    spans = functional.max_pool1d(functional.pad(starts, (TIME_MASK - 1, 0))[:, None], TIME_MASK, 1)[:, 0]
    first = torch.randint(0, x.shape[2] - BAND_MASK, (len(x), 1))
    channels = torch.arange(x.shape[2])
    band = (channels >= first) & (channels < first + BAND_MASK) & (torch.rand(len(x), 1) < 0.5)
    return x * (1 - spans[..., None]) * ~band[:, None]
