"""What an audio file says of itself, read before any decoder sees it.

The allow-list is WAV (PCM, float, G.711), FLAC, Ogg (Vorbis, Opus) and MP3, by content; the file's name does not count.
libsndfile 1.2.2 opens two dozen more formats, and most of its open memory faults are in those, so they never reach it.
"""

import mmap
import os
import re
import struct
from dataclasses import dataclass

from spire_ray.errors import RowFault

ACCEPTED = "WAV, FLAC, Ogg Vorbis, Ogg Opus or MP3"
# PCM, IEEE float, and G.711 A-law and mu-law (two look-up tables). ADPCM, GSM 6.10 and MP3-in-WAV are refused.
WAV_TAGS = frozenset({0x0001, 0x0003, 0x0006, 0x0007})
WAV_EXTENSIBLE = 0xFFFE
# Written by programs that stream and cannot go back: 0xFFFFFFFF (ffmpeg), about 0x7FFFF000 (sox), 0x7FFFFFFF (Kaldi).
STREAMED_SIZE = 0x7FFF0000
MAX_CHUNKS = 1000

_OTHERS = {
    b"RF64": "RF64",
    b"RIFX": "big-endian WAV",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
    b"NIST": "NIST SPHERE",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"0&\xb2u": "WMA",
    b"#!AM": "AMR",
    b"#EXT": "a playlist (EXTM3U)",
    b"<!DO": "a web page (DOCTYPE)",
    b"RIFF": "RIFF without WAVE",
}
_MP3_KBPS = {
    # (MPEG 1, layer): kbit/s by bitrate index; MPEG 2 and 2.5 share the second table of each layer.
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_MP3_MAX_JUNK = 65_536
_ZEROS = re.compile(rb"\0*")

Data = bytes | mmap.mmap  # a whole file, in memory or mapped


@dataclass(frozen=True)
class Container:
    """An audio file of an accepted kind."""

    name: str  # WAV, FLAC, OGG or MP3
    cut: str  # how the end is missing, "" when nothing shows that it is
    start: int = 0  # where the audio begins: after a tag
    head: bytes = b""  # what the decoder reads before it


class Spliced:
    """`head`, then `data` from `start` on, as one file for the decoder."""

    def __init__(self, head: bytes, data: Data, start: int) -> None:
        self.head, self.data, self.start = head, data, start
        self.at = 0

    def tell(self) -> int:
        """How far it is read."""
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        size = len(self.head) + len(self.data) - self.start
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: size}[whence])
        return self.at

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer at the end of the head too."""
        if self.at < len(self.head):
            part = self.head[self.at : self.at + size]
        else:
            first = self.start + self.at - len(self.head)
            part = self.data[first : first + size]
        self.at += len(part)
        return part


def identify(head: bytes) -> str:
    """WAV, FLAC, OGG or MP3, from the first bytes of a file (4 KiB are plenty). RowFault `unreadable` for all else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"fLaC":
        return "FLAC"
    if head[:4] == b"OggS":
        packet = head[27 + head[26] :] if len(head) > 27 else b""
        if packet.startswith((b"\x01vorbis", b"OpusHead")):
            return "OGG"
        raise RowFault("unreadable", f"Ogg, but neither Vorbis nor Opus: {packet[:8]!r}")
    if head[:3] == b"ID3" or mp3_frame(head, 0) is not None:
        return "MP3"
    kind = "MPEG-4 (m4a)" if head[4:8] == b"ftyp" else _OTHERS.get(head[:4], "a file of no known kind")
    raise RowFault("unreadable", f"{kind}, not {ACCEPTED}")


def inspect(data: Data) -> Container:
    """Check what `data` declares against what is there. RowFault `unreadable` when it is not of an accepted kind."""
    name = identify(data[:4096])
    if name == "WAV":
        return Container(name, _wav_cut(data))
    if name == "OGG":
        return Container(name, _ogg_cut(data))
    return _mp3(data) if name == "MP3" else Container(name, "")


def _wav_cut(data: Data) -> str:
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return "the file ends before its data chunk"
        tag, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if tag == b"data":
            there = len(data) - position
            declared = size if size < STREAMED_SIZE else there
            return f"the header declares {declared} bytes of audio, {there} are there" if there < declared else ""
        if tag == b"fmt ":
            _check_wav_format(data[position : position + min(size, 40)])
        position += size + size % 2
    raise RowFault("unreadable", f"WAV with over {MAX_CHUNKS} chunks before the audio")


def _check_wav_format(chunk: bytes) -> None:
    if len(chunk) < 16:
        raise RowFault("unreadable", "WAV with a format chunk of under 16 bytes")
    (tag,) = struct.unpack_from("<H", chunk)
    if tag == WAV_EXTENSIBLE and len(chunk) >= 26:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    if tag not in WAV_TAGS:
        raise RowFault("unreadable", f"WAV with encoding 0x{tag:04x}: PCM, float, A-law and mu-law are read")


def _ogg_cut(data: Data) -> str:
    # libsndfile takes the length of an Ogg from its last whole page, so a cut file looks whole to it.
    page = data.rfind(b"OggS\x00")
    header = data[page : page + 27]
    lacing = data[page + 27 : page + 27 + (header[26] if len(header) == 27 else 0)]
    whole = len(header) == 27 and len(lacing) == header[26] and page + 27 + len(lacing) + sum(lacing) <= len(data)
    return "" if whole else "the last Ogg page is cut"


def _mp3(data: Data) -> Container:
    start = after_tags(data)
    if data[start : start + 4] == b"fLaC":
        return Container("FLAC", "", start)
    if start >= len(data):
        return Container("MP3", "nothing follows the ID3 tag", start)
    first = mp3_frame(data, start)
    if first is None:
        raise RowFault("unreadable", "an ID3 tag, then no MP3 frame")
    if any(name in data[start : start + first[0]] for name in (b"Xing", b"Info", b"VBRI")):
        return Container("MP3", "", start)
    frames, cut = _count_mp3_frames(data, start, first)
    # Without a frame count libsndfile guesses the length from the first frame's bitrate, and stops there: 20 s of
    # variable bitrate came back as 3.3 s. So the count is put in front, as an encoder would have done.
    head = _xing_frame(data[start : start + 4], first[0], frames)
    return Container("MP3", "the last MP3 frame is cut" if cut else "", start, head)


def after_tags(data: Data) -> int:
    """Where the audio begins: behind ID3 tags and the zeros that pad them."""
    start = 0
    while data[start : start + 3] == b"ID3" and len(data) >= start + 10:
        tag = data[start : start + 10]
        start += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]) + (10 if tag[5] & 0x10 else 0)
        if padding := _ZEROS.match(data, start):
            start = padding.end()
    return start


def mp3_frame(data: Data, at: int) -> tuple[int, int] | None:
    """(bytes, header bits that all frames of a stream share) of the MPEG audio frame at `at`, if there is one."""
    header = data[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    bits, hertz = _MP3_KBPS[version == 3, layer][bitrate] * 1000, MP3_RATES[version][rate]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hertz + padding) * 4, version << 4 | layer << 2 | rate
    slots = 72 if layer == 3 and version != 3 else 144
    return slots * bits // hertz + padding, version << 4 | layer << 2 | rate


def _count_mp3_frames(data: Data, start: int, first: tuple[int, int]) -> tuple[int, bool]:
    """How many whole frames there are, and whether a last one is cut; junk of up to 64 KiB is stepped over."""
    position = sound = start
    count = 0
    while position < len(data) and position - sound <= _MP3_MAX_JUNK:
        frame = mp3_frame(data, position)
        if frame is None or frame[1] != first[1]:
            if data[position : position + 11].startswith((b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")):
                break
            following = data.find(b"\xff", position + 1)
            if following < 0:
                break
            position = following
            continue
        if position + frame[0] > len(data):
            return count, True
        count += 1
        position += frame[0]
        sound = position
    return count, False


def _xing_frame(header: bytes, size: int, frames: int) -> bytes:
    """A silent MP3 frame that declares `frames`. Layers I and II have no such thing: nothing."""
    if 4 - (header[1] >> 1 & 3) != 3:
        return b""
    mpeg1, mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    side_info = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    # The protection bit set: no checksum between the header and the side information.
    head = bytes((header[0], header[1] | 1, header[2], header[3]))
    body = head + b"\0" * side_info + b"Xing" + struct.pack(">II", 1, frames)
    return body.ljust(size, b"\0") if len(body) <= size else b""
