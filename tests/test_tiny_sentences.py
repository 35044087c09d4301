import re
import sys
import unicodedata
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "jobs" / "tiny"))
from frames import FRAMES
from grammar import english
from parse import parse
from sentences import LANGUAGES, Sentence, draw, realise, split_of

CODES = ("de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")


@pytest.fixture(scope="module")
def drawn() -> list[Sentence]:
    return list(draw(3000, 7, "train"))


def test_every_language_has_every_frame_and_only_its_slots() -> None:
    assert len(FRAMES) >= 40
    for grammar in [english.GRAMMAR, *LANGUAGES.values()]:
        assert set(grammar.frames) == set(FRAMES)
        for key, template in grammar.frames.items():
            assert set(re.findall(r"\{(\w+)", template)) == set(FRAMES[key].slots), (key, template)


def test_frames_of_a_language_are_all_different() -> None:
    for grammar in [english.GRAMMAR, *LANGUAGES.values()]:
        assert max(Counter(grammar.frames.values()).values()) == 1


def test_every_sentence_is_words_in_its_language(drawn: list[Sentence]) -> None:
    scripts = {"ko": "HANGUL", "ru": "CYRILLIC", "zh": "CJK"}
    assert {sentence.frame for sentence in drawn} >= set(FRAMES) - {"where", "closed", "brother", "waiting"}
    for sentence in drawn:
        assert tuple(sentence.translations) == CODES
        for language, text in [("en", sentence.english), *sentence.translations.items()]:
            assert text == text.strip()
            assert "  " not in text
            assert unicodedata.is_normalized("NFC", text)
            assert not re.search(r"[\d_{}]", text), text
            assert re.search(r"[.?。？]$", text), text
            script = scripts.get(language, "LATIN")
            assert all(unicodedata.name(letter).startswith(script) for letter in text if letter.isalpha()), text
        assert re.match(r"[¿]?[A-ZÀ-ÖŁ]", sentence.english)


def test_drawing_is_deterministic_distinct_and_disjoint() -> None:
    train = [sentence.english for sentence in draw(1500, 1, "train")]
    assert train == [sentence.english for sentence in draw(1500, 1, "train")]
    assert train[:50] == [sentence.english for sentence in islice(draw(50, 1, "train"), 50)]
    assert len(set(train)) == 1500
    held_out = {sentence.english for seed in (1, 2) for sentence in draw(600, seed, "held_out")}
    assert not held_out & set(train)
    assert not held_out & {sentence.english for sentence in draw(1500, 2, "train")}
    assert train != [sentence.english for sentence in draw(1500, 2, "train")]


def test_the_kinds_are_balanced(drawn: list[Sentence]) -> None:
    kinds = Counter(sentence.kind for sentence in drawn)
    assert set(kinds) == {"number", "ordinal", "date", "time", "price", "travel"}
    assert min(kinds.values()) > 0.05 * len(drawn)
    assert kinds["travel"] > 0.35 * len(drawn)


def test_every_small_number_can_be_learnt() -> None:
    for number in range(100):
        text = realise(english.GRAMMAR, "number", {"k": number})
        assert split_of("number", {"k": number}, text) == "train"


def test_more_sentences_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentences.FRAMES", {"ordinal": FRAMES["ordinal"]})
    monkeypatch.setattr("sentences.SHARES", {"ordinal": 1})
    with pytest.raises(ValueError, match="has not 101 sentences"):
        list(draw(101, 0, "train"))


def test_a_sentence_is_found_again_by_its_english(drawn: list[Sentence]) -> None:
    for sentence in drawn[:400]:
        assert parse(sentence.english) == sentence
    with pytest.raises(ValueError, match="no sentence of the domain"):
        parse("The train leaves at a hundred.")
