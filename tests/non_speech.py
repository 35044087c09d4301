"""Sounds in which nobody speaks: silence, direct current, noise, hum and music, synthesised, from a seed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
Samples = NDArray[np.int16]
_MAJOR, _MINOR = (0, 4, 7, 12), (0, 3, 7, 12)


def silence(random: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """A silent room through a microphone: noise under -66 dBFS."""
    return noise(random, seconds, slope=1.0) * random.uniform(0, 0.0005)


def offset(random: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """Direct current, as of a broken sound card, with a little noise."""
    return random.uniform(-0.5, 0.5) + noise(random, seconds, slope=0.0) * random.uniform(0, 0.005)


def white(random: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """Noise of the same power in each Hz."""
    return noise(random, seconds, slope=0.0) * random.uniform(0.01, 0.2)


def pink(random: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """Noise of the same power in each octave."""
    return noise(random, seconds, slope=1.0) * random.uniform(0.01, 0.2)


def hum(random: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """Mains, with its harmonics and some noise."""
    base = random.choice([50.0, 60.0])
    parts = tone(seconds, base * np.arange(1, 12), random.uniform(0, 1, 11) / np.arange(1, 12))
    return (parts + noise(random, seconds, slope=1.0) * 0.02) * random.uniform(0.02, 0.3)


def chords(random: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """Chords of an organ, one after the other."""
    return _played(random, seconds, each=random.uniform(0.6, 1.5), together=True)


def arpeggio(random: np.random.Generator, seconds: float) -> NDArray[np.float64]:
    """The notes of chords, plucked one by one."""
    return _played(random, seconds, each=random.uniform(0.12, 0.35), together=False)


KINDS: dict[str, Callable[[np.random.Generator, float], NDArray[np.float64]]] = {
    kind.__name__: kind for kind in (silence, offset, white, pink, hum, chords, arpeggio)
}


def sounds(kind: str, count: int) -> list[Samples]:
    """`count` of one of KINDS, 2 to 8 s each, int16 at 16 kHz."""
    made = []
    for seed in range(count):
        random = np.random.default_rng([seed, *kind.encode()])
        wave = KINDS[kind](random, random.uniform(2.0, 8.0))
        made.append(np.clip(np.rint(wave * 32_767), -32_768, 32_767).astype(np.int16))
    return made


def noise(random: np.random.Generator, seconds: float, slope: float) -> NDArray[np.float64]:
    """Gaussian noise of RMS 1 whose power falls with frequency to the power of `slope`."""
    size = round(seconds * RATE)
    spectrum = np.fft.rfft(random.standard_normal(size))
    spectrum[0] = 0
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (slope / 2)
    wave: NDArray[np.float64] = np.fft.irfft(spectrum, size)
    return wave / wave.std()


def tone(seconds: float, hertz: NDArray[np.float64], loudness: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of sines."""
    times = np.arange(round(seconds * RATE)) / RATE
    wave: NDArray[np.float64] = loudness @ np.sin(2 * np.pi * hertz[:, None] * times)
    return wave


def _played(random: np.random.Generator, seconds: float, each: float, together: bool) -> NDArray[np.float64]:
    overtones = np.arange(1, 7)
    timbre = random.uniform(0.2, 1.0, 6) / overtones**1.5
    key = 110.0 * 2 ** (random.integers(0, 18) / 12)
    notes = []
    while len(notes) * each < seconds:
        chord = (_MAJOR, _MINOR)[random.integers(0, 2)]
        root = key * 2 ** (random.choice([0, 5, 7, 9]) / 12)
        pitches = [root * 2 ** (step / 12) for step in (chord if together else [random.choice(chord)])]
        note = sum(tone(each, pitch * overtones, timbre) for pitch in pitches)
        fading = np.exp(-np.linspace(0, 1 if together else 4, len(note))) * np.minimum(1, np.arange(len(note)) / 80)
        notes.append(note * fading)
    wave = np.concatenate(notes)
    return wave / np.abs(wave).max() * random.uniform(0.1, 0.8)
