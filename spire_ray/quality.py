"""Flags on generated text (pure). A flag marks a row and never removes one: what to keep is the reader's choice.

The thresholds are those of systems that label speech at scale, each named beside its number.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache

FLAGS = (
    "truncated",  # max_tokens came before the end
    "no_speech",  # words, though hardly any speech was heard in the sound
    "empty",  # nothing but spaces
    "repetition",  # a loop: stopped by the engine, or seen in the text
    "too_fast",  # more characters than the speech has time for
    "too_slow",  # hardly any for so much speech
    "wrong_script",  # not the writing of the target language
    "copied_source",  # a translation that is its source
)

MIN_SPEECH_S = 0.25  # the shortest speech that silero-vad's own segmentation keeps
MIN_SPEECH_RATIO = 0.25  # ours: of what is shorter than a second
MAX_COMPRESSION_RATIO = 2.4  # bytes of UTF-8 to bytes of zlib: Whisper and faster-whisper
# Distinct to all words: DetectWhisperHallucinationFeatures of NeMo's speech data processor, hall_repeated_ngrams.
MAX_LOOPED_SHARE = 0.4
MIN_LOOP_WORDS = 8  # ours: people do say "no, no, no"
MAX_CHARACTERS_PER_SECOND = 40.0  # NeMo Curator's WhisperHallucinationStage
MIN_CHARACTERS_PER_SECOND = 1.0  # ours, where the peers have no number: a word in five seconds
MIN_SCRIPT_SHARE = 0.8  # letters of the language's script among all: Granary's charset purity
MIN_COPIED_SHARE = 0.8  # ours: words of the translation that are the source's
MIN_COPIED_WORDS = 4  # ours: "Amsterdam Centraal" is its own translation

SCRIPTS = dict.fromkeys(("en", "de", "fr", "nl", "it", "es", "pt"), "LATIN") | {
    "ru": "CYRILLIC",
    "ko": "HANGUL",
    "zh": "CJK",
}
_WORDS = re.compile(r"\w+")


def flags(
    text: str,
    language: str,
    finish_reason: str | None,
    *,
    seconds: float | None = None,
    speech_ratio: float | None = None,
    source: str | None = None,
) -> tuple[str, ...]:
    """The flags of one generated text, in the order of FLAGS.

    language: ISO 639-1, of the text. seconds: how long the sound is that it renders, None where there is none (text
    corpora). speech_ratio: how much of that is speech, None for all. source: what a translation translates, None where
    there is no text of it.
    """
    raised = {"truncated"} if finish_reason == "length" else set()
    if finish_reason == "repetition":
        raised.add("repetition")
    if not text.strip():
        return _ordered(raised | {"empty"})
    speech_seconds = (seconds or 0.0) * (1.0 if speech_ratio is None else speech_ratio)
    # The plan's column is float32.
    unheard = seconds and speech_ratio is not None and speech_ratio < least_ratio(seconds) * (1 - 1e-6)
    if unheard:
        raised.add("no_speech")
    words = _words(text, language)
    if compression_ratio(text) > MAX_COMPRESSION_RATIO or _is_loop(words):
        raised.add("repetition")
    if speech_seconds and not unheard:
        rate = len(text) / speech_seconds
        if rate > MAX_CHARACTERS_PER_SECOND:
            raised.add("too_fast")
        if rate < MIN_CHARACTERS_PER_SECOND:
            raised.add("too_slow")
    if script_share(text, language) < MIN_SCRIPT_SHARE:
        raised.add("wrong_script")
    if source and _is_copy(words, _words(source, language)):
        raised.add("copied_source")
    return _ordered(raised)


def least_ratio(seconds: float) -> float:
    """The `speech_ratio` from which on a sound has speech enough for words."""
    return min(MIN_SPEECH_S / seconds, MIN_SPEECH_RATIO)


def compression_ratio(text: str) -> float:
    """Bytes of UTF-8 to bytes of zlib's default level, as Whisper computes it."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def script_share(text: str, language: str) -> float:
    """The share of its letters that are of the language's script: 1 without letters, or for a language not listed."""
    script = SCRIPTS.get(language)
    letters = [_script(character) for character in text if character.isalpha()]
    if script is None or not letters:
        return 1.0
    return letters.count(script) / len(letters)


@cache
def _script(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0]


def _words(text: str, language: str) -> list[str]:
    words = _WORDS.findall(text.casefold())
    if language != "zh":
        return words
    # Chinese is written without spaces. Its characters recur as words do not; pairs of them do not either.
    joined = "".join(words)
    return [joined[at : at + 2] for at in range(len(joined) - 1)]


def _is_loop(words: Sequence[str]) -> bool:
    return len(words) >= MIN_LOOP_WORDS and len(set(words)) <= MAX_LOOPED_SHARE * len(words)


def _is_copy(words: Sequence[str], source: Sequence[str]) -> bool:
    if len(words) < MIN_COPIED_WORDS:
        return False
    return (Counter(words) & Counter(source)).total() >= MIN_COPIED_SHARE * len(words)


def _ordered(raised: set[str]) -> tuple[str, ...]:
    return tuple(flag for flag in FLAGS if flag in raised)
