"""Frame units, collapsed units with run lengths, unit text and unit tokens: exact, reversible changes of form.

A unit is the index of a codebook centroid; HuBERT gives one per frame of 20 ms. SPIRE reads collapsed units, one for
each run of equal frames (paper section 3.1), written as private-use characters or as token ids.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIRST_CODE_POINT = 0xF0000  # unit 0; utter-project/SpireLM writes unit i as chr(0xF0000 + i)
MAX_INT16 = 32_767


def collapse(frames: NDArray[np.int64]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Frame units [T] to collapsed units [N] and their run lengths in frames [N]; no two neighbouring units are equal.

    ValueError for a unit outside int16, or for a run over 32,767 frames (655 s of one sound): splitting it would make
    equal neighbours, and wrapping it would lose the time.
    """
    if frames.ndim != 1:
        raise ValueError(f"frame units are one-dimensional, got shape {frames.shape}")
    if frames.size == 0:
        return np.empty(0, np.int16), np.empty(0, np.int16)
    if frames.min() < 0 or frames.max() > MAX_INT16:
        raise ValueError(f"units {frames.min()} to {frames.max()} do not fit 0 to {MAX_INT16}")
    starts = np.flatnonzero(np.concatenate(([True], frames[1:] != frames[:-1])))
    run_lengths = np.diff(starts, append=frames.size)
    if run_lengths.max() > MAX_INT16:
        raise ValueError(f"one unit lasts {run_lengths.max()} frames, more than {MAX_INT16}")
    return frames[starts].astype(np.int16), run_lengths.astype(np.int16)


def expand(units: NDArray[np.int16], run_lengths: NDArray[np.int16]) -> NDArray[np.int16]:
    """Collapsed units [N] and run lengths [N] back to frame units [T]: the inverse of `collapse`."""
    return np.repeat(units, run_lengths)


def to_text(units: ArrayLike) -> str:
    """Units [N] as N private-use characters without separators."""
    return (np.asarray(units).astype("<u4") + np.uint32(FIRST_CODE_POINT)).astype("<u4").tobytes().decode("utf-32-le")


def from_text(text: str) -> NDArray[np.int16]:
    """The inverse of `to_text`. ValueError for a character that is no unit."""
    units = np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.int64) - FIRST_CODE_POINT
    strange = np.flatnonzero((units < 0) | (units > MAX_INT16))
    if strange.size:
        raise ValueError(f"character {strange[0]} is U+{ord(text[strange[0]]):04X}, which is no unit")
    return units.astype(np.int16)


def to_token_ids(units: ArrayLike, offset: int) -> NDArray[np.int32]:
    """Token ids [N] of units [N]: one addition. `offset` is the token id of unit 0 (32005 in the SPIRE tokenizers)."""
    return np.asarray(units).astype(np.int32) + np.int32(offset)
