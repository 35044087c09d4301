"""Which pairs a training set keeps: bounds on measured values, the thresholds of others, one reason for each pair lost.

Pure. A value that could not be measured (no reference for `wer`, no translation for `length_ratio`) bounds nothing; a
null says so in its column.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spire_ray.errors import UserError
from spire_ray.quality import FLAGS

VALUES = (
    "duration_s",
    "speech_ratio",
    "words",  # of the shorter side
    "characters_per_second",  # of the text to be learnt
    "length_ratio",  # words of the longer side to those of the shorter
    "character_ratio",
    "script_share",  # letters of the language's script, of the side that has fewer
    "lid",  # probability of the language it should be, of the side that has less
    "wer",  # of the generated transcript against the reference
    "avg_logprob",  # of the less sure of the generated texts
    "qe",  # by the scorer
    "tokens",  # of the longest example
)
MISSING = ("error", "unknown_language", "no_units", "no_transcript", "no_translation")
WRONG_LANGUAGE = "wrong_language"  # identified as another, where there is a bound on lid
GLOBAL = ("weight", "duplicate_text", "duplicate_units", "near_duplicate", "not_drawn")
# In the order in which they are looked for, which is that of the funnel.
REASONS = (*MISSING, *FLAGS, *VALUES[:7], WRONG_LANGUAGE, *VALUES[7:], *GLOBAL)

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_BOUND = re.compile(r"\s*([a-z_]+)\s*(<=|>=|<|>)\s*([-+0-9.eE]+)\s*")


@dataclass(frozen=True)
class Bound:
    """`name comparison limit`: what holds of a pair that is kept."""

    name: str  # of VALUES
    comparison: str  # <, <=, >, >=
    limit: float

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether `values` keep to it; where the value is null, they do."""
        value = values.get(self.name)
        return value is None or _OPERATORS[self.comparison](float(value), self.limit)

    def __str__(self) -> str:
        # All its digits: it is frozen in settings.json, where another limit must look like another.
        return f"{self.name}{self.comparison}{repr(float(self.limit)).removesuffix('.0')}"


# NVIDIA's Granary: dataset_configs/multilingual/granary/config.yaml of NVIDIA/NeMo-speech-data-processor.
# Its character histogram is here the share of letters in the language's script, its fastText is py3langid.
_GRANARY = (
    Bound("duration_s", ">=", 0.1),  # min_audio_duration
    Bound("duration_s", "<=", 40.0),  # max_audio_duration
    Bound("words", ">", 1),  # num_words_filter
    Bound("length_ratio", "<", 4.0),  # max_len_diff_ratio
    Bound("script_share", ">", 0.8),  # min_hist_token_ratio
    Bound("lid", ">", 0.3),  # min_text_lid_probability, and the language it should be
    Bound("qe", ">", 0.75),  # min_qe_score, of cometoid-wmt23
)
# SPIRE's authors, in their pipeline after the paper: translations kept from this score on.
SPIRE_QE = 0.85
SPIRE_BLASER = 4.5  # BLASER 2.0 QE gives 1 to 5
PRESETS = ("spire", "granary")


def preset(name: str | None, scorer: str | None) -> tuple[Bound, ...]:
    """The bounds of a preset, for scores of `scorer`. Without a scorer its bound on `qe` bounds nothing."""
    if name == "granary":
        return _GRANARY
    if name == "spire":
        return (Bound("qe", ">=", SPIRE_BLASER if scorer == "blaser-2-qe" else SPIRE_QE),)
    return ()


def parse(text: str) -> Bound:
    """`wer<=0.3`. UserError for what is not such a bound."""
    match = _BOUND.fullmatch(text)
    try:
        limit = float(match[3]) if match else None
    except ValueError:
        limit = None
    if match is None or limit is None or match[1] not in VALUES:
        raise UserError(f"{text!r} is no bound: write it as 'wer<=0.3', on one of {', '.join(VALUES)}")
    return Bound(match[1], match[2], limit)


def merged(first: Sequence[Bound], over: Sequence[Bound]) -> tuple[Bound, ...]:
    """`first` and `over`, where a bound of `over` takes the place of those on the same side of the same value."""
    sides = {(bound.name, bound.comparison[0]) for bound in over}
    return (*(bound for bound in first if (bound.name, bound.comparison[0]) not in sides), *over)


def first_reason(
    values: Mapping[str, Any], bounds: Sequence[Bound], allowed_flags: Collection[str]
) -> tuple[str, str] | None:
    """Why a pair with these values is lost, of all reasons the first in REASONS, with a detail; None when it is kept.

    `values`: VALUES, `flags`, and `detected`, the languages that were identified where they should not be.
    """
    for flag in FLAGS:
        if flag in (values.get("flags") or ()) and flag not in allowed_flags:
            return flag, "flag"
    for reason in REASONS:
        if reason == WRONG_LANGUAGE and values.get("detected") and any(bound.name == "lid" for bound in bounds):
            return WRONG_LANGUAGE, f"identified as {values['detected']}"
        for bound in bounds:
            if bound.name == reason and not bound.holds(values):
                return reason, f"{values[reason]:.4g}, kept is {bound}"
    return None
