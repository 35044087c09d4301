"""An audio file's bytes to 16 kHz mono int16, with a limit at every step and a reason for every refusal.

Channels are averaged (sum / count). Resampling is soxr HQ. A 16-bit 16 kHz mono source comes out bit-exact.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from spire_ray.containers import Container, Spliced, inspect
from spire_ray.errors import RowFault

SAMPLE_RATE = 16_000
MIN_SAMPLES = 400  # 25 ms: HuBERT's receptive field, under which there is no frame
MAX_CHANNELS = 32
MIN_RATE, MAX_RATE = 4_000, 384_000
SILENCE_DBFS = -60.0
# Manifests round: an end up to this far past the audio's own end is taken for the end.
END_TOLERANCE_S = 0.1
# Full scale is 1.0. Float files go a little over; one at 8 or more holds something else (int16 values, most often).
MAX_AMPLITUDE = 8.0

_FORMATS = {"WAV": ("WAV", "WAVEX"), "FLAC": ("FLAC",), "OGG": ("OGG",), "MP3": ("MP3", "MPEG")}
_BLOCK_VALUES = 1 << 20  # values decoded at a time: 4 MB of float32
UNKNOWN_FRAMES = 1 << 62  # libsndfile's count for a FLAC whose header does not say

Mono = NDArray[Any]  # [n]: int16 as it is in the file, or float32 with full scale 1.0


class Forward(sf.SoundFile):  # type: ignore[misc,unused-ignore]
    """Reads without a seek after every block: that seek fails past the true end of a FLAC that declares no length."""

    def seekable(self) -> bool:
        """No: see the class."""
        return False


def decode(
    descriptor: int, *, start_s: float | None = None, end_s: float | None = None, max_seconds: float = 120.0
) -> NDArray[np.int16]:
    """The audio between `start_s` and `end_s` (seconds; null: from the beginning, to the end) as int16 [n] at 16 kHz.

    `descriptor`: of a whole file. `max_seconds` bounds the piece, not the file.
    Sample-accurate: the piece holds the source's samples from round(start_s * rate) to round(end_s * rate).
    RowFault: empty, unreadable, too_large, too_long, truncated, too_short, not_finite, silent.
    """
    with opened(descriptor) as (file, container):
        first, last = _bounds(file, container, start_s, end_s, max_seconds)
        mono = _read(file, first, last, max_seconds)
        rate = file.samplerate
    return _finish(mono, rate)


@contextmanager
def opened(descriptor: int) -> Iterator[tuple[Forward, Container]]:
    """An audio file, checked and open. RowFault for what it is not, and for what is found wrong while it is read."""
    size = os.fstat(descriptor).st_size
    if not size:
        raise RowFault("empty", "0 bytes")
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as data:
        container = inspect(data)
        spliced = Spliced(container.head, data, container.start)
        # From the descriptor it reads by itself, without asking Python for every 8 KiB.
        whole = not container.start and not container.head
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            with Forward(descriptor if whole else spliced, closefd=False) as file:
                _check_header(file, container)
                yield file, container
        except sf.LibsndfileError as fault:
            # A decoder that stopped with nothing left to read has met a cut file.
            read = os.lseek(descriptor, 0, os.SEEK_CUR) if whole else container.start + spliced.at - len(container.head)
            cut = container.cut or ("the data ends early" if read >= size else "")
            message = f"{container.name}: {cut or fault.error_string}"
            raise RowFault("truncated" if cut else "unreadable", message) from None


def _check_header(file: Forward, container: Container) -> None:
    """RowFault unreadable, too_large, empty or truncated, where the open `file` says that it is nothing to decode."""
    if file.format not in _FORMATS[container.name]:
        raise RowFault("unreadable", f"begins as {container.name} and goes on as {file.format}")
    if file.channels > MAX_CHANNELS:
        raise RowFault("too_large", f"{file.channels} channels, at most {MAX_CHANNELS} are read")
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise RowFault("too_large", f"{file.samplerate} Hz is outside {MIN_RATE} to {MAX_RATE}")
    if file.frames == 0:
        raise RowFault("truncated" if container.cut else "empty", container.cut or "0 samples")


def _bounds(
    file: Forward, container: Container, start_s: float | None, end_s: float | None, max_seconds: float
) -> tuple[int, int | None]:
    """First frame and the one after the last; None where the header does not say how long the audio is."""
    rate = file.samplerate
    known: int | None = file.frames if file.frames < UNKNOWN_FRAMES else None
    first = round((start_s or 0.0) * rate)
    last = known if end_s is None else round(end_s * rate)
    if end_s is not None and end_s - (start_s or 0.0) > max_seconds:
        raise RowFault("too_long", f"{end_s - (start_s or 0.0):.3f} s, at most {max_seconds:g} s")
    if known is None or last is None:
        return first, last
    if container.cut and (end_s is None or last > known):
        raise RowFault("truncated", container.cut)
    if first >= known or last - known > END_TOLERANCE_S * rate:
        asked = f"{first / rate:.3f} s to {last / rate:.3f} s"
        raise RowFault("truncated", f"{asked} is asked for, the audio ends at {known / rate:.3f} s")
    return first, min(last, known)


def _read(file: Forward, first: int, last: int | None, max_seconds: float) -> Mono:
    """Mono at the source's rate, read block by block so that a header that lies allocates nothing.

    int16 where the source is what is wanted in the end, which costs a third less than by way of float32.
    """
    exact = file.subtype == "PCM_16" and file.channels == 1 and file.samplerate == SAMPLE_RATE
    limit = int(max_seconds * file.samplerate)
    block_frames = _BLOCK_VALUES // file.channels
    blocks: list[Mono] = []
    done = 0
    if first:
        file.seek(first)
    while last is None or done < last - first:
        wanted = block_frames if last is None else min(block_frames, last - first - done)
        block: Mono = file.read(wanted, dtype="int16" if exact else "float32", always_2d=True)
        if not len(block):
            break
        done += len(block)
        if done > limit:
            raise RowFault("too_long", f"over {max_seconds:g} s{_declared(file)}")
        if not exact and not np.isfinite(block).all():
            raise RowFault("not_finite", f"NaN or infinity within {(first + done) / file.samplerate:.1f} s")
        blocks.append(block.mean(axis=1, dtype=np.float32) if file.channels > 1 else block[:, 0])
    if last is not None and done < last - first:
        raise RowFault("truncated", f"{done} of the {last - first} samples that the header declares")
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def _declared(file: Forward) -> str:
    known = file.frames < UNKNOWN_FRAMES
    return f"; the header declares {file.frames / file.samplerate:.1f} s" if known else ""


def _finish(mono: Mono, rate: int) -> NDArray[np.int16]:
    if not len(mono):
        raise RowFault("empty", "0 samples")
    exact = mono.dtype == np.int16
    if not exact and (peak := float(np.abs(mono).max())) >= MAX_AMPLITUDE:
        raise RowFault("unreadable", f"values up to {peak:g} where full scale is 1.0")
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    if len(mono) < MIN_SAMPLES:
        raise RowFault("too_short", f"{len(mono)} samples at 16 kHz, at least {MIN_SAMPLES}")
    if _silent(mono, full_scale=32_768.0 if exact else 1.0):
        raise RowFault("silent", f"under {SILENCE_DBFS:g} dBFS")
    pcm: NDArray[np.int16] = (
        mono if exact else np.clip(np.rint(mono * np.float32(32_768)), -32_768, 32_767).astype(np.int16)
    )
    return pcm


def _silent(mono: Mono, full_scale: float) -> bool:
    """Whether the power around the mean (so that a constant offset does not pass for sound) is under SILENCE_DBFS."""
    floor = (full_scale * 10 ** (SILENCE_DBFS / 20)) ** 2 * len(mono)
    within = 0.0
    # The power around each second's own mean is never more than that around the whole's: most often the first settles.
    for start in range(0, len(mono), SAMPLE_RATE):
        second = mono[start : start + SAMPLE_RATE].astype(np.float32)
        second -= second.mean()
        within += float(np.dot(second, second))  # a quarter of what np.var takes, which was 8 % of decoding
        if within >= floor:
            return False
    return float(np.var(mono, dtype=np.float64)) * len(mono) < floor
