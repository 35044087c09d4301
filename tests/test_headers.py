"""Lengths by header, against libsndfile's, which the plan does without."""

import io

import numpy as np
import pytest
import soundfile as sf

from sounds import encoded, patched, pcm16, sound
from spire_ray.errors import RowFault
from spire_ray.headers import seconds


def of(data):
    return seconds(io.BytesIO(data))


@pytest.mark.parametrize("length", [0.3, 2.5, 9.3])
@pytest.mark.parametrize(
    ("format", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_16", 8_000, 1),
        ("WAV", "FLOAT", 44_100, 2),
        ("WAVEX", "PCM_24", 48_000, 2),
        ("FLAC", None, 44_100, 2),
        ("OGG", "VORBIS", 16_000, 1),
        ("OGG", "VORBIS", 44_100, 2),
        ("OGG", "OPUS", 48_000, 1),
        ("OGG", "OPUS", 16_000, 1),
        ("MP3", None, 16_000, 1),
        ("MP3", None, 44_100, 2),
    ],
)
def test_the_length_is_the_one_that_is_decoded(length, format, subtype, rate, channels):
    data = encoded(sound(length, rate, channels), rate, format, subtype)
    info = sf.info(io.BytesIO(data))
    assert of(data) == pytest.approx(info.frames / info.samplerate, abs=1e-9)


def test_a_tag_and_chunks_before_the_sound():
    mp3, wav = encoded(sound(2.5), 16_000, "MP3"), encoded(pcm16(2.5), 16_000, "WAV")
    assert of(b"ID3\x03\0\0\0\0\x10\0" + bytes(2048) + mp3) == pytest.approx(2.5)
    assert of(wav[:36] + b"LIST\x05\0\0\0abcde\0" + wav[36:]) == 2.5


def test_what_is_not_sure_is_not_told():
    wav, mp3, ogg = (encoded(pcm16(2.0), 16_000, format) for format in ("WAV", "MP3", "OGG"))
    assert of(patched(wav, 40, "<I", 0xFFFFFFFF)) is None
    assert of(mp3.replace(b"Xing", b"none").replace(b"Info", b"none")) is None
    assert of(ogg + encoded(pcm16(1.0, 1), 16_000, "OGG", "VORBIS")) is None
    page = ogg.rindex(b"OggS\0")
    # As it is where a stream was cut out of a longer one: it begins at a million samples.
    for position in [at for at in range(page + 1) if ogg.startswith(b"OggS\0\0", at) or at == page]:
        (samples,) = np.frombuffer(ogg, "<i8", 1, position + 6)
        ogg = patched(ogg, position + 6, "<q", int(samples) + 1_000_000 * (samples > 0))
    assert of(ogg) is None


def outcome(data):
    try:
        return of(data)
    except RowFault as fault:
        return fault.reason


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_cut_within_its_header_has_its_length_or_none(format):
    data = encoded(pcm16(1.0), 16_000, format)
    lengths = [outcome(data[:end]) for end in range(0, 200, 3)]
    assert set(lengths) <= {"unreadable", None, 1.0}
    assert lengths[0] == "unreadable"


def test_other_files_are_refused():
    for data in (b"no audio at all", b"ID3\x03\0\0\0\0\0\0" + bytes(100), b""):
        with pytest.raises(RowFault, match="unreadable"):
            of(data)
