"""Confidence intervals by bootstrap over utterances, from what a metric counts of each and not from its text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 12345  # sacrebleu's, so that its intervals are ours
MOST_ROWS = 16_384
_DRAWN_AT_ONCE = 1 << 21  # indices: 16 MB

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Of 95 % of the resamples, without the 2.5 % above and below."""

    low: float
    high: float


class Statistics:
    """What metrics count, a row [k] for each utterance, in at most 16,384 rows however many utterances there are.

    When they are full, neighbours are added up, so that a row stands for 2, 4, 8 … utterances in the order of their
    ids. Resampling those is a bootstrap by blocks: with 16,384 utterances and fewer it is the usual one.
    """

    def __init__(self, width: int) -> None:
        self.totals: Counts = np.zeros(width)
        self.block = 1  # utterances in a row
        self._rows: Counts = np.zeros((256, width))
        self._seen = 0

    def add(self, counts: Counts) -> None:
        """Counts [n, k] of n more utterances."""
        self.totals += counts.sum(0)
        for row in counts:
            at = self._seen // self.block
            if at == MOST_ROWS:
                self._fold()
                at = self._seen // self.block
            elif at == len(self._rows):
                self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._rows[at] += row
            self._seen += 1

    @property
    def rows(self) -> Counts:
        """[n, k], n at most 16,384."""
        return self._rows[: -(-self._seen // self.block)]

    def resampled(self) -> Counts:
        """Totals [1000, k] of resamples with replacement, of as many rows as there are."""
        rows = self.rows
        rng = np.random.default_rng(SEED)
        found = []
        at_once = max(1, _DRAWN_AT_ONCE // len(rows))
        for start in range(0, RESAMPLES, at_once):
            resamples = min(at_once, RESAMPLES - start)
            # In parts the generator draws what sacrebleu has it draw at once.
            drawn = rng.choice(len(rows), size=(resamples, len(rows)), replace=True)
            drawn += len(rows) * np.arange(resamples)[:, None]
            times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
            found.append(times.astype(np.float64) @ rows)
        return np.concatenate(found)

    def _fold(self) -> None:
        half = self._rows[0::2] + self._rows[1::2]
        self._rows[:] = 0
        self._rows[: len(half)] = half
        self.block *= 2


def interval(score: Callable[[Sequence[float]], float | None], resampled: Counts) -> Interval | None:
    """That of `score`, which makes a figure of totals [k]; None where a resample has none.

    Bounds as sacrebleu takes them: of 1,000 scores the 26th from below and from above.
    """
    scores = [score(totals) for totals in resampled.tolist()]
    known = sorted(each for each in scores if each is not None)
    if len(known) < len(scores):
        return None
    outside = len(known) // 40
    return Interval(known[outside], known[-outside - 1])
