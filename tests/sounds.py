"""Sounds as bytes of audio files, and what the decoder makes of them, in this process."""

import io
import os
import struct
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from spire_ray import audio
from spire_ray.errors import RowFault


def sound(seconds: float, rate: int = 16_000, channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    """A tone with noise, different in each channel: float64 [n, channels]."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate))[:, None] / rate
    return 0.3 * np.sin(2 * np.pi * 220 * t * (1 + np.arange(channels))) + 0.05 * rng.standard_normal(
        (len(t), channels)
    )


def encoded(samples: NDArray[Any], rate: int, format: str, subtype: str | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    sf.write(stream, samples, rate, format=format, subtype=subtype, **options)
    return stream.getvalue()


def pcm16(seconds: float, seed: int = 0) -> NDArray[np.int16]:
    return np.rint(sound(seconds, seed=seed)[:, 0] * 20_000).astype(np.int16)


def decode(data: bytes, **options: Any) -> NDArray[np.int16]:
    """audio.decode of bytes."""
    descriptor = os.memfd_create("audio")
    try:
        os.write(descriptor, data)
        return audio.decode(descriptor, **options)
    finally:
        os.close(descriptor)


def fault(data: bytes, **options: Any) -> RowFault:
    with pytest.raises(RowFault) as caught:
        decode(data, **options)
    return caught.value


def patched(data: bytes, offset: int, format: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(format, changed, offset, *values)
    return bytes(changed)


def snr_db(reference: NDArray[Any], got: NDArray[Any]) -> float:
    reference, got = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    return 10 * float(np.log10((reference**2).sum() / max(1e-30, ((reference - got) ** 2).sum())))
