import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

sys.path.append(str(Path(__file__).parents[1] / "jobs" / "tiny"))
from sentences import draw
from tokenizer import BASE_PIECES, make_tokenizer

from spire_ray.checkpoints import Checkpoint
from spire_ray.errors import UserError
from spire_ray.prompts import Prompts
from spire_ray.vocabulary import check_tokenizer

UNITS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(UNITS).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def checkpoint(folder: Path, rows: int, offset: int) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows}))
    languages = ("en", "de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")
    return Checkpoint(
        name="tiny",
        llm=folder,
        encoder=None,
        codebook=None,
        layer=1,
        prompt_style="chat",
        languages=languages,
        unit_offset=offset,
        revision="",
        speech=True,
    )


def test_it_has_spires_layout(tokenizer: Any) -> None:
    pieces = ["<unk>", "<s>", "</s>", "<0x00>", "<CLS>", "<SEP>", "\U000f0000", chr(0xF0000 + UNITS - 1)]
    first = BASE_PIECES
    ids = tokenizer.convert_tokens_to_ids([*pieces, "<|im_end|>", "<|im_start|>"])
    assert ids == [0, 1, 2, 3, first, first + 4, first + 5, first + 4 + UNITS, first + 5 + UNITS, first + 6 + UNITS]
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == ("<|im_end|>", "<s>", "<PAD>")


def test_the_check_at_start_accepts_it(tokenizer: Any, folder: Path) -> None:
    offset = BASE_PIECES + 5
    assert check_tokenizer(checkpoint(folder, len(tokenizer), offset), tokenizer, UNITS) == UNITS
    with pytest.raises(UserError, match="unit_offset"):
        check_tokenizer(checkpoint(folder, len(tokenizer), offset + 1), tokenizer, UNITS)


def test_every_reference_is_read_back_as_it_was(tokenizer: Any) -> None:
    for sentence in [*draw(1000, 21, "train"), *draw(200, 22, "held_out")]:
        for text in (sentence.english, *sentence.translations.values()):
            asked = f"<|im_start|>assistant\n{text}<|im_end|>"
            ids = tokenizer(asked)["input_ids"]
            start = ids.index(tokenizer.convert_tokens_to_ids("<0x0A>")) + 1
            assert tokenizer.decode(ids[start:-1], skip_special_tokens=True) == text


def test_the_domain_needs_no_bytes(tokenizer: Any) -> None:
    newline = tokenizer.convert_tokens_to_ids("<0x0A>")
    for sentence in draw(500, 23, "train"):
        for text in (sentence.english, *sentence.translations.values()):
            ids = np.array(tokenizer(f"\n{text}")["input_ids"])
            assert not ((ids >= 3) & (ids < 259) & (ids != newline)).any(), text


def test_other_text_survives_as_bytes(tokenizer: Any) -> None:
    text = "Œuvre: 100 % žluťoučký 😀"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_its_prompts_are_one_token_a_unit(tokenizer: Any) -> None:
    prompts = Prompts(tokenizer, "chat", unit_offset=BASE_PIECES + 5, num_units=UNITS)
    units = np.array([0, 5, UNITS - 1], np.int16)
    ids = prompts.transcribe(units)
    start = ids.index(BASE_PIECES + 5)
    assert ids[start : start + 3] == [BASE_PIECES + 5, BASE_PIECES + 10, BASE_PIECES + 4 + UNITS]


def test_it_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    make_tokenizer(UNITS).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
