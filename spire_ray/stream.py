"""A recording of any length as blocks of 16 kHz mono, in memory that does not grow with it.

Decoding of utterances is in `audio.py`; the limits and what they are called are the same here.
"""

from collections.abc import Iterator

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from spire_ray import audio
from spire_ray.errors import RowFault

BLOCK_FRAMES = 65_536  # at the source's rate: 4 s at 16 kHz


def blocks(descriptor: int, start_s: float | None = None, end_s: float | None = None) -> Iterator[NDArray[np.float32]]:
    """The sound of a file between `start_s` and `end_s` (seconds), mono float32 at 16 kHz, full scale 1.0.

    RowFault: empty, unreadable, too_large, truncated, not_finite; after the blocks before the place where it shows.
    """
    with audio.opened(descriptor) as (sound, container):
        yield from _resampled(sound, *_span(sound, start_s, end_s))
    if container.cut and end_s is None:
        raise RowFault("truncated", container.cut)


def _span(sound: sf.SoundFile, start_s: float | None, end_s: float | None) -> tuple[int, int | None]:
    """The first frame and how many; None where the header does not say how long the sound is."""
    first = round((start_s or 0.0) * sound.samplerate)
    known = sound.frames if sound.frames < audio.UNKNOWN_FRAMES else None
    if known is not None and first >= known:
        raise RowFault("truncated", f"{start_s:g} s is asked for, the audio ends at {known / sound.samplerate:.3f} s")
    if end_s is None:
        return first, None if known is None else known - first
    last = round(end_s * sound.samplerate)
    return first, (last if known is None else min(last, known)) - first


def _resampled(sound: sf.SoundFile, first: int, count: int | None) -> Iterator[NDArray[np.float32]]:
    same = sound.samplerate == audio.SAMPLE_RATE
    resampler = None if same else soxr.ResampleStream(sound.samplerate, audio.SAMPLE_RATE, 1, "float32", "HQ")
    if first:
        sound.seek(first)
    done = 0
    while count is None or done < count:
        wanted = BLOCK_FRAMES if count is None else min(BLOCK_FRAMES, count - done)
        block: NDArray[np.float32] = sound.read(wanted, dtype="float32", always_2d=True)
        if not len(block):
            break
        done += len(block)
        mono = _mono(block, (first + done) / sound.samplerate)
        yield mono if resampler is None else resampler.resample_chunk(mono)
    if resampler is not None:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
    if not done:
        raise RowFault("empty", "0 samples")
    if count is not None and done < count:
        raise RowFault("truncated", f"{done} of the {count} samples that the header declares")


def _mono(block: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    if not np.isfinite(block).all():
        raise RowFault("not_finite", f"NaN or infinity within {seconds:.1f} s")
    if float(np.abs(block).max()) >= audio.MAX_AMPLITUDE:
        raise RowFault("unreadable", f"values of {audio.MAX_AMPLITUDE:g} or more where full scale is 1.0")
    mono: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]
    return np.ascontiguousarray(mono)
