"""What a microphone, a room and a hurry do to speech, drawn anew each time an utterance is learnt from."""

from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import fft

RATE = 16_000
SPEEDS = (0.82, 1.2)  # wide, because it changes the speaker too, and real voices are costly
SNR_DB = (10.0, 30.0)
LEVEL_DBFS = (-35.0, -12.0)
LONGEST_PAUSE_S = 0.4  # before and after
ROOM_S = (0.1, 0.5)  # time in which an echo falls by 60 dB
DIRECT_DB = (0.0, 15.0)  # direct sound over echo
COLOUR_DB = 6.0  # of the microphone, at each of COLOUR_HZ
COLOUR_HZ = (0, 150, 400, 1000, 2500, 5000, 8000)


class Perturbed(NamedTuple):
    """A changed utterance."""

    samples: NDArray[np.int16]
    lead_s: float  # silence before the speech
    speed: float  # 1.1: faster and higher


def perturb(samples: NDArray[np.float32], random: np.random.Generator) -> Perturbed:
    """Speed, pauses, colour, room, noise and level of speech [n] at 16 kHz, each drawn from `random`."""
    speed = float(random.uniform(*SPEEDS)) if random.random() < 0.7 else 1.0
    if speed != 1.0:
        samples = soxr.resample(samples, RATE * speed, RATE, quality="MQ")
    lead, tail = (random.uniform(0, LONGEST_PAUSE_S, 2) * RATE).astype(int)
    samples = np.pad(samples, (lead, tail))
    length = len(samples)
    size = fft.next_fast_len(length + int(ROOM_S[1] * RATE), real=True)
    hertz = np.linspace(0, RATE / 2, size // 2 + 1, dtype=np.float32)
    spectrum = fft.rfft(samples, size)
    if random.random() < 0.5:
        spectrum *= _colour(hertz, random)
    if random.random() < 0.4:
        spectrum *= fft.rfft(_room(random), size)
    heard = fft.irfft(spectrum, size)[:length]
    power = float(np.mean(heard**2))
    if random.random() < 0.8:
        noise = _noise(hertz, size, random)[:length]
        snr = 10 ** (random.uniform(*SNR_DB) / 10)
        heard = heard + noise * np.sqrt(power / snr / max(float(np.mean(noise**2)), 1e-12))
    gain = 10 ** (random.uniform(*LEVEL_DBFS) / 20) / np.sqrt(max(power, 1e-12))
    pcm = np.clip(np.rint(heard * gain * 32_768), -32_768, 32_767).astype(np.int16)
    return Perturbed(pcm, lead / RATE, speed)


def _colour(hertz: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    decibels = np.interp(hertz, COLOUR_HZ, random.uniform(-COLOUR_DB, COLOUR_DB, len(COLOUR_HZ)))
    if random.random() < 0.2:  # a narrow band: little above 3.4 to 7 kHz
        decibels -= 40 / (1 + np.exp(-(hertz - random.uniform(3400, 7000)) / 150))
    gain: NDArray[np.float32] = (10 ** (decibels / 20)).astype(np.float32)
    return gain


def _room(random: np.random.Generator) -> NDArray[np.float32]:
    """An impulse and, some milliseconds later, noise that dies away."""
    seconds = random.uniform(*ROOM_S)
    time = np.arange(int(seconds * RATE), dtype=np.float32) / RATE
    echo: NDArray[np.float32] = random.standard_normal(len(time), np.float32) * np.exp(
        -6.9 * time / np.float32(seconds)
    )
    echo[: int(random.uniform(0.002, 0.02) * RATE)] = 0
    echo *= np.float32(np.sqrt(10 ** (-random.uniform(*DIRECT_DB) / 10) / max(float(np.sum(echo**2)), 1e-12)))
    echo[0] = 1
    return echo


def _noise(hertz: NDArray[np.float32], size: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Noise whose power falls by 0 to 6 dB an octave: from a hiss to a rumble."""
    white = random.standard_normal(2 * len(hertz), np.float32).view(np.complex64)
    noise: NDArray[np.float32] = fft.irfft(white * np.maximum(hertz, 50) ** np.float32(-random.uniform(0, 1)), size)
    return noise
