"""Train and dev, so that no speaker and no recording is on both sides.

Speakers and recordings are nodes, an utterance joins two of them, and what hangs together goes to one side together, by
a seeded hash of it: neither the order of rows nor the number of shards matters.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spire_ray.dedupe import Keys, Mask, hash64

NO_SPEAKER = 0


def recording_key(row: Mapping[str, Any]) -> int:
    """Of a row of the plan: its recording, else the audio it lies in, else the utterance itself.

    A recording of one name in two corpora counts as one, and so does a speaker: that may join too much, never leak.
    """
    if row["recording_id"]:
        return hash64("recording", row["recording_id"])
    if row["audio_uri"]:
        place = (row["audio_uri"], str(row["byte_offset"]), str(row["row_index"]))
        return hash64("audio", *place)
    return hash64("utterance", row["utterance_id"])


def speaker_key(row: Mapping[str, Any]) -> int:
    """Of a row of the plan; NO_SPEAKER where none is named."""
    return hash64("speaker", row["speaker"]) or 1 if row["speaker"] else NO_SPEAKER


def components(recordings: Keys, speakers: Keys) -> Keys:
    """What hangs together has one key [N]: the least of its recordings'."""
    by_recording, by_speaker = _Groups(recordings), _Groups(speakers, but=NO_SPEAKER)
    labels = recordings.copy()
    while True:
        spread = by_recording.least(by_speaker.least(labels))
        if np.array_equal(spread, labels):
            return labels
        labels = spread


class _Groups:
    """Rows of equal keys, all but those of the key `but`."""

    def __init__(self, keys: Keys, but: int | None = None) -> None:
        rows = np.arange(len(keys)) if but is None else np.flatnonzero(keys != but)
        self.order: NDArray[np.int64] = rows[np.argsort(keys[rows], kind="stable")]
        ordered = keys[self.order]
        self.starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)])
        self.sizes = np.diff(self.starts, append=len(ordered))

    def least(self, labels: Keys) -> Keys:
        """Each row's label [N] becomes the least of its group."""
        if not len(self.order):
            return labels
        spread = labels.copy()
        spread[self.order] = np.repeat(np.minimum.reduceat(labels[self.order], self.starts), self.sizes)
        return spread


def in_dev(component: Keys, share: float, seed: int) -> Mask:
    """Whether each component [N] is of the dev set, which gets `share` of them in the mean."""
    return below(mixed(component, seed, "dev"), share)


def mixed(keys: Keys, seed: int, purpose: str) -> Keys:
    """Keys [N] to others that look random, by splitmix64: another seed or purpose gives unrelated ones."""
    with np.errstate(over="ignore"):
        mix = keys + np.uint64(hash64(str(seed), purpose))
        mix = (mix ^ (mix >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mix = (mix ^ (mix >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mix ^ (mix >> np.uint64(31)), np.uint64)


def below(keys: Keys, share: float) -> Mask:
    """The keys [N] in the first `share` of their range, exact to 2^-53."""
    return np.asarray((keys >> np.uint64(11)).astype(np.float64) < share * 2.0**53, np.bool_)
