"""The sounds that two synthesisers report, as one alphabet: what is said in each frame of the training speech.

flite names ARPABET phones, Kokoro the IPA of espeak-ng. Diphthongs are two sounds, close vowels of accents are one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SOUNDS = ("sil", *"pbtdkɡfvθðszʃʒhmnŋlɹwjiɪeaɑɔoʊuəɜ")
UNKNOWN = -100  # torch's cross entropy leaves it out
FRAME, CENTRE = 320, 200  # samples between two frames; from a frame's first sample to its middle
LONG_GAP_S = 0.15  # a gap between words that is longer is silence

_ARPABET = {
    **{"aa": "ɑ", "ae": "a", "ah": "ə", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɜ", "ay": "aɪ", "eh": "e"},
    **{"er": "ɜ", "ey": "eɪ", "ih": "ɪ", "iy": "i", "ow": "oʊ", "oy": "ɔɪ", "uh": "ʊ", "uw": "u"},
    **{"ch": "tʃ", "dh": "ð", "g": "ɡ", "hh": "h", "jh": "dʒ", "ng": "ŋ", "r": "ɹ", "sh": "ʃ", "th": "θ"},
    **{"y": "j", "zh": "ʒ"},
    **{letter: letter for letter in "bdfklmnpstvwz"},
}
_IPA = {
    **{sound: sound for sound in SOUNDS[1:]},
    **{"ɛ": "e", "æ": "a", "ɒ": "ɑ", "ʌ": "ə", "ɐ": "ə", "ɚ": "ɜ", "ᵻ": "ɪ", "ɾ": "d", "ʔ": "t", "r": "ɹ", "g": "ɡ"},
}


def frame_labels(
    phones: Sequence[tuple[str, float]], frames: int, lead_s: float = 0.0, speed: float = 1.0
) -> NDArray[np.int64]:
    """The index in SOUNDS of what is said in the middle of each frame [frames]; UNKNOWN where nobody says.

    phones: names with their ends in seconds, as Speech has them. The speech begins `lead_s` late and is played
    `speed` times as fast. Before and after it is silence.
    """
    labels = np.zeros(frames, np.int64)
    if not phones:
        return np.full(frames, UNKNOWN, np.int64)
    start = 0.0
    for index, (phone, end) in enumerate(phones):
        sounds = _sounds(phone, end - start, first=index == 0)
        edges = np.linspace(start, end, len(sounds) + 1) / speed + lead_s
        first, *inner = np.ceil((edges * 16_000 - CENTRE) / FRAME).astype(int).clip(0, frames)
        for sound, last in zip(sounds, inner, strict=True):
            labels[first:last] = sound
            first = last
        start = end
    return labels


def _sounds(phone: str, seconds: float, *, first: bool) -> list[int]:
    if phone == "pau":
        return [0]
    if phone == "ː" or phone in "ˈˌ":  # length belongs to the sound before, stress has none of its own
        return [UNKNOWN]
    if phone in " ,.?!":
        return [0 if seconds > LONG_GAP_S else UNKNOWN]
    sounds = _ARPABET.get(phone) if len(phone) > 1 or (phone.isascii() and phone in "bdfklmnpstvwzgry") else None
    sounds = sounds or _IPA.get(phone)
    return [SOUNDS.index(sound) for sound in sounds] if sounds else [UNKNOWN]
