"""Forms of units: lossless, and the characters and ids that SPIRE's tokenizers have."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spire_ray.units import collapse, expand, from_text, to_text, to_token_ids

UNIT = st.integers(0, 32_767)
# Few different values, so that runs happen.
FRAMES = st.lists(st.one_of(st.integers(0, 2), UNIT), max_size=300)


@given(FRAMES)
def test_collapse_is_groupby_and_expand_undoes_it(frames: list[int]) -> None:
    units, run_lengths = collapse(np.array(frames, np.int64))
    groups = [(unit, len(list(run))) for unit, run in itertools.groupby(frames)]
    assert list(zip(units.tolist(), run_lengths.tolist(), strict=True)) == groups
    assert units.dtype == run_lengths.dtype == np.int16
    assert expand(units, run_lengths).tolist() == frames


def test_collapse_refuses_what_int16_cannot_hold() -> None:
    units, run_lengths = collapse(np.full(32_767, 7))
    assert (units.tolist(), run_lengths.tolist()) == ([7], [32_767])
    with pytest.raises(ValueError, match="32768 frames"):
        collapse(np.full(32_768, 7))
    with pytest.raises(ValueError, match="do not fit"):
        collapse(np.array([0, 32_768]))
    with pytest.raises(ValueError, match="do not fit"):
        collapse(np.array([-1, 0]))
    with pytest.raises(ValueError, match="one-dimensional"):
        collapse(np.zeros((2, 2), np.int64))


@given(st.lists(UNIT, max_size=100))
def test_text_is_one_private_use_character_per_unit(units: list[int]) -> None:
    text = to_text(np.array(units, np.int16))
    assert text == "".join(chr(0xF0000 + unit) for unit in units)
    assert from_text(text).tolist() == units
    assert from_text(text).dtype == np.int16


def test_the_published_range_of_characters() -> None:
    assert to_text([0, 4_999]) == "\U000f0000\U000f1387"


@pytest.mark.parametrize("text", ["a", "\U000f0001 ", "\U000f8000", "\U0010ffff"])
def test_other_characters_are_no_units(text: str) -> None:
    with pytest.raises(ValueError, match="is no unit"):
        from_text(text)


def test_token_ids_are_one_addition() -> None:
    ids = to_token_ids(np.array([0, 4_999, 32_767], np.int16), 32_005)
    assert ids.tolist() == [32_005, 37_004, 64_772]
    assert ids.dtype == np.int32
