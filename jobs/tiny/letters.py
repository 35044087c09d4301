"""How a transcript is spelt for learning and for counting errors: plain lower-case letters."""

import unicodedata

LETTERS = "_ 'abcdefghijklmnopqrstuvwxyz"  # "_" is CTC's blank


def spoken(text: str) -> str:
    """A transcript in LETTERS: lower case, without accents and punctuation, hyphens as spaces."""
    plain = unicodedata.normalize("NFD", text.lower().replace("-", " ").replace("’", "'"))
    return " ".join("".join(letter for letter in plain if letter in LETTERS[1:]).split())
