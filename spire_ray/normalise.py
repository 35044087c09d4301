"""How texts are made alike before words are compared: Whisper's rules, as the paper does, its basic ones, or none."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Literal, cast

Normalizer = Literal["whisper", "basic", "none"]
_REMEMBERED = 8192  # texts: WER and CER ask for the same, of a shard, and the rules take 0.2 ms


@dataclass(frozen=True)
class Normaliser:
    """A function of one text, and what it is, to be printed beside the figures it decides."""

    signature: str
    apply: Callable[[str], str]


def normaliser(kind: Normalizer, language: str) -> Normaliser:
    """Whisper's EnglishTextNormalizer, for other languages than "en" its BasicTextNormalizer, as Whisper itself does.

    "basic": the latter for every language; it changes neither spellings nor numbers. "none": the text as it is.
    """
    if kind == "none":
        return Normaliser("as it is", str)
    if kind == "whisper" and language == "en":
        return _english()
    return _basic()


@cache
def _english() -> Normaliser:
    from transformers.models.whisper import english_normalizer

    # transformers has OpenAI's rules, whisper-normalizer OpenAI's 1,739 spellings. The rules of whisper-normalizer are
    # not OpenAI's: 0.1.15 also rewrites kinda, sorta, dunno and cause. So one gives the rules, the other the list.
    data = (files("whisper_normalizer") / "normalizers" / "english.json").read_bytes()
    spellings = cast("dict[str, str]", json.loads(data))
    apply = cast("Any", english_normalizer).EnglishTextNormalizer(spellings)
    mark = f"{len(spellings)} spellings {hashlib.sha256(data).hexdigest()[:8]}"
    name = f"Whisper's EnglishTextNormalizer (transformers {version('transformers')}, {mark})"
    return Normaliser(name, lru_cache(_REMEMBERED)(apply))


@cache
def _basic() -> Normaliser:
    from transformers.models.whisper import english_normalizer

    apply = cast("Any", english_normalizer).BasicTextNormalizer()
    return Normaliser(
        f"Whisper's BasicTextNormalizer (transformers {version('transformers')})", lru_cache(_REMEMBERED)(apply)
    )
