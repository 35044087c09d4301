"""Which pairs are drawn: a share of each corpus, then so many of each language, at random or the best by a score."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spire_ray.dedupe import Keys, Mask
from spire_ray.split import below, mixed

BEST_FIRST = {"qe": -1.0, "avg_logprob": -1.0, "speech_ratio": -1.0, "wer": 1.0}  # sign: the least comes first
Codes = NDArray[np.int16]


def outside_weights(
    utterances: Keys, corpora: Codes, names: Sequence[str | None], weights: Mapping[str, float], seed: int
) -> Mask:
    """The rows [N] whose utterance is not in the share of its corpus that is kept: all its languages go together."""
    chance = mixed(utterances, seed, "weight")
    outside = np.zeros(len(utterances), np.bool_)
    for code, name in enumerate(names):
        if name is not None and name in weights:
            outside |= (corpora == code) & ~below(chance, weights[name])
    return outside


def not_drawn(
    draw: Keys, languages: Codes, among: Mask, count: int, seed: int, scores: NDArray[np.float64] | None = None
) -> Mask:
    """Of the rows in `among` [N], those that are left when each language has `count`.

    Drawn by the hash `draw` of utterance and language, or the least `scores` first (nan last), equal ones by the hash.
    """
    left = np.zeros(len(draw), np.bool_)
    chance = mixed(draw, seed, "draw")
    for language in np.unique(languages[among]):
        rows = np.flatnonzero(among & (languages == language))
        keys = (chance[rows],) if scores is None else (chance[rows], scores[rows])
        left[rows[np.lexsort(keys)[count:]]] = True
    return left
