"""What can be learnt of an utterance: its transcript, and its translation into each language, as examples of each task.

The unit of a training set is the pair of an utterance and a language: what is filtered, drawn and counted. A pair gives
one example for each task that is asked for.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spire_ray.prompts import LANGUAGE_NAMES
from spire_ray.training_lines import (
    Conversation,
    multi_turn_translation,
    pretraining_line,
    speech_translation,
    text_translation,
    transcription,
)

SPEECH = ("asr", "st", "multi-turn")
TRANSLATION = ("st", "multi-turn", "mt")
TASKS = ("asr", "st", "multi-turn", "mt")
ENGLISH = "en"  # spoken, where a corpus does not say


@dataclass(frozen=True)
class Text:
    """A text as it was found or generated."""

    text: str
    flags: tuple[str, ...] | None = None  # None: nobody has looked
    avg_logprob: float | None = None


@dataclass(frozen=True)
class Pair:
    """An utterance and a language: that of its translation, or its own where the transcript is to be learnt."""

    utterance_id: str
    language: str | None  # None: there is no translation into any
    source: str  # language spoken
    units: Sequence[int] | None
    transcript: Text | None
    translation: Text | None  # None of a transcript's pair
    lack: tuple[str, str] | None  # reason of filters.MISSING and detail, where an example cannot be made

    @property
    def learnt(self) -> Text | None:
        """What the model is to write."""
        return self.transcript if self.language == self.source else self.translation


@dataclass(frozen=True)
class Made:
    """One example. `value`: a line of pre-training or a conversation."""

    task: str
    value: str | Conversation

    @property
    def speech(self) -> bool:
        """Whether it holds the units."""
        return self.task in SPEECH


def pairs_of(
    row: Mapping[str, Any], tasks: Collection[str], transcripts: str, translations: str | Mapping[str, Text]
) -> list[Pair]:
    """The pairs of one row of `joined.JOINED`, the transcript's first, then by language; never none.

    `transcripts`: reference or generated; `translations`: as well, or those of another run by language.
    """
    transcript = _transcript(row, transcripts)
    source = row["source_language"] or ENGLISH
    pair = Pair(row["utterance_id"], source, source, row["units"], transcript, None, None)
    pairs = [pair] if "asr" in tasks else []
    wanted = [task for task in tasks if task in TRANSLATION]
    if wanted:
        found = dict(_translations(row, translations)) if isinstance(translations, str) else dict(translations)
        # One into the language spoken is no translation, and would pass for the transcript's pair.
        made = [
            replace(pair, language=language, translation=text)
            for language, text in sorted(found.items())
            if language != source
        ]
        if not made and not pairs:
            made = [replace(pair, language=None)]
        pairs += made
    return [replace(each, lack=_lack(row, each, wanted)) for each in pairs]


def _transcript(row: Mapping[str, Any], which: str) -> Text | None:
    if which == "reference":
        text = row["reference"] if row["reference"] is not None else row["text"]
        return Text(text) if text and text.strip() else None
    made = row["transcript"]
    return _generated(made) if made else None


def _generated(made: Mapping[str, Any]) -> Text | None:
    if made["error"] is not None or made["text"] is None:
        return None
    return Text(made["text"], tuple(made["flags"] or ()), made["avg_logprob"])


def _translations(row: Mapping[str, Any], which: str) -> Iterator[tuple[str, Text | None]]:
    if which == "reference":
        for reference in row["references"] or ():
            if reference["language"] and (reference["text"] or "").strip():
                yield reference["language"], Text(reference["text"])
    else:
        for made in row["translations"]:
            yield made["target_language"], _generated(made)


def _lack(row: Mapping[str, Any], pair: Pair, wanted: Sequence[str]) -> tuple[str, str] | None:
    """Why no example can be made of `pair`, `wanted` being the tasks of translation."""
    if row["error"]:
        return "error", row["error"]
    tasks = ["asr"] if pair.language == pair.source else wanted
    for language in (pair.source, pair.language):
        if language is not None and language not in LANGUAGE_NAMES:
            return "unknown_language", f"no prompt is known for {language!r}"
    if pair.units is None and any(task in SPEECH for task in tasks):
        return "no_units", "no part of units, or none of this utterance"
    if pair.transcript is None and any(task in ("asr", "multi-turn", "mt") for task in tasks):
        return "no_transcript", _said(row["transcript"])
    if pair.language is None or (pair.language != pair.source and pair.translation is None):
        made = [each for each in row["translations"] if each["target_language"] == pair.language]
        return "no_translation", _said(made[0] if made else None)
    return None


def _said(made: Mapping[str, Any] | None) -> str:
    return (made and made["error"]) or "none there"


def examples(pair: Pair, tasks: Collection[str], *, pretraining: bool = False) -> list[Made]:
    """The examples of a pair that lacks nothing, in the order of TASKS."""
    units = pair.units if pair.units is not None else ()
    transcript = pair.transcript.text if pair.transcript else ""
    if pair.language is None or pair.language == pair.source:
        if pretraining:
            return [Made("asr", pretraining_line(units, transcript, pair.source))]
        return [Made("asr", transcription(units, transcript, pair.source))]
    translation, to = pair.translation.text if pair.translation else "", pair.language
    makers = {
        "st": lambda: speech_translation(units, translation, to),
        "multi-turn": lambda: multi_turn_translation(units, transcript, translation, to, pair.source),
        "mt": lambda: text_translation(transcript, translation, pair.source, to),
    }
    return [Made(task, makers[task]()) for task in TRANSLATION if task in tasks]
