"""What files say of themselves: lengths that are not declared, tags, and kinds of file that reach no decoder."""

import struct

import numpy as np
import pytest

from sounds import decode, encoded, fault, patched, pcm16, snr_db, sound
from spire_ray import audio


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
