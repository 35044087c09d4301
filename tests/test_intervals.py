"""Bootstrap intervals against scipy's, and what is kept of more utterances than fit."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from spire_ray.intervals import MOST_ROWS, Statistics, interval


def rate(totals: Sequence[float]) -> float | None:
    return 100 * totals[0] / totals[1] if totals[1] else None


def drawn(utterances: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Errors and words of utterances."""
    rng = np.random.default_rng(7)
    words = rng.integers(1, 40, utterances)
    return np.stack([rng.binomial(words, 0.1), words], axis=1).astype(np.float64)


def test_an_interval_of_wer_is_scipys() -> None:
    counts = drawn(500)
    kept = Statistics(2)
    kept.add(counts[:100])
    kept.add(counts[100:])
    mine = interval(rate, kept.resampled())
    theirs = stats.bootstrap(
        (counts[:, 0], counts[:, 1]),
        lambda errors, words, axis: 100 * errors.sum(axis) / words.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert mine is not None
    # Of 1,000 resamples a bound has a standard error of about 3 % of the width.
    assert mine.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert mine.high == pytest.approx(theirs.high, abs=0.1 * width)


def test_more_utterances_than_rows_are_kept_as_blocks_with_the_same_interval() -> None:
    counts = drawn(5 * MOST_ROWS + 3)
    kept = Statistics(2)
    for start in range(0, len(counts), 5000):
        kept.add(counts[start : start + 5000])
    assert kept.block == 8
    assert len(kept.rows) == -(-len(counts) // 8)
    assert kept.rows.sum(0).tolist() == kept.totals.tolist() == counts.sum(0).tolist()
    mine = interval(rate, kept.resampled())
    assert mine is not None
    # The standard error of a ratio of means, by hand.
    share = counts[:, 0].sum() / counts[:, 1].sum()
    error = 100 * np.std(counts[:, 0] - share * counts[:, 1]) / counts[:, 1].mean() / np.sqrt(len(counts))
    assert (mine.high - mine.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def test_one_silent_reference_has_no_rate_and_no_interval() -> None:
    kept = Statistics(2)
    kept.add(np.zeros((3, 2)))
    assert rate(kept.totals.tolist()) is None
    assert interval(rate, kept.resampled()) is None
