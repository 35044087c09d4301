"""Audio files of every kind that is read, and seeded damage to them."""

import random
import struct
from collections.abc import Callable

from sounds import encoded, sound

EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 64  # bytes in which the fields of all four kinds lie that say how much there is


def originals() -> list[tuple[str, bytes]]:
    """A second or two of each kind of file, by name."""
    return [
        (f"{format} {subtype} {rate} {channels}", encoded(sound(1.5, rate, channels), rate, format, subtype))
        for format, subtype, rate, channels in (
            ("WAV", "PCM_16", 16_000, 1),
            ("WAV", "FLOAT", 16_000, 1),
            ("WAVEX", "PCM_24", 44_100, 2),
            ("WAV", "ULAW", 8_000, 1),
            ("FLAC", "PCM_16", 16_000, 1),
            ("FLAC", "PCM_24", 44_100, 2),
            ("OGG", "VORBIS", 16_000, 1),
            ("OGG", "VORBIS", 44_100, 2),
            ("OGG", "OPUS", 48_000, 1),
            ("MP3", None, 16_000, 1),
            ("MP3", None, 44_100, 2),
        )
    ]


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`data` with one to three damages; `others` are spliced into it."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(DAMAGES)(bytearray(data), others, chance)
    return data


def _bytes(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 3, 30, 300))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _bits(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 3, 30))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _header_bytes(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 2, 5))):
        data[chance.randrange(min(HEADER, len(data)))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(data)


def _lying_field(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    kind = chance.choice(("<H", ">H", "<I", ">I"))
    value = chance.choice((*EXTREMES, chance.randrange(1 << 32))) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
    at = chance.randrange(max(1, min(HEADER, len(data) - 8)))
    return bytes(data[:at]) + struct.pack(kind, value) + bytes(data[at + struct.calcsize(kind) :])


def _cut(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(1, len(data) + 1)])


def _beheaded(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    return bytes(data[chance.randrange(min(len(data), 2000)) :])


def _hole(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    first, after = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return bytes(data[:first] + (bytes(after - first) if chance.random() < 0.5 else b"") + data[after:])


def _again(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    first, after = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return bytes(data[:after] + data[first:after] * chance.choice((1, 1, 5)) + data[after:])


def _spliced(data: bytearray, others: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return bytes(data[: chance.randrange(len(data) + 1)]) + other[chance.randrange(len(other)) :]


DAMAGES: tuple[Callable[[bytearray, list[bytes], random.Random], bytes], ...] = (
    *(_bytes, _bits, _header_bytes, _header_bytes, _lying_field, _lying_field, _lying_field),
    *(_cut, _beheaded, _hole, _again, _spliced),
)
