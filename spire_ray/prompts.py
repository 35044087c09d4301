"""Prompts as token ids, one kind per task, language and checkpoint.

The wording is SPIRE's (arXiv 2503.10620, the model cards and utter-project/SpireLM). A prompt with speech is rendered
and tokenised once, with one placeholder unit, by the checkpoint's own chat template and tokenizer; that of an utterance
is then this list with its units in the placeholder's place: one addition and no string per utterance.
"""

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spire_ray.errors import UserError
from spire_ray.units import FIRST_CODE_POINT, to_text, to_token_ids

Variant = Literal["no-space", "space"]
Example = tuple[str, str]  # source text, its translation

LANGUAGE_NAMES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "nl": "Dutch",
    "it": "Italian",
    "es": "Spanish",
    "pt": "Portuguese",
    "ko": "Korean",
    "ru": "Russian",
    "zh": "Chinese",
}
SHOTS = 5
_PLACEHOLDER = chr(FIRST_CODE_POINT)


class Prompts:
    """Every prompt of one checkpoint. Its methods return token ids, BOS first where the tokenizer has one."""

    def __init__(
        self,
        tokenizer: Any,
        style: Literal["chat", "raw"],
        *,
        unit_offset: int | None = None,
        num_units: int = 0,
        variant: Variant = "no-space",
        source_language: str = "en",
        examples: Mapping[tuple[str, str], Sequence[Example]] | None = None,
        seed: int = 0,
    ) -> None:
        r"""Prompts of one checkpoint.

        tokenizer: of transformers. style: `chat` wraps a prompt in the tokenizer's chat template, `raw` does not.
        unit_offset: token id of unit 0, None for text alone. num_units: K.
        variant: "space" is the authors' prompt at paper time, with a space after the newline (`\n English:`).
        source_language: what is spoken.
        examples: for five-shot text translation, by source and target language; each prompt takes five, chosen by
        `seed` and its text. A pair without examples is translated zero-shot.
        """
        self.examples = dict(examples or {})
        for (source, target), given in self.examples.items():
            if len(given) < SHOTS:
                raise UserError(f"five-shot prompts from {source} to {target} need {SHOTS} examples, got {len(given)}")
        self.tokenizer = tokenizer
        self.style = style
        self.unit_offset = unit_offset
        self.num_units = num_units
        self.source = language_name(source_language)
        self.gap = " " if variant == "space" else ""
        self.seed = seed
        # A prompt is the same list for every utterance but for its units, so that each is tokenised once.
        self._speech = cache(self._tokenise_speech)
        if unit_offset is not None:
            self._check_placeholder()

    def transcribe(self, units: NDArray[np.int16]) -> list[int]:
        r"""`Speech: {u}\nEnglish:`. UserError for a unit the checkpoint has no token for."""
        return self._fill(self._speech(self.source), units)

    def translate(self, units: NDArray[np.int16], language: str) -> list[int]:
        r"""`Speech: {u}\nGerman:`. UserError for a unit the checkpoint has no token for."""
        return self._fill(self._speech(language_name(language)), units)

    def translate_next(self, units: NDArray[np.int16], transcript: str, language: str) -> list[int]:
        r"""`Speech: {u}\nEnglish:`, the transcript as its answer, `German:` as the next turn. UserError if `raw`."""
        if self.style == "raw":
            raise UserError("multi-turn translation needs a checkpoint with a chat template")
        turns = (self._speech_text(_PLACEHOLDER, self.source), transcript, f"{language_name(language)}:")
        return self._fill(self._tokenise(self._render(*turns)), units)

    def translate_text(self, text: str, source: str, target: str) -> list[int]:
        r"""`Translate the following text from {S} to {T}.\n{S}: {x}\n{T}:`; five-shot, five `{S}: x\n{T}: y` first."""
        return self._tokenise(self._render(self._text_prompt(text, source, target)))

    def _text_prompt(self, text: str, source: str, target: str) -> str:
        from_name, to_name = language_name(source), language_name(target)
        question = f"{from_name}: {text}\n{to_name}:"
        examples = self.examples.get((source, target))
        if examples is None:
            return f"Translate the following text from {from_name} to {to_name}.\n{question}"
        # Chosen by the text, so that a prompt depends neither on its shard nor on its neighbours.
        chosen = random.Random(f"{self.seed}\0{text}").sample(list(examples), SHOTS)
        return "\n".join([*(f"{from_name}: {x}\n{to_name}: {y}" for x, y in chosen), question])

    def _speech_text(self, unit_text: str, answer_in: str) -> str:
        return f"Speech: {unit_text}\n{self.gap}{answer_in}:"

    def _tokenise_speech(self, answer_in: str) -> list[int]:
        return self._tokenise(self._render(self._speech_text(_PLACEHOLDER, answer_in)))

    def _render(self, *turns: str) -> str:
        """User and assistant turns, the user's first, as the text the model reads; a raw prompt has one turn."""
        if self.style == "raw":
            return turns[0]
        messages = [{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(turns)]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _tokenise(self, text: str) -> list[int]:
        # SPIRE's template leaves BOS to the tokenizer; other Llamas' templates write it, and two would be one too many.
        bos = self.tokenizer.bos_token
        already = bos is not None and text.startswith(bos)
        return list(self.tokenizer(text, add_special_tokens=not already)["input_ids"])

    def _fill(self, template: list[int], units: NDArray[np.int16]) -> list[int]:
        if self.unit_offset is None:
            raise UserError("this checkpoint has no units: it translates text, not speech")
        if units.size and not 0 <= int(units.min()) <= int(units.max()) < self.num_units:
            raise UserError(
                f"the units go from {units.min()} to {units.max()}, but this checkpoint has {self.num_units}: "
                "they were made with another codebook"
            )
        # The first is the speech: a transcript that repeats the unit comes later.
        at = template.index(self.unit_offset)
        ids: list[int] = to_token_ids(units, self.unit_offset).tolist()
        return [*template[:at], *ids, *template[at + 1 :]]

    def _check_placeholder(self) -> None:
        """UserError unless this tokenizer tokenises units one by one, whatever their neighbours."""
        units = np.array([0, self.num_units - 1, 0, self.num_units // 2], dtype=np.int16)
        written = self._tokenise(self._render(self._speech_text(to_text(units), self.source)))
        if self.transcribe(units) != written:
            raise UserError("the checkpoint's tokenizer does not give one token for each unit of a prompt")


def language_name(code: str) -> str:
    """The English name of an ISO 639-1 code, as the prompts write it. UserError for a language without one."""
    try:
        return LANGUAGE_NAMES[code]
    except KeyError:
        raise UserError(f"no prompt is known for the language {code!r}; known: {', '.join(LANGUAGE_NAMES)}") from None
