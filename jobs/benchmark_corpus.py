"""Synthetic speech-like sound for the benchmarks: voiced, breathy and silent stretches in utterances of 2 to 17 s.

Deterministic. An encoder works as hard on it as on speech, and its units change from syllable to syllable.
"""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
SHORTEST_S, LONGEST_S = 2.0, 17.0
WINDOW = 512  # 32 ms, half of them overlapping
FORMANTS_HZ = ((250.0, 850.0), (800.0, 2500.0), (2400.0, 3400.0))  # ranges of the first three
BANDWIDTH_HZ = 150.0
SOUND_S = 0.1  # from one sound of the voice to the next
LOUDNESS = 3000.0  # root mean square of the int16 samples: -21 dBFS


def write_corpus(folder: Path, minutes: float) -> list[float]:
    """FLAC files of 16 kHz under `folder` until they last `minutes`. Returns their seconds, in the order of names."""
    lengths = utterance_seconds(minutes)
    for number, seconds in enumerate(lengths):
        path = folder / f"speaker-{number // 50:03d}" / f"{number:06d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, utterance(seconds, number), RATE, subtype="PCM_16")
    return lengths


def utterance_seconds(minutes: float) -> list[float]:
    """Lengths between SHORTEST_S and LONGEST_S, as many as last `minutes` or a little more."""
    rng = np.random.default_rng(0)
    lengths: list[float] = []
    while sum(lengths) < minutes * 60:
        lengths.append(round(float(rng.uniform(SHORTEST_S, LONGEST_S)), 2))
    return lengths


def utterance(seconds: float, seed: int) -> NDArray[np.int16]:
    """One voice that speaks nonsense, int16 [seconds * 16000]: a buzz or breath through formants that glide."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    sounds = round(seconds / SOUND_S) + 2
    hop = WINDOW // 2
    source = _source((samples // hop + 3) * hop, sounds, rng)
    windows = np.lib.stride_tricks.sliding_window_view(source, WINDOW)[::hop]
    spectra = np.fft.rfft(windows * np.hanning(WINDOW + 1)[:-1]) * _mouth(len(windows), sounds, rng)
    halves = np.fft.irfft(spectra, WINDOW).reshape(-1, 2, hop)
    spoken: NDArray[np.float64] = (halves[1:, 0] + halves[:-1, 1]).reshape(-1)[:samples]
    level = LOUDNESS / float(np.sqrt(np.mean(spoken**2)))
    return np.clip(level * spoken, -32_000, 32_000).astype(np.int16)


def _source(samples: int, sounds: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A buzz at the voice's pitch and breath [samples], mixed anew for each sound."""
    pitch = rng.uniform(90, 240) * _glide(rng.uniform(0.8, 1.2, sounds), samples)
    buzz = np.cumsum(pitch / RATE) % 1 - 0.5
    voiced = _glide(rng.choice([0.05, 0.8, 1.0], sounds), samples)
    loud = _glide(rng.choice([0.01, 0.5, 1.0], sounds, p=[0.15, 0.35, 0.5]), samples)
    return loud * (voiced * buzz + (1 - voiced) * 0.3 * rng.standard_normal(samples))


def _mouth(windows: int, sounds: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The gain at each frequency [windows, WINDOW / 2 + 1]."""
    hertz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    gain = np.full((windows, len(hertz)), 0.02)
    for low, high in FORMANTS_HZ:
        centre = _glide(rng.uniform(low, high, sounds), windows)[:, None]
        gain += np.exp(-(((hertz - centre) / BANDWIDTH_HZ) ** 2) / 2)
    return gain


def _glide(values: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    return np.interp(np.linspace(0, len(values) - 1, steps), np.arange(len(values)), values)
