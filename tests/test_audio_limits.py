"""What the decoder refuses, and by which reason."""

import numpy as np
import pytest

from sounds import decode, encoded, fault, patched, pcm16, sound
from spire_ray.errors import RowFault


def test_an_end_just_past_the_audio_is_its_end():
    samples = pcm16(2.0)
    assert np.array_equal(decode(encoded(samples, 16_000, "WAV"), start_s=1.0, end_s=2.05), samples[16_000:])


def test_pieces_outside_the_audio():
    data = encoded(pcm16(2.0), 16_000, "WAV")
    assert fault(data, start_s=1.0, end_s=2.5).reason == "truncated"
    assert fault(data, start_s=3.0).reason == "truncated"
    assert "ends at 2.000 s" in fault(data, start_s=3.0, end_s=4.0).detail


def test_over_full_scale_is_clipped():
    samples = np.float32([1.5, -1.5, 0.25] * 400)
    assert decode(encoded(samples, 16_000, "WAV", "FLOAT")).tolist()[:3] == [32_767, -32_768, 8_192]


def test_empty():
    assert fault(b"").reason == "empty"
    for format in ("WAV", "FLAC"):
        assert fault(encoded(np.zeros(0), 16_000, format)).reason == "empty"


def test_too_short():
    assert fault(encoded(pcm16(399 / 16_000), 16_000, "WAV")).reason == "too_short"
    assert len(decode(encoded(pcm16(400 / 16_000), 16_000, "WAV"))) == 400
    assert fault(encoded(pcm16(2.0), 16_000, "FLAC"), start_s=1.0, end_s=1.01).reason == "too_short"


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_too_long_is_about_the_piece(format):
    data = encoded(sound(5.0), 16_000, format)
    assert fault(data, max_seconds=4.9).reason == "too_long"
    assert len(decode(data, max_seconds=5.0)) == 80_000
    assert len(decode(data, start_s=2.0, end_s=3.0, max_seconds=1.0)) == 16_000
    assert fault(data, start_s=1.0, end_s=3.0, max_seconds=1.0).reason == "too_long"
    assert fault(data, start_s=1.0, max_seconds=1.0).reason == "too_long"


def test_silence_is_under_minus_60_dbfs_around_its_mean():
    noise = np.random.default_rng(0).standard_normal(16_000)
    assert fault(encoded(np.zeros(16_000), 16_000, "FLAC")).reason == "silent"
    assert fault(encoded(noise * 0.0009, 16_000, "WAV", "FLOAT")).reason == "silent"
    assert fault(encoded(noise * 0.0001 + 0.2, 16_000, "WAV", "FLOAT")).reason == "silent"
    assert len(decode(encoded(noise * 0.0011, 16_000, "WAV", "FLOAT"))) == 16_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_not_finite(value, subtype):
    samples = sound(1.0)
    samples[12_345] = value
    data = encoded(samples, 16_000, "WAV", subtype)
    assert fault(data).reason == "not_finite"
    assert len(decode(data, end_s=0.5)) == 8_000


def test_float_files_of_integer_values_are_refused_and_not_clipped():
    assert fault(encoded(sound(1.0) * 32_768, 16_000, "WAV", "FLOAT")).reason == "unreadable"


def test_a_flac_that_declares_1193_hours_allocates_nothing():
    data = bytearray(encoded(pcm16(3.0), 16_000, "FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    assert fault(bytes(data)).reason == "truncated"
    assert fault(bytes(data), max_seconds=1.0).reason == "too_long"
    assert len(decode(bytes(data), start_s=1.0, end_s=2.0)) == 16_000


def test_absurd_headers():
    data = encoded(pcm16(1.0), 16_000, "WAV")
    assert fault(patched(data, 24, "<I", 3_999)).reason == "too_large"
    assert fault(patched(data, 24, "<I", 384_001)).reason == "too_large"
    assert fault(patched(data, 24, "<I", 2_147_483_647)).reason == "too_large"
    wide = patched(patched(data, 22, "<H", 33), 32, "<H", 66)
    assert fault(wide).reason == "too_large"
    assert fault(encoded(np.zeros((100, 1024)), 16_000, "WAV")).reason == "too_large"


def outcome(data):
    try:
        return str(decode(data).dtype)
    except RowFault as caught:
        return caught.reason


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_damaged_bytes_give_audio_or_a_reason(format):
    data = encoded(sound(1.0), 16_000, format)
    rng = np.random.default_rng(3)
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 20):
            damaged[position] = rng.integers(256)
        outcomes.add(outcome(bytes(damaged[rng.integers(0, 2) :])))
    assert "unreadable" in outcomes
    assert outcomes <= {"int16", "unreadable", "empty", "too_short", "too_large", "truncated", "not_finite", "silent"}
