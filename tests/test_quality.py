import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spire_ray.quality import FLAGS, SCRIPTS, compression_ratio, flags, script_share

# The same two sentences in every language (the first article of the Universal Declaration of Human Rights).
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geiste der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en "
    "geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de "
    "consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 "
    "부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "
    "должны поступать в отношении друг друга в духе братства.",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
}
SECONDS = 11.0


@pytest.mark.parametrize("language", sorted(ARTICLE))
def test_good_text_has_no_flag(language: str) -> None:
    assert set(ARTICLE) == set(SCRIPTS)
    source = None if language == "en" else ARTICLE["en"]
    assert flags(ARTICLE[language], language, "stop", seconds=SECONDS, source=source) == ()


@pytest.mark.parametrize("language", sorted(ARTICLE))
def test_text_in_another_script_has_one(language: str) -> None:
    for other, text in ARTICLE.items():
        expected = ("wrong_script",) if SCRIPTS[other] != SCRIPTS[language] else ()
        assert flags(text, language, "stop") == expected
    # One name in Latin letters does not make a sentence Latin; neither digits nor punctuation have a script.
    assert "wrong_script" not in flags(ARTICLE[language] + " Anna, 1948!", language, "stop")


def test_how_it_ended() -> None:
    text = ARTICLE["en"]
    assert flags(text, "en", "length") == ("truncated",)
    assert flags(text, "en", "repetition") == ("repetition",)
    for nothing in ("", " \n"):
        assert flags(nothing, "de", "stop", seconds=3.0, source=text) == ("empty",)
        assert flags(nothing, "de", "length") == ("truncated", "empty")


@pytest.mark.parametrize(
    ("language", "piece"),
    [
        ("en", "thank you for watching. "),
        ("de", "und so weiter und "),
        ("zh", "谢谢大家"),
        ("ko", "감사합니다 여러분 "),
    ],
)
def test_loops(language: str, piece: str) -> None:
    assert "repetition" in flags(piece * 12, language, "stop")
    assert "repetition" in flags(ARTICLE[language] + piece * 40, language, "stop")
    assert flags(piece.strip(), language, "stop") == ()


def test_people_do_repeat_themselves() -> None:
    assert flags("No, no, no, no!", "en", "stop", seconds=2.0) == ()


def test_compression_ratio_is_whispers() -> None:
    # Whisper's hallucination threshold in its own terms: 2.4 bytes in for one byte out.
    assert compression_ratio("the same again " * 30) > 2.4
    assert compression_ratio(string.ascii_letters) < 1


@pytest.mark.parametrize(
    ("characters", "seconds", "expected"),
    [(80, 2.0, ()), (81, 2.0, ("too_fast",)), (10, 10.0, ()), (9, 10.0, ("too_slow",)), (9, None, ()), (9, 0.0, ())],
)
def test_rate_of_characters(characters: int, seconds: float | None, expected: tuple[str, ...]) -> None:
    text = (ARTICLE["en"] * 2)[:characters].replace(" ", "x")
    assert len(text) == characters
    assert flags(text, "en", "stop", seconds=seconds) == expected


@pytest.mark.parametrize(
    ("ratio", "seconds", "expected"),
    [(0.05, 4.0, ("no_speech",)), (0.07, 4.0, ()), (0.3, 0.4, ()), (0.2, 0.4, ("no_speech",)), (None, 0.1, ())],
)
def test_words_without_speech(ratio: float | None, seconds: float, expected: tuple[str, ...]) -> None:
    assert flags("Ja.", "de", "stop", seconds=seconds, speech_ratio=ratio) == expected
    assert flags(" ", "de", "stop", seconds=seconds, speech_ratio=ratio) == ("empty",)


def test_copied_source() -> None:
    source = "They walked down the river in the evening."
    assert flags(source.upper(), "de", "stop", source=source) == ("copied_source",)
    assert flags("Und: they walked down the river in the evening", "de", "stop", source=source) == ("copied_source",)
    assert flags("Sie gingen am Abend den Fluss hinab, in the evening.", "de", "stop", source=source) == ()
    # A name or a number stays what it is.
    assert flags("Amsterdam Centraal", "nl", "stop", source="Amsterdam Centraal.") == ()
    assert "copied_source" in flags(ARTICLE["zh"], "zh", "stop", source=ARTICLE["zh"])


@given(st.text(), st.sampled_from([*SCRIPTS, "xx"]), st.sampled_from(["stop", "length", "repetition", None]))
def test_any_text_gets_flags_of_the_closed_set(text: str, language: str, finish_reason: str | None) -> None:
    raised = flags(text, language, finish_reason, seconds=1.5, source=text)
    assert list(raised) == [flag for flag in FLAGS if flag in raised]
    assert ("empty" in raised) == (not text.strip())
    assert 0 <= script_share(text, language) <= 1
    json.dumps(raised)
