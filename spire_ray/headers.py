"""How long an audio file is, by its first bytes and its last: for the plan, whose process lets no decoder see a file.

What is told is a length to plan by; where the decoded sound has another, the reader says so. So what is not sure is
not told: MP3 without a frame count, a chain of Ogg streams, a file whose writer could not go back to its header.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from spire_ray.containers import MP3_RATES, STREAMED_SIZE, identify, mp3_frame
from spire_ray.errors import RowFault

_HEAD = 4096
_TAIL = 65_536  # the largest Ogg page has 65,307 bytes
_MAX_CHUNKS = 100
_MAX_TAGS = 10
_MAX_PAGES = 20  # before the first with sound
_OPUS_RATE = 48_000
_OPUS_PACKET = 2880  # samples: 60 ms
_LAME_BYTES = 21  # from the encoder's name to the samples it put before and after the sound


@dataclass(frozen=True, slots=True)
class Header:
    """How much sound a file says it holds."""

    samples: int  # of each channel
    rate: int  # Hz
    channels: int


def header(file: BinaryIO) -> Header | None:
    """Of a file of an accepted kind, as the decoder would give it; None where the header does not tell.

    RowFault `unreadable` for every other file.
    """
    head = file.read(_HEAD)
    tell = {"WAV": _wav, "FLAC": _flac, "OGG": _ogg, "MP3": _mp3}[identify(head)]
    try:
        told = Header(*tell(file, head))
    except (struct.error, IndexError):
        return None  # it ends too soon
    return told if told.samples > 0 and told.rate > 0 else None


def seconds(file: BinaryIO) -> float | None:
    """The length that `header` tells. RowFault as there."""
    told = header(file)
    return told.samples / told.rate if told else None


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _wav(file: BinaryIO, head: bytes) -> tuple[int, int, int]:
    position, rate, block, channels = 12, 0, 0, 0
    for _ in range(_MAX_CHUNKS):
        tag, size = struct.unpack("<4sI", _at(file, position, 8))
        if tag == b"fmt ":
            _, channels, rate, _, block = struct.unpack("<HHIIH", _at(file, position + 8, 14))
        elif tag == b"data":
            return (size // block if block and size < STREAMED_SIZE else 0), rate, channels
        position += 8 + size + size % 2
    return 0, 0, 0


def _flac(file: BinaryIO, head: bytes) -> tuple[int, int, int]:
    packed = int.from_bytes(head[18:26], "big")  # rate 20 bits, channels 3, bits 5, samples 36
    return packed & (1 << 36) - 1, packed >> 44, (packed >> 41 & 7) + 1


def _ogg(file: BinaryIO, head: bytes) -> tuple[int, int, int]:
    stream = head[14:18]
    packet = head[27 + head[26] :]
    opus = packet.startswith(b"OpusHead")
    (skipped,) = struct.unpack_from("<H", packet, 10) if opus else (0,)
    (rate,) = (_OPUS_RATE,) if opus else struct.unpack_from("<I", packet, 12)
    longest = _OPUS_PACKET if opus else 1 << (packet[28] >> 4) >> 1
    end = file.seek(0, os.SEEK_END)
    tail = _at(file, max(0, end - _TAIL), _TAIL)
    at = tail.rfind(b"OggS\0")
    last, last_stream = struct.unpack_from("<q4s", tail, at + 6)
    whole = at >= 0 and last_stream == stream and _from_the_beginning(file, longest)
    return (last - skipped if whole else 0), rate, packet[9 if opus else 11]


def _from_the_beginning(file: BinaryIO, longest: int) -> bool:
    """Whether an Ogg stream counts its samples from 0: one cut out of another counts from where that began."""
    position = 0
    for _ in range(_MAX_PAGES):
        page = _at(file, position, 27 + 255)
        (samples,) = struct.unpack_from("<q", page, 6)
        lacing = page[27 : 27 + page[26]]
        if samples > 0:
            return bool(samples <= longest * sum(size < 255 for size in lacing))
        position += 27 + len(lacing) + sum(lacing)
    return False


def _mp3(file: BinaryIO, head: bytes) -> tuple[int, int, int]:
    start = 0
    for _ in range(_MAX_TAGS):
        if head[:3] != b"ID3":
            break
        start += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 0x10 else 0)
        head = _at(file, start, _HEAD)
        padding = len(head) - len(head.lstrip(b"\0"))
        start, head = start + padding, head[padding:]
    if head[:4] == b"fLaC":
        return _flac(file, head)
    frame = mp3_frame(head, 0)
    if frame is None:
        raise RowFault("unreadable", "no MP3 frame follows the tag")
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    at = max(head.find(name, 0, frame[0]) for name in (b"Xing", b"Info"))
    if at < 0 or layer != 3:
        return 0, 0, 0
    flags, frames = struct.unpack_from(">II", head, at + 4)
    samples = frames * (1152 if version == 3 else 576) if flags & 1 else 0
    encoder = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    if head[encoder : encoder + 4] in (b"LAME", b"Lavf", b"Lavc"):
        high, low = struct.unpack_from(">BH", head, encoder + _LAME_BYTES)
        samples -= (high << 4 | low >> 12) + (low & 0xFFF)
    elif len(head) < encoder + 4:
        return 0, 0, 0
    return samples, MP3_RATES[version][head[2] >> 2 & 3], 1 if head[3] >> 6 == 3 else 2
