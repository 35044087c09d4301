"""Where a long recording is cut: at pauses, found by voice activity detection, or at the quietest point near a limit.

Times are counted in frames of 32 ms. A day of sound is 2.7 million of them, two float32 each, so the cuts are found
with all of it in view.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spire_ray.errors import RowFault, UserError
from spire_ray.vad import FRAME, Vad

FRAME_MS = 32
SAMPLES_PER_MS = 16
VAD_SECONDS = 25.0  # the longest piece
# Silero's own rule and thresholds: speech begins at 0.5 and ends under 0.35, in pauses of 4 frames (its 100 ms).
BEGIN, END = 0.5, 0.35
PAUSE_FRAMES = 4
SPEECH_FRAMES = 4  # silero drops bursts under 250 ms: a "yes" among them
PAD_FRAMES = 6  # left on both sides of speech where the pause is long enough
LONG_PAUSE_FRAMES = 63  # 2 s: a piece does not reach over it
_SMOOTH = 3  # frames over which loudness is averaged


@dataclass(frozen=True)
class Segmentation:
    """How recordings are cut."""

    method: Literal["vad", "fixed"]
    seconds: float  # of the longest piece

    @classmethod
    def parse(cls, text: str) -> "Segmentation | None":
        """`vad`, `fixed:SECONDS`, or `none`, which is None. UserError for anything else."""
        if text == "none":
            return None
        if text == "vad":
            return cls("vad", VAD_SECONDS)
        method, _, number = text.partition(":")
        try:
            seconds = float(number)
        except ValueError:
            seconds = 0.0
        if method != "fixed" or not 1 <= seconds <= 600:
            raise UserError(f"--segment {text}: give vad, none, or fixed:SECONDS with 1 to 600 seconds (fixed:25)")
        return cls("fixed", seconds)

    def __str__(self) -> str:
        return "vad" if self.method == "vad" else f"fixed:{self.seconds:g}"


@dataclass(frozen=True)
class Levels:
    """What is kept of a recording to cut it: per frame the energy and, for vad, the probability of speech."""

    energies: NDArray[np.float32]  # mean square [n], full scale 1.0
    probabilities: NDArray[np.float32] | None  # [n]
    samples: int  # at 16 kHz
    fault: RowFault | None  # what ended it before its time


@dataclass(frozen=True)
class Piece:
    """From where to where, in milliseconds from the recording's start; the share of it that is speech, where known."""

    start_ms: int
    end_ms: int
    speech_ratio: float | None


def measure(blocks: Iterable[NDArray[np.float32]], vad: Vad | None) -> Levels:
    """The levels of a recording's `blocks` (mono, 16 kHz), in one pass. A RowFault on the way ends it and is kept."""
    energies: list[NDArray[np.float32]] = []
    probabilities: list[NDArray[np.float32]] = []
    rest = np.empty(0, np.float32)
    samples = 0
    fault = None
    if vad is not None:
        vad.reset()

    def look(sound: NDArray[np.float32]) -> None:
        frames = sound.reshape(-1, FRAME)
        energies.append(np.mean(frames * frames, axis=1, dtype=np.float32))
        if vad is not None:
            probabilities.append(vad.probabilities(frames))

    try:
        for block in blocks:
            samples += len(block)
            sound = np.concatenate([rest, block])
            whole = len(sound) // FRAME * FRAME
            look(sound[:whole])
            rest = sound[whole:]
    except RowFault as found:
        fault = found
    if len(rest):
        look(np.pad(rest, (0, FRAME - len(rest))))
    none = [np.empty(0, np.float32)]
    return Levels(
        np.concatenate(energies or none), np.concatenate(probabilities or none) if vad else None, samples, fault
    )


def cut_recording(levels: Levels, segmentation: Segmentation) -> list[Piece]:
    """The pieces of a recording, in order; none where vad finds no speech."""
    limit = int(segmentation.seconds * 1000 / FRAME_MS)
    if segmentation.method == "fixed" or levels.probabilities is None:
        cuts = split(0, len(levels.energies), levels.energies, limit, limit // 5)
        return [_piece(levels, start, end, None) for start, end in cuts]
    spoken = speech(levels.probabilities)
    return [_piece(levels, start, end, spoken) for start, end in at_pauses(spoken, levels.energies, limit)]


def _piece(levels: Levels, start: int, end: int, spoken: list[tuple[int, int]] | None) -> Piece:
    end_ms = min(end * FRAME_MS, round(levels.samples / SAMPLES_PER_MS))
    if spoken is None:
        return Piece(start * FRAME_MS, end_ms, None)
    heard = sum(max(0, min(end, last) - max(start, first)) for first, last in spoken)
    return Piece(start * FRAME_MS, end_ms, heard / (end - start))


def speech(probabilities: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Stretches of speech as (first frame, frame after the last), by the rule of silero's get_speech_timestamps."""
    found: list[tuple[int, int]] = []
    start = pause = -1  # where the stretch, and the pause in it, began
    for frame, probability in enumerate(probabilities.tolist()):
        if probability >= BEGIN:
            pause = -1
            start = frame if start < 0 else start
        elif start >= 0 and probability < END:
            pause = frame if pause < 0 else pause
            if frame - pause >= PAUSE_FRAMES:
                found.append((start, pause))
                start = pause = -1
    if start >= 0:
        found.append((start, len(probabilities)))
    return [(first, last) for first, last in found if last - first >= SPEECH_FRAMES]


def at_pauses(spoken: list[tuple[int, int]], energies: NDArray[np.float32], limit: int) -> list[tuple[int, int]]:
    """Pieces of at most `limit` frames that hold all of `spoken`, padded where the pause beside them is long enough.

    A piece ends at a pause of 2 s, or else at the longest pause of its second half. A stretch without pauses that is
    longer than `limit` is cut at its quietest point.
    """
    inside = limit - 2 * PAD_FRAMES
    stretches = [part for start, end in spoken for part in split(start, end, energies, inside, inside // 2)]
    groups: list[list[tuple[int, int]]] = []
    group: list[tuple[int, int]] = []
    for stretch in stretches:
        if group and stretch[0] - group[-1][1] >= LONG_PAUSE_FRAMES:
            groups.append(group)
            group = []
        group.append(stretch)
        while group[-1][1] - group[0][0] > inside:
            at = _longest_pause(group, inside)
            groups.append(group[:at])
            group = group[at:]
    if group:
        groups.append(group)
    bounds = [(group[0][0], group[-1][1]) for group in groups]
    return _padded(bounds, len(energies))


def _longest_pause(group: list[tuple[int, int]], limit: int) -> int:
    """How many stretches go into the piece that `group`, which is too long, begins with."""
    start = group[0][0]
    fitting = [at for at in range(1, len(group)) if group[at - 1][1] - start <= limit]
    late = [at for at in fitting if group[at - 1][1] - start >= limit // 2] or fitting[-1:]
    return max(late, key=lambda at: (group[at][0] - group[at - 1][1], at))


def _padded(bounds: list[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
    padded = []
    for index, (start, end) in enumerate(bounds):
        before = start - bounds[index - 1][1] if index else 2 * start
        after = bounds[index + 1][0] - end if index + 1 < len(bounds) else 2 * (frames - end)
        # Of a short pause the piece before gets half, the piece after the rest.
        padded.append((start - min(PAD_FRAMES, before - before // 2), end + min(PAD_FRAMES, after // 2)))
    return padded


def split(start: int, end: int, energies: NDArray[np.float32], limit: int, window: int) -> list[tuple[int, int]]:
    """From `start` to `end` in parts of at most `limit` frames, cut at the quietest of `window` frames up to there."""
    parts = []
    while end - start > limit:
        # Before the end a fifth of the limit is left over: a last part of a few milliseconds would be too short.
        latest = start + min(limit, end - start - limit // 5)
        at = _quietest(energies, max(start + 1, latest - window), latest + 1)
        parts.append((start, at))
        start = at
    return [*parts, (start, end)] if end > start else parts


def _quietest(energies: NDArray[np.float32], first: int, after: int) -> int:
    around = np.pad(
        energies[max(0, first - 1) : after + 1], (int(first == 0), int(after + 1 > len(energies))), mode="edge"
    )
    smooth = np.convolve(around, np.ones(_SMOOTH), mode="valid")
    return first + int(np.argmin(smooth[: after - first]))
