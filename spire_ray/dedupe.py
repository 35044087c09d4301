"""Duplicates: 64-bit keys of equal texts and equal units, and MinHash bands of texts that are nearly equal.

The keys of a pair are made with its shard; which of equal ones stays (the first in the order of the plan) is decided
over all shards, from columns of 8 bytes a pair. Near duplicates are those of FineWeb (arXiv 2406.17557): 14 bands of 8
hashes over 5-grams of words, so that texts with a Jaccard similarity of 0.75 meet in 77 of 100 cases, of 0.5 in 5.
datasketch makes the signatures; its own index holds every text in memory, so the bands are compared here.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NGRAM = 5  # words
BANDS, HASHES_IN_BAND = 14, 8
BAND_NAMES = tuple(f"band_{band:02}" for band in range(BANDS))
_WORDS = re.compile(r"\w+")
_CJK = re.compile(r"([\u3400-\u4dbf\u4e00-\u9fff])")  # Chinese has no spaces: a character is a word

Keys = NDArray[np.uint64]
Mask = NDArray[np.bool_]


def hash64(*parts: str | bytes) -> int:
    """64 bits of BLAKE2b over `parts`, each told from the next."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little")


def words_of(text: str) -> list[str]:
    """Words without case, marks and compatibility forms; each Chinese character is one."""
    return _WORDS.findall(_CJK.sub(r" \1 ", unicodedata.normalize("NFKC", text).casefold()))


def text_key(language: str, *texts: str | None) -> int:
    """Of the normalised texts of a pair: those that differ in case and marks alone are equal."""
    return hash64(language, *(" ".join(words_of(text or "")) for text in texts))


def units_key(language: str, units: ArrayLike) -> int:
    """Of collapsed units [N]: equal speech, into the same language."""
    return hash64(language, np.asarray(units, np.int16).tobytes())


def band_keys(language: str, text: str) -> list[int]:
    """BANDS keys: two texts of one language that share one of them are near duplicates."""
    words = words_of(text)
    grams = {" ".join(words[at : at + NGRAM]) for at in range(max(1, len(words) - NGRAM + 1))}
    signature = _empty_signature().copy()
    signature.update_batch([gram.encode() for gram in sorted(grams)])
    bands = signature.hashvalues.astype("<u4").reshape(BANDS, HASHES_IN_BAND)
    return [hash64(language, str(band), bands[band].tobytes()) for band in range(BANDS)]


@cache
def _empty_signature() -> Any:
    from datasketch import MinHash  # with scipy, which takes a second

    return MinHash(num_perm=BANDS * HASHES_IN_BAND, seed=1, scheme="affine32")


def later_of_equal(keys: Keys, among: Mask) -> Mask:
    """Of the rows in `among` [N], those whose key [N] an earlier one has."""
    rows = np.flatnonzero(among)
    order = np.argsort(keys[rows], kind="stable")  # stable: of equal ones the first stays the first
    ordered = keys[rows][order]
    later = np.zeros(len(keys), np.bool_)
    later[rows[order[1:][ordered[1:] == ordered[:-1]]]] = True
    return later


def near_duplicates(bands: Iterable[Keys], among: Mask) -> Mask:
    """Rows in `among` that share a band with an earlier one. Of any group of them the first stays."""
    found = np.zeros(len(among), np.bool_)
    for keys in bands:
        found |= later_of_equal(keys, among)
    return found
