"""What is measured of a pair, each a column: rates and ratios, the language it seems to be in, error rates, tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jiwer

from spire_ray import quality
from spire_ray.dedupe import words_of
from spire_ray.errors import UserError
from spire_ray.pairs import Pair, Text, examples
from spire_ray.prompts import LANGUAGE_NAMES
from spire_ray.training_lines import Conversation, tokenise, tokenise_line

NO_SPACES = ("zh",)  # words of theirs cannot be counted
_SPACES = re.compile(r"\s+")
# jiwer's own parts: error rates of words, without regard to case and marks.
_WORDS_ALONE = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),  # type: ignore[no-untyped-call]
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


def values_of(pair: Pair, row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of filters.VALUES but `qe` and `tokens`, `flags` and `detected`, for a pair that lacks nothing.

    `row`: of joined.JOINED. Null is what does not apply: `wer` without a reference, ratios without a translation.
    """
    seconds = row["duration_s"]
    sides = {pair.source: pair.transcript, pair.language or pair.source: pair.learnt}
    texts = {language: text for language, text in sides.items() if text is not None}
    learnt = pair.learnt.text if pair.learnt else ""
    values: dict[str, Any] = {
        "duration_s": seconds,
        "speech_ratio": row["speech_ratio"],
        "characters_per_second": len(learnt) / seconds if seconds else None,
        "script_share": min(quality.script_share(text.text, language) for language, text in texts.items()),
        "flags": sorted({flag for language in texts for flag in _flags(pair, language, texts, row)}),
        "wer": _wer(row),
    }
    counts = [len(words_of(text.text)) for text in texts.values()]
    values["words"] = min(counts)
    both = len(texts) == 2
    values["length_ratio"] = _ratio(counts) if both and not set(texts) & set(NO_SPACES) else None
    values["character_ratio"] = _ratio([len(text.text) for text in texts.values()]) if both else None
    sure = [text.avg_logprob for text in texts.values() if text.avg_logprob is not None]
    values["avg_logprob"] = min(sure) if sure else None
    seen = {language: identified(text.text, language) for language, text in texts.items()}
    values["lid"] = min(probability for probability, _ in seen.values())
    values["detected"] = " ".join(found for language, (_, found) in seen.items() if found != language) or None
    return values


def _flags(pair: Pair, language: str, texts: Mapping[str, Text], row: Mapping[str, Any]) -> Sequence[str]:
    """Those it was generated with; a text that nobody has looked at is looked at now."""
    text = texts[language]
    if text.flags is not None:
        return text.flags
    source = texts.get(pair.source) if language != pair.source else None
    return quality.flags(
        text.text,
        language,
        None,
        seconds=row["duration_s"],
        speech_ratio=row["speech_ratio"],
        source=source.text if source else None,
    )


def _ratio(counts: Sequence[int]) -> float | None:
    return max(counts) / min(counts) if min(counts) else None


def _wer(row: Mapping[str, Any]) -> float | None:
    """Of the generated transcript, where there is a reference as well; case and marks do not count."""
    made, reference = row["transcript"], row["reference"]
    if not made or made["text"] is None or not reference or not _WORDS_ALONE(reference)[0]:
        return None
    return float(jiwer.wer(reference, made["text"], _WORDS_ALONE, _WORDS_ALONE))


def identified(text: str, language: str) -> tuple[float, str]:
    """The probability that `text` is in `language`, among the languages of the prompts, and the likeliest of them."""
    ranked = _identifier().rank(_SPACES.sub(" ", text))
    return dict(ranked)[language], ranked[0][0]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGE_NAMES))
    return identifier


class TokenCounter:
    """Counts the tokens of examples, beginning and end of text among them, by a tokenizer of transformers."""

    def __init__(self, tokenizer: Any, *, pretraining: bool) -> None:
        """UserError for conversations and a tokenizer without a chat template."""
        if not pretraining and tokenizer.chat_template is None:
            raise UserError("this tokenizer has no chat template: conversations need one (a base model has none)")
        self.tokenizer = tokenizer
        self.pretraining = pretraining

    def counts(self, pair: Pair, tasks: Sequence[str]) -> list[int]:
        """Of each of the pair's examples."""
        # A unit is one token whatever its neighbours, which Prompts checks at inference: one stands for all of them.
        units = pair.units or ()
        short = replace(pair, units=units[:1])
        return [
            self.count(made.value) + (len(units) - len(units[:1])) * made.speech
            for made in examples(short, tasks, pretraining=self.pretraining)
        ]

    def count(self, value: str | Conversation) -> int:
        """Of one line or conversation."""
        if isinstance(value, str):
            return len(tokenise_line(value, self.tokenizer).ids)
        return len(tokenise(value, self.tokenizer).ids)
