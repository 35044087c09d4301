"""Decoded sound, against soundfile, soxr and what was put into the file."""

import io

import numpy as np
import pytest
import soundfile as sf
import soxr

from sounds import decode, encoded, pcm16, snr_db, sound


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "FLAC"])
def test_16_bit_16_khz_mono_is_bit_exact(format):
    samples = pcm16(3.0)
    samples[:4] = [-32_768, 32_767, 1, -1]
    got = decode(encoded(samples, 16_000, format, "PCM_16"))
    assert got.dtype == np.int16
    assert np.array_equal(got, samples)


def test_stereo_is_the_mean_of_its_channels():
    pair = np.stack([pcm16(1.0, seed=1), pcm16(1.0, seed=2)], axis=1)
    got = decode(encoded(pair, 16_000, "WAV", "PCM_16"))
    assert np.array_equal(got, np.rint(pair.astype(np.float64).mean(axis=1)).astype(np.int16))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_any_rate_gives_the_same_tones_at_16_khz(rate):
    def tones(hertz):
        t = np.arange(2 * hertz) / hertz
        return sum(6_000 * np.sin(2 * np.pi * f * t + f) for f in (97.0, 1_000.0, 3_100.0))

    got = decode(encoded(np.rint(tones(rate)).astype(np.int16), rate, "FLAC"))
    assert len(got) == 32_000
    assert np.abs(got - tones(16_000))[800:-800].max() < 2  # rounding, at the source's rate and at 16 kHz


def test_what_does_not_fit_under_8_khz_is_taken_out():
    t = np.arange(96_000) / 48_000
    loud, kept = np.sin(2 * np.pi * 11_000 * t) * 10_000, np.sin(2 * np.pi * 500 * t) * 10_000
    got = decode(encoded(np.rint(loud + kept).astype(np.int16), 48_000, "FLAC"))
    assert snr_db(np.sin(2 * np.pi * 500 * np.arange(32_000) / 16_000)[800:-800] * 10_000, got[800:-800]) > 75


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_24", 1), ("PCM_32", 1), ("FLOAT", 1), ("DOUBLE", 1), ("PCM_U8", 256), ("ULAW", 1100), ("ALAW", 1100)],
)
def test_every_wav_encoding_is_within_its_own_step(subtype, step):
    samples = sound(1.0)[:, 0]
    got = decode(encoded(samples, 16_000, "WAV", subtype))
    assert np.abs(got - samples * 32_768).max() <= step


@pytest.mark.parametrize(
    ("format", "subtype", "rate", "db"),
    [
        ("OGG", "VORBIS", 16_000, 10),
        ("OGG", "OPUS", 48_000, 10),
        ("MP3", None, 16_000, 10),
        ("MP3", None, 44_100, 10),
    ],
)
def test_lossy_formats_hold_the_same_sound_in_the_same_place(format, subtype, rate, db):
    t = np.arange(3 * rate) / rate
    samples = 0.3 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 3 * t)) / 2
    got = decode(encoded(samples, rate, format, subtype))
    expected = soxr.resample(samples, rate, 16_000) * 32_768
    assert len(got) == 48_000
    assert snr_db(expected, got) > db


@pytest.mark.parametrize(
    ("format", "subtype", "rate"),
    [
        ("WAV", "PCM_16", 16_000),
        ("FLAC", None, 16_000),
        ("OGG", "VORBIS", 16_000),
        ("MP3", None, 16_000),
        ("OGG", "OPUS", 48_000),
        ("FLAC", None, 44_100),
    ],
)
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (1.2345, 2.5), (7.00003, 9.99), (9.0, None), (None, 1.0)])
def test_a_piece_is_a_slice_of_the_whole(format, subtype, rate, start, end):
    data = encoded(sound(10.0, rate), rate, format, subtype)
    whole, _ = sf.read(io.BytesIO(data), dtype="float32")
    piece = whole[round((start or 0) * rate) : None if end is None else round(end * rate)]
    expected = soxr.resample(piece, rate, 16_000, quality="HQ") * 32_768
    got = decode(data, start_s=start, end_s=end)
    assert len(got) == len(expected)
    assert np.abs(got - expected).max() <= 0.51  # rounding; MP3 decodes with 1e-7 of noise after a seek
