"""The training rows of spire-tiny's language model: text translation between English and nine languages, and speech."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from branches import Branch, branch, fill
from numpy.typing import NDArray
from parse import parse
from sentences import LANGUAGES, Sentence

from spire_ray.training_lines import (
    multi_turn_translation,
    speech_translation,
    text_translation,
    tokenise,
    transcription,
)

# Languages an utterance is translated into, directly and in a second turn, each time it is met: more would cost more
# tokens than another utterance does, which has more to tell.
DIRECT, MULTI_TURN = 2, 1
NOISE = 0.05  # of the units are lost or another, half each: unseen voices do so


class Utterance(NamedTuple):
    """What was said, and its collapsed units int16 [N]."""

    sentence: Sentence
    units: NDArray[np.int16]


def read_utterances(folders: Sequence[Path]) -> list[Utterance]:
    """The utterances of outputs of `spire-ray tokenize`, in their order; those with an error are left out."""
    found = []
    for folder in sorted(folders):
        plan = pq.read_table(folder / "plan", columns=["utterance_id", "reference"]).to_pydict()
        texts = dict(zip(plan["utterance_id"], plan["reference"], strict=True))
        table = pq.read_table(folder / "units", columns=["utterance_id", "units"])
        for name, units in zip(table["utterance_id"].to_pylist(), table["units"].to_pylist(), strict=True):
            if units:
                found.append(Utterance(parse(texts[name]), np.array(units, np.int16)))
    return found


def text_rows(
    tokenizer: Any, sentences: Sequence[Sentence], random: np.random.Generator, tokens: int, length: int
) -> list[list[Branch]]:
    """Rows of `length` tokens, `tokens` in all: half into English, half from it."""
    trees: list[list[Branch]] = []
    used = 0
    codes = list(LANGUAGES)
    while used < tokens:
        sentence = sentences[int(random.integers(len(sentences)))]
        code = codes[random.integers(len(codes))]
        sides = [("en", sentence.english), (code, sentence.translations[code])]
        if random.random() < 0.5:
            sides.reverse()
        (source, text), (target, translation) = sides
        trees.append(branch([tokenise(text_translation(text, translation, source, target), tokenizer)]))
        used += len(trees[-1][0].ids)
    return fill(trees, length)


def speech_rows(
    tokenizer: Any, utterances: Sequence[Utterance], random: np.random.Generator, tokens: int, length: int
) -> list[list[Branch]]:
    """Rows of about `length` tokens, `tokens` in all: an utterance's transcript and some translations together."""
    trees: list[list[Branch]] = []
    used = 0
    while used < tokens:
        sentence, units = utterances[int(random.integers(len(utterances)))]
        units = noisy(units, random)
        asked = [transcription(units, sentence.english)]
        codes = random.choice(list(sentence.translations), DIRECT + MULTI_TURN, replace=False)
        asked += [speech_translation(units, sentence.translations[code], code) for code in codes[:DIRECT]]
        for code in codes[DIRECT:]:
            asked.append(multi_turn_translation(units, sentence.english, sentence.translations[code], code))
        trees.append(branch([tokenise(each, tokenizer) for each in asked]))
        used += sum(len(each.ids) for each in trees[-1])
    return fill(trees, length)


def noisy(units: NDArray[np.int16], random: np.random.Generator) -> NDArray[np.int16]:
    """`units` with NOISE, where another is one from elsewhere in them; no two neighbours are equal, as in units."""
    chance = random.random(len(units))
    changed = np.where(chance < NOISE / 2, random.permutation(units), units)
    kept = changed[(chance < NOISE / 2) | (chance > NOISE)]
    return kept[np.concatenate(([True], kept[1:] != kept[:-1]))] if len(kept) else units
