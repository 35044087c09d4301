import io
import struct

import numpy as np
import pytest
import soundfile as sf
import soxr

from spire_ray import audio
from spire_ray.audio import decode
from spire_ray.errors import RowFault


def sound(seconds, rate=16_000, channels=1, seed=0):
    """A tone with noise, different in each channel: float64 [n, channels]."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate))[:, None] / rate
    return 0.3 * np.sin(2 * np.pi * 220 * t * (1 + np.arange(channels))) + 0.05 * rng.standard_normal(
        (len(t), channels)
    )


def encoded(samples, rate, format, subtype=None, **options):
    stream = io.BytesIO()
    sf.write(stream, samples, rate, format=format, subtype=subtype, **options)
    return stream.getvalue()


def pcm16(seconds, seed=0):
    return np.rint(sound(seconds, seed=seed)[:, 0] * 20_000).astype(np.int16)


def fault(data, **options):
    with pytest.raises(RowFault) as caught:
        decode(data, **options)
    return caught.value


def patched(data, offset, format, *values):
    data = bytearray(data)
    struct.pack_into(format, data, offset, *values)
    return bytes(data)


def snr_db(reference, got):
    reference, got = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    return 10 * np.log10((reference**2).sum() / max(1e-30, ((reference - got) ** 2).sum()))


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


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_streamed_wav_files_do_not_declare_their_length(size):
    samples = pcm16(2.0)
    data = patched(patched(encoded(samples, 16_000, "WAV"), 4, "<I", size), 40, "<I", size)
    assert np.array_equal(decode(data), samples)


def test_a_chunk_before_the_audio_is_stepped_over():
    samples = pcm16(1.0)
    data = encoded(samples, 16_000, "WAV")
    junk = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    assert np.array_equal(decode(data[:36] + junk + data[36:]), samples)
    assert fault(data[:36] + junk + data[36:-100]).reason == "truncated"


def test_a_flac_that_does_not_declare_its_length():
    samples = pcm16(3.0)
    data = bytearray(encoded(samples, 16_000, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert np.array_equal(decode(bytes(data)), samples)
    assert np.array_equal(decode(bytes(data), start_s=1.0, end_s=2.0), samples[16_000:32_000])


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


def test_variable_bitrate_mp3_without_its_frame_count():
    samples = sound(10.0, 44_100)[:, 0]
    samples[: 3 * 44_100] *= 0.01
    data = encoded(samples, 44_100, "MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    bare = data[data.index(b"\xff\xfb", 4) :]
    assert b"Xing" not in bare[:200]
    known, got = decode(data), decode(bare)
    assert len(known) == 160_000
    assert abs(len(got) - len(known)) < 1_200  # the encoder's delay and padding are no longer known
    offset = 1105 * 16_000 // 44_100  # LAME's delay
    lag = max(
        range(offset - 60, offset + 60),
        key=lambda n: float(np.dot(known[80_000:96_000] / 1e4, got[80_000 + n : 96_000 + n] / 1e4)),
    )
    assert snr_db(known[80_000:96_000], got[80_000 + lag : 96_000 + lag]) > 10
    assert fault(bare[:-1]).reason == "truncated"
    assert len(decode(bare + b"TAG" + bytes(125))) == len(got)


def test_tags_before_an_mp3_and_a_flac():
    tag = b"ID3\x03\0\0\0\0\x10\0" + bytes(2048)
    mp3, flac = encoded(sound(2.0), 16_000, "MP3"), encoded(pcm16(2.0), 16_000, "FLAC")
    assert np.array_equal(decode(tag + mp3), decode(mp3))
    assert np.array_equal(decode(tag + flac), pcm16(2.0))


@pytest.mark.parametrize("format", ["AIFF", "AU", "CAF", "RF64", "W64", "NIST", "VOC", "IRCAM", "RAW"])
def test_formats_outside_the_allow_list_never_reach_the_decoder(format, monkeypatch):
    data = encoded(sound(0.1), 16_000, format, "PCM_16")
    monkeypatch.setattr(audio, "Forward", None)
    assert fault(data).reason == "unreadable"
    assert fault(b"ID3\x03\0\0\0\0\0\0" + data).reason == "unreadable"


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_wav_encodings_outside_the_allow_list_never_reach_the_decoder(subtype, monkeypatch):
    data = encoded(sound(0.5, 8_000), 8_000, "WAV", subtype)
    monkeypatch.setattr(audio, "Forward", None)
    assert fault(data).reason == "unreadable"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\0\0\0\x18ftypM4A \0\0\0\0", "MPEG-4"),
        (b"<!DOCTYPE html><html>", "DOCTYPE"),
        (b"#EXTM3U\nfile:///etc/passwd", "EXTM3U"),
        (b"\x1aE\xdf\xa3" + bytes(40), "WebM"),
        (b"OggS\0\2" + bytes(20) + b"\x01\x1eSpeex   ", "Speex"),
        (b"RIFF", "RIFF"),
        (b"\xff\xf1\x50\x80" + bytes(100), "not WAV"),  # AAC in ADTS
    ],
)
def test_other_things_are_named(data, named):
    assert fault(data).reason == "unreadable"
    assert named in fault(data).detail


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


def test_probe_reads_the_header_alone():
    for format, rate in (("WAV", 8_000), ("FLAC", 44_100), ("OGG", 16_000), ("MP3", 16_000)):
        data = encoded(sound(2.5, rate), rate, format)
        assert audio.probe(io.BytesIO(data)) == pytest.approx(2.5, abs=1e-6)
    with pytest.raises(RowFault):
        audio.probe(io.BytesIO(b"no audio at all"))
