r"""SPIRE's training examples: as text, as the authors' conversations, and as token ids that say what is to be learnt.

The formats are those of arXiv 2503.10620 and utter-project/SpireLM: in continued pre-training an ASR line is
`Speech:{units}\nEnglish: {transcript}`; in instruction tuning each task is a conversation whose user turns are, token
for token, what `prompts.Prompts` asks at inference.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spire_ray.errors import UserError
from spire_ray.prompts import language_name
from spire_ray.units import to_text


@dataclass(frozen=True)
class Conversation:
    """One example of instruction tuning. `turns`: what the user asks and the answers to learn, by turns."""

    turns: tuple[str, ...]

    def as_json(self) -> dict[str, list[dict[str, str]]]:
        """The example as the authors' training files write it."""
        sides = ("human", "gpt")
        return {"conversations": [{"from": sides[n % 2], "value": turn} for n, turn in enumerate(self.turns)]}


@dataclass(frozen=True)
class Example:
    """Token ids int32 [N], and which of them the model learns to write, bool [N]."""

    ids: NDArray[np.int32]
    learnt: NDArray[np.bool_]


def pretraining_line(units: ArrayLike, transcript: str, source: str = "en") -> str:
    r"""`Speech:{units}\nEnglish: {transcript}`, an ASR line of continued pre-training; no space before the units."""
    return f"Speech:{to_text(units)}\n{language_name(source)}: {transcript}"


def transcription(units: ArrayLike, transcript: str, source: str = "en") -> Conversation:
    """ASR. units: collapsed [N]; source: ISO 639-1 code of the speech."""
    return Conversation((_speech(units, source), transcript))


def speech_translation(units: ArrayLike, translation: str, target: str) -> Conversation:
    """Direct speech translation into `target`."""
    return Conversation((_speech(units, target), translation))


def multi_turn_translation(
    units: ArrayLike, transcript: str, translation: str, target: str, source: str = "en"
) -> Conversation:
    """Speech translation after the transcript, each as an answer of its own."""
    return Conversation((_speech(units, source), transcript, f"{language_name(target)}:", translation))


def text_translation(text: str, translation: str, source: str, target: str) -> Conversation:
    """Text translation, zero-shot."""
    from_name, to_name = language_name(source), language_name(target)
    asked = f"Translate the following text from {from_name} to {to_name}.\n{from_name}: {text}\n{to_name}:"
    return Conversation((asked, translation))


def tokenise_line(line: str, tokenizer: Any) -> Example:
    """A line of continued pre-training between BOS and the end of text; all but BOS is learnt."""
    ids = [*_ids(tokenizer, line), tokenizer.eos_token_id]
    learnt = np.ones(len(ids), np.bool_)
    learnt[0] = ids[0] != tokenizer.bos_token_id
    return Example(np.array(ids, np.int32), learnt)


def tokenise(conversation: Conversation, tokenizer: Any) -> Example:
    """A conversation in the tokenizer's chat template; learnt are the answers, each with the token that ends it.

    UserError when the template or the tokenizer writes an answer so that the prompt before it is not what the model
    will be asked.
    """
    turns = conversation.turns
    messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    whole = _chat(tokenizer, messages, ask=False)
    learnt = np.zeros(len(whole), np.bool_)
    end = 0
    for answer in range(1, len(turns), 2):
        asked = _chat(tokenizer, messages[:answer], ask=True)
        start = len(asked)
        if whole[:start] != asked or tokenizer.eos_token_id not in whole[start:]:
            raise UserError("the tokenizer's chat template does not write a prompt as the beginning of its answer")
        end = whole.index(tokenizer.eos_token_id, start) + 1
        learnt[start:end] = True
    return Example(np.array(whole[:end], np.int32), learnt[:end])


def _speech(units: ArrayLike, answer_in: str) -> str:
    return f"Speech: {to_text(units)}\n{language_name(answer_in)}:"


def _chat(tokenizer: Any, messages: list[dict[str, str]], *, ask: bool) -> list[int]:
    return _ids(tokenizer, str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)))


def _ids(tokenizer: Any, text: str) -> list[int]:
    # As in Prompts: some templates write BOS, and two would be one too many.
    already = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    return list(tokenizer(text, add_special_tokens=not already)["input_ids"])
