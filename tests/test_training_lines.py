import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from bundle import make_tokenizer
from spire_ray import training_lines
from spire_ray.errors import UserError
from spire_ray.prompts import LANGUAGE_NAMES, Prompts
from spire_ray.training_lines import Conversation, Example, tokenise, tokenise_line

UNITS = np.array([0, 99, 7, 0, 42], np.int16)
WRITTEN = "\U000f0000\U000f0063\U000f0007\U000f0000\U000f002a"
TRANSCRIPT = "The street is long."
ANSWERS = [
    "Die Straße ist lang.",
    "거리가 길어요.",
    "这条街很长。",
    "Улица длинная.",
    "\U000f0001 a unit",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> Prompts:
    return Prompts(tokenizer, "chat", unit_offset=tokenizer.convert_tokens_to_ids("\U000f0000"), num_units=100)


def asked(example: Example) -> list[int]:
    """What is read before the first answer."""
    return example.ids[: int(np.argmax(example.learnt))].tolist()


def learnt(example: Example, tokenizer: Any) -> str:
    return tokenizer.decode(example.ids[example.learnt])


def test_a_pretraining_line_has_spires_form(tokenizer: Any) -> None:
    line = training_lines.pretraining_line(UNITS, TRANSCRIPT)
    assert line == f"Speech:{WRITTEN}\nEnglish: {TRANSCRIPT}"
    example = tokenise_line(line, tokenizer)
    assert example.ids.tolist() == [*tokenizer(line)["input_ids"], tokenizer.eos_token_id]
    assert example.ids[0] == tokenizer.bos_token_id
    assert not example.learnt[0]
    assert example.learnt[1:].all()


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_transcription_is_asked_as_at_inference(tokenizer: Any, prompts: Prompts, answer: str) -> None:
    example = tokenise(training_lines.transcription(UNITS, answer), tokenizer)
    assert asked(example) == prompts.transcribe(UNITS)
    assert learnt(example, tokenizer) == f"{answer}<|im_end|>"
    assert example.learnt.dtype == np.bool_
    assert example.ids.dtype == np.int32


@pytest.mark.parametrize("language", [code for code in LANGUAGE_NAMES if code != "en"])
def test_a_speech_translation_is_asked_as_at_inference(tokenizer: Any, prompts: Prompts, language: str) -> None:
    for answer in ANSWERS:
        example = tokenise(training_lines.speech_translation(UNITS, answer, language), tokenizer)
        assert asked(example) == prompts.translate(UNITS, language)
        assert learnt(example, tokenizer) == f"{answer}<|im_end|>"


@pytest.mark.parametrize("answer", ANSWERS)
def test_both_turns_are_asked_as_at_inference(tokenizer: Any, prompts: Prompts, answer: str) -> None:
    conversation = training_lines.multi_turn_translation(UNITS, TRANSCRIPT, answer, "ru")
    example = tokenise(conversation, tokenizer)
    assert asked(example) == prompts.transcribe(UNITS)
    assert learnt(example, tokenizer) == f"{TRANSCRIPT}<|im_end|>{answer}<|im_end|>"
    second = prompts.translate_next(UNITS, TRANSCRIPT, "ru")
    assert example.ids[: len(second)].tolist() == second
    assert not example.learnt[len(second) - 1]
    assert example.learnt[len(second) :].all()
    assert example.ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_text_translation_is_asked_as_at_inference(tokenizer: Any, prompts: Prompts, answer: str) -> None:
    example = tokenise(training_lines.text_translation(TRANSCRIPT, answer, "en", "zh"), tokenizer)
    assert asked(example) == prompts.translate_text(TRANSCRIPT, "en", "zh")
    assert learnt(example, tokenizer) == f"{answer}<|im_end|>"


def test_a_conversation_is_written_as_the_authors_write_it() -> None:
    written = json.dumps(training_lines.speech_translation(UNITS, "La calle es larga.", "es").as_json())
    assert json.loads(written) == {
        "conversations": [
            {"from": "human", "value": f"Speech: {WRITTEN}\nSpanish:"},
            {"from": "gpt", "value": "La calle es larga."},
        ]
    }
    turns = training_lines.multi_turn_translation(UNITS, "So.", "Also.", "de").as_json()["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt", "human", "gpt"]
    assert [turn["value"] for turn in turns[1:]] == ["So.", "German:", "Also."]


def test_a_template_that_writes_bos_gets_no_second_one(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    example = tokenise(training_lines.transcription(UNITS, TRANSCRIPT), tokenizer)
    assert example.ids.tolist().count(tokenizer.bos_token_id) == 1


def test_a_template_that_changes_its_prompts_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|im_start|>assistant", "'<|im_start|>Assistant")
    with pytest.raises(UserError, match="chat template"):
        tokenise(Conversation(("so", "and so")), tokenizer)
