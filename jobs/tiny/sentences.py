"""The sentences of spire-tiny: English transcripts with their exact translations, drawn from a grammar.

Numbers are words in every language, sentences begin with a capital letter and end with a full stop or question mark.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from frames import FRAMES, Kind
from grammar import chinese, dutch, english, french, german, italian, korean, portuguese, russian, spanish
from grammar.meaning import Grammar, Value

Split = Literal["train", "held_out"]
LANGUAGES: dict[str, Grammar] = {
    "de": german.GRAMMAR,
    "fr": french.GRAMMAR,
    "nl": dutch.GRAMMAR,
    "it": italian.GRAMMAR,
    "es": spanish.GRAMMAR,
    "pt": portuguese.GRAMMAR,
    "ko": korean.GRAMMAR,
    "ru": russian.GRAMMAR,
    "zh": chinese.GRAMMAR,
}
# Of ten sentences: every kind is learnt, and half are what a traveller says.
SHARES: dict[Kind, int] = {"number": 15, "ordinal": 8, "date": 12, "time": 10, "price": 10, "travel": 45}
HELD_OUT_OF = 10  # every tenth sentence, by a hash of its English
ALWAYS_TRAIN = 100  # bare numbers below this: a model must have heard each of them
SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")


@dataclass(frozen=True)
class Sentence:
    """An English sentence and its translations by ISO 639-1 code."""

    english: str
    translations: dict[str, str]
    kind: Kind
    frame: str  # a key of frames.FRAMES


def draw(count: int, seed: int, split: Split) -> Iterator[Sentence]:
    """`count` distinct sentences of a split; equal arguments give equal sentences, in the same order.

    The splits have no sentence in common, whatever the seeds. Kinds are drawn by SHARES. ValueError when the domain
    has not that many.
    """
    random = Random(f"{seed} {split}")
    keys = {kind: [key for key, frame in FRAMES.items() if frame.kind == kind] for kind in SHARES}
    seen: set[str] = set()
    misses = 0
    while len(seen) < count:
        kind = random.choices(list(SHARES), list(SHARES.values()))[0]
        # Of a kind, the bare form ("Half past three.") as often as all of its sentences together.
        key = kind if kind in FRAMES and random.random() < 0.5 else random.choice(keys[kind])
        values = {name: slot(random) for name, slot in FRAMES[key].slots.items()}
        text = realise(english.GRAMMAR, key, values)
        if text in seen or split_of(key, values, text) != split:
            misses += 1
            if misses > 1000:
                raise ValueError(f"the {split} split has not {count} sentences; {len(seen)} were found")
            continue
        misses = 0
        seen.add(text)
        yield sentence_of(key, values)


def sentence_of(key: str, values: Mapping[str, Value]) -> Sentence:
    """The sentence of a frame and values for its slots, in every language."""
    translations = {code: realise(grammar, key, values) for code, grammar in LANGUAGES.items()}
    return Sentence(realise(english.GRAMMAR, key, values), translations, FRAMES[key].kind, key)


def references(sentence: Sentence) -> list[dict[str, str]]:
    """The translations of a sentence as a manifest has them: {language, text}."""
    return [{"language": code, "text": text} for code, text in sentence.translations.items()]


def realise(grammar: Grammar, key: str, values: Mapping[str, Value]) -> str:
    """The sentence of a frame in one language."""
    return grammar.begin(SLOT.sub(lambda slot: grammar.say(values[slot[1]], slot[2] or ""), grammar.frames[key]))


def split_of(key: str, values: Mapping[str, Value], text: str) -> Split:
    """The split a sentence belongs to."""
    number = values.get("k")
    if key == "number" and isinstance(number, int) and number < ALWAYS_TRAIN:
        return "train"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "big") % HELD_OUT_OF == 0 else "train"
