from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from bundle import make_tokenizer
from spire_ray.errors import UserError
from spire_ray.prompts import LANGUAGE_NAMES, Prompts

SIZES = {"tiny": (512, 100), "spire": (32000, 5000)}  # base pieces, units


@pytest.fixture(scope="module", params=list(SIZES))
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(size: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(size)
    make_tokenizer(*SIZES[size]).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def num_units(size: str) -> int:
    return SIZES[size][1]


def prompts_of(tokenizer: Any, num_units: int, style: str = "chat", **settings: Any) -> Prompts:
    offset = tokenizer.convert_tokens_to_ids(chr(0xF0000))
    return Prompts(tokenizer, style, unit_offset=offset, num_units=num_units, **settings)


def some_units(num_units: int) -> np.ndarray:
    """Repeats, the first and the last unit among them."""
    random = np.random.default_rng(7).integers(0, num_units, 60)
    return np.concatenate([[0, 0, num_units - 1], random, [num_units - 1, 0]]).astype(np.int16)


def written(units: np.ndarray) -> str:
    return "".join(chr(0xF0000 + int(unit)) for unit in units)


def chat_ids(tokenizer: Any, *turns: str) -> list[int]:
    """What the template and the tokenizer give, with the BOS that SPIRE's template leaves to the tokenizer."""
    roles = ["user", "assistant", "user"]
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    return [tokenizer.bos_token_id, *encoded["input_ids"]]


def test_the_tokenizer_has_spires_layout(tokenizer: Any, size: str) -> None:
    pieces = ["<0x0A>", "<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>", "\U000f0000", "<|im_end|>", "<|im_start|>"]
    ids = tokenizer.convert_tokens_to_ids(pieces)
    if size == "spire":
        assert ids == [13, 32000, 32001, 32002, 32003, 32004, 32005, 37005, 37006]
        assert tokenizer.convert_tokens_to_ids("\U000f1387") == 37004
    assert tokenizer("a\nb")["input_ids"].count(ids[0]) == 1
    assert tokenizer.eos_token_id == ids[-2]


def test_a_transcription_prompt_is_what_the_template_and_the_tokenizer_give(tokenizer: Any, num_units: int) -> None:
    units = some_units(num_units)
    ids = prompts_of(tokenizer, num_units).transcribe(units)
    assert ids == chat_ids(tokenizer, f"Speech: {written(units)}\nEnglish:")
    text = f"<|im_start|>user\nSpeech: {written(units)}\nEnglish:<|im_end|>\n<|im_start|>assistant\n"
    assert ids == tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("language", [code for code in LANGUAGE_NAMES if code != "en"])
def test_a_speech_translation_prompt_names_the_target(tokenizer: Any, num_units: int, language: str) -> None:
    units = some_units(num_units)
    expected = f"Speech: {written(units)}\n{LANGUAGE_NAMES[language]}:"
    assert prompts_of(tokenizer, num_units).translate(units, language) == chat_ids(tokenizer, expected)


def test_language_names_are_those_the_models_were_trained_with() -> None:
    names = "English German French Dutch Italian Spanish Portuguese Korean Russian Chinese"
    assert " ".join(LANGUAGE_NAMES.values()) == names
    assert " ".join(LANGUAGE_NAMES) == "en de fr nl it es pt ko ru zh"


@pytest.mark.parametrize(("variant", "gap"), [("no-space", ""), ("space", " ")])
@pytest.mark.parametrize("style", ["chat", "raw"])
def test_variants_and_styles(tokenizer: Any, num_units: int, style: str, variant: str, gap: str) -> None:
    units = some_units(num_units)
    prompts = prompts_of(tokenizer, num_units, style, variant=variant)
    for ids, name in ((prompts.transcribe(units), "English"), (prompts.translate(units, "de"), "German")):
        text = f"Speech: {written(units)}\n{gap}{name}:"
        assert ids == (chat_ids(tokenizer, text) if style == "chat" else tokenizer(text)["input_ids"])


def test_one_unit_is_enough(tokenizer: Any, num_units: int) -> None:
    units = np.array([num_units - 1], dtype=np.int16)
    ids = prompts_of(tokenizer, num_units).transcribe(units)
    assert ids == chat_ids(tokenizer, f"Speech: {written(units)}\nEnglish:")


@pytest.mark.parametrize("transcript", ["She walks down the street.", "Straße 水\U000f0000 \U000f0001!", " said it "])
def test_the_next_turn_continues_the_conversation(tokenizer: Any, num_units: int, transcript: str) -> None:
    units = some_units(num_units)
    prompts = prompts_of(tokenizer, num_units)
    ids = prompts.translate_next(units, transcript, "de")
    assert ids == chat_ids(tokenizer, f"Speech: {written(units)}\nEnglish:", transcript, "German:")
    first = prompts.transcribe(units)
    assert ids[: len(first)] == first  # the prefix cache of the transcription serves it


def test_text_translation_zero_shot(tokenizer: Any, num_units: int) -> None:
    text = "Translate the following text from German to Chinese.\nGerman: Guten Abend, Straße!\nChinese:"
    ids = prompts_of(tokenizer, num_units).translate_text("Guten Abend, Straße!", "de", "zh")
    assert ids == chat_ids(tokenizer, text)
    raw = prompts_of(tokenizer, num_units, "raw").translate_text("Guten Abend, Straße!", "de", "zh")
    assert raw == tokenizer(text)["input_ids"]


def test_text_translation_five_shot(tokenizer: Any, num_units: int) -> None:
    examples = {("en", "de"): [(f"word {n}", f"Wort {n}") for n in range(8)]}
    prompts = prompts_of(tokenizer, num_units, "raw", examples=examples, seed=1)
    texts = [f"the year {n}" for n in range(6)]
    chosen = []
    for text in texts:
        lines = tokenizer.decode(prompts.translate_text(text, "en", "de"), skip_special_tokens=True).split("\n")
        assert lines[-2:] == [f"English: {text}", "German:"]
        shots = list(zip(lines[0:10:2], lines[1:10:2], strict=True))
        assert len(lines) == 12
        assert len(set(shots)) == 5
        assert set(shots) <= {(f"English: word {n}", f"German: Wort {n}") for n in range(8)}
        chosen.append(tuple(shots))
    assert len(set(chosen)) > 1  # each text has its own five
    again = prompts_of(tokenizer, num_units, "raw", examples=examples, seed=1)
    assert again.translate_text(texts[3], "en", "de") == prompts.translate_text(texts[3], "en", "de")
    other = prompts_of(tokenizer, num_units, "raw", examples=examples, seed=2)
    assert [other.translate_text(t, "en", "de") for t in texts] != [
        prompts.translate_text(t, "en", "de") for t in texts
    ]
    # A pair without examples is zero-shot.
    asked = tokenizer.decode(prompts.translate_text("x", "en", "fr"), skip_special_tokens=True)
    assert asked.startswith("Translate the following text from English to French.")


def test_a_template_that_writes_bos_gets_no_second_one(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    ids = prompts_of(tokenizer, 100).transcribe(some_units(100))
    assert ids[:2] == tokenizer.convert_tokens_to_ids(["<s>", "<|im_start|>"])
    assert ids.count(tokenizer.bos_token_id) == 1


def test_what_a_checkpoint_cannot_be_asked(tokenizer: Any, num_units: int) -> None:
    chat, raw = prompts_of(tokenizer, num_units), prompts_of(tokenizer, num_units, "raw")
    with pytest.raises(UserError, match=f"another codebook.*|this checkpoint has {num_units}"):
        chat.transcribe(np.array([3, num_units], dtype=np.int16))
    with pytest.raises(UserError, match="another codebook"):
        chat.transcribe(np.array([3, -1], dtype=np.int16))
    with pytest.raises(UserError, match="'xx'"):
        chat.translate(some_units(num_units), "xx")
    with pytest.raises(UserError, match="chat template"):
        raw.translate_next(some_units(num_units), "so", "de")
    with pytest.raises(UserError, match="need 5 examples, got 4"):
        prompts_of(tokenizer, num_units, "raw", examples={("en", "de"): [("a", "b")] * 4})
    text_alone = Prompts(tokenizer, "chat")
    with pytest.raises(UserError, match="not speech"):
        text_alone.transcribe(some_units(num_units))


def test_a_tokenizer_that_joins_units_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("\U000f0000\U000f0063", normalized=False)])
    with pytest.raises(UserError, match="one token for each unit"):
        prompts_of(tokenizer, 100)
