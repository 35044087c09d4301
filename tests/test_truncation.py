"""Files that were cut: not one is taken for a whole one."""

import numpy as np
import pytest

from sounds import decode, encoded, fault, pcm16, sound


@pytest.mark.parametrize(
    ("format", "subtype", "rate"),
    [
        ("WAV", "PCM_16", 16_000),
        ("FLAC", None, 16_000),
        ("OGG", "VORBIS", 16_000),
        ("OGG", "OPUS", 48_000),
        ("MP3", None, 16_000),
    ],
)
def test_a_file_cut_anywhere_is_never_taken_for_a_whole_one(format, subtype, rate):
    data = encoded(sound(6.0, rate), rate, format, subtype)
    cuts = [len(data) - 1, len(data) // 2, *np.random.default_rng(1).integers(1, len(data), 60).tolist()]
    reasons = [fault(data[:cut]).reason for cut in cuts]
    assert set(reasons[:2]) == {"truncated"}
    assert set(reasons) <= {"truncated", "unreadable"}  # a cut inside the header leaves no audio file
    assert reasons.count("truncated") >= 0.9 * len(cuts)


def test_a_piece_before_the_cut_is_still_there():
    samples = pcm16(4.0)
    half = encoded(samples, 16_000, "WAV")[: 44 + 64_000]
    assert np.array_equal(decode(half, start_s=0.5, end_s=1.5), samples[8_000:24_000])
    assert fault(half, start_s=1.5, end_s=2.5).reason == "truncated"
    assert fault(half).reason == "truncated"
