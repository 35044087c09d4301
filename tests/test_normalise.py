"""The normaliser against what OpenAI's own package (openai-whisper 20250625) makes of the same sentences."""

import pytest

from spire_ray.normalise import normaliser

ENGLISH = {
    "Mr. Smith's colour isn't grey, it's £20.50!": "mister smith is color is not gray it is £20.50",
    "I kinda like it, 'cause I dunno.": "i kinda like it cause i dunno",
    "Twenty-three point five per cent of one hundred and one.": "23.5% of 101",
    "[laughs] Well, um, we're going to (cough) the theatre at nine thirty o'clock.": (
        "well we are going to the theater at 9300 clock"
    ),
    "Nine twenty-seven; naïve café №5": "927 naive cafe No 5",
    "they had done it; he's gone; who'd say": "they had done it he has gone who would say",
    "One oh one, double seven, minus 3,000": "10177 -3000",
}
BASIC = {
    "Mr. Smith's colour isn't grey, it's £20.50!": "mr smith s colour isn t grey it s 20 50 ",
    "[laughs] Well, um, (cough) the theatre": " well um the theatre",
    "Nine twenty-seven; naïve café №5": "nine twenty seven naïve café no5",
}


@pytest.mark.parametrize("text", ENGLISH)
def test_whispers_english_rules(text: str) -> None:
    assert normaliser("whisper", "en").apply(text) == ENGLISH[text]
    assert normaliser("none", "en").apply(text) == text


@pytest.mark.parametrize("text", BASIC)
@pytest.mark.parametrize(("kind", "language"), [("basic", "en"), ("whisper", "de")])
def test_whispers_basic_rules_for_other_languages(text: str, kind: str, language: str) -> None:
    assert normaliser("basic" if kind == "basic" else "whisper", language).apply(text) == BASIC[text]


def test_the_list_of_spellings_is_openais() -> None:
    # SHA-256 of whisper/normalizers/english.json in openai-whisper 20250625.
    assert normaliser("whisper", "en").signature.endswith("1739 spellings 6607f948)")
