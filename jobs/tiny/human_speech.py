"""A real human test set, never learnt from: digits, numbers and dates among the Asterisk prompts of Debian.

    .venv/bin/python jobs/tiny/human_speech.py /tmp/tiny/human

It has the prompts of one word each ("seventeen", "March", "o'clock") and sentences of the held-out split whose every
word is such a prompt, joined as a telephone exchange joins them ("six thousand four hundred twenty"). Fetched, not
committed (CC-BY-SA-3.0), by jobs/demo_speech.py, whose whole sentences are outside the domain.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from sentences import draw

sys.path.append(str(Path(__file__).parents[1]))
from demo_speech import debian_sounds, decode_g722

RATE = 16_000
# Of the folder of digits, what the domain has no sentences about.
OUTSIDE = re.compile(r"star|pound|minus|.*illion.*|today|tomorrow|yesterday|.*day|[AP]\.M\.|at|oh|.*\dth")
MISSPELT = {"fourtieth": "fortieth"}
GAP_S = 0.05  # between joined prompts
SEED = 40


def fetch(scratch: Path) -> dict[str, NDArray[np.int16]]:
    """Each word of the domain that is a prompt (lower case, as the script spells it), and its samples at 16 kHz.

    demo_speech.SourceUnavailable when they cannot be fetched.
    """
    sounds, script = debian_sounds(scratch)
    words = {}
    for line in script.splitlines():
        name, _, text = line.partition(": ")
        if name.startswith("digits/") and not OUTSIDE.fullmatch(text) and (sounds / f"{name}.g722").exists():
            words[MISSPELT.get(text, text).lower()] = decode_g722(sounds / f"{name}.g722")
    return words


def join(words: list[NDArray[np.int16]]) -> NDArray[np.int16]:
    """Prompts one after another, their own silence cut to GAP_S."""
    gap = np.zeros(int(GAP_S * RATE), np.int16)
    parts = [part for word in words for part in (gap, _trimmed(word))]
    return np.concatenate([*parts, gap])


def sentences_of(words: set[str], count: int) -> list[str]:
    """Up to `count` held-out sentences that `words` suffice for."""
    found = []
    for sentence in draw(20_000, SEED, "held_out"):
        if len(parts := spoken_words(sentence.english)) > 1 and words.issuperset(parts):
            found.append(sentence.english)
        if len(found) == count:
            break
    return found


def spoken_words(text: str) -> list[str]:
    """The words of a transcript, lower case, hyphens as spaces, without full stop."""
    return text.lower().replace("-", " ").rstrip(".?").split()


def write(folder: Path, count: int) -> Path:
    """Fetch, write the clips and the manifest under `folder`, return the manifest. SourceUnavailable as `fetch`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        words = fetch(Path(scratch))
    clips = [(f"word-{word}", f"{word.capitalize()}.", join([samples])) for word, samples in sorted(words.items())]
    for number, text in enumerate(sentences_of(set(words), count)):
        clips.append((f"joined-{number:03d}", text, join([words[word] for word in spoken_words(text)])))
    lines = []
    for name, text, samples in clips:
        soundfile.write(folder / f"{name}.flac", samples, RATE, subtype="PCM_16")
        line = {"id": name, "audio": f"{name}.flac", "duration": len(samples) / RATE, "text": text, "phones": []}
        lines.append(json.dumps(line | {"speaker": "allison"}) + "\n")
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(lines))
    return manifest


def _trimmed(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Without what is 40 dB under the loudest 20 ms at either end."""
    level = np.abs(samples[: len(samples) // 320 * 320].astype(np.float32)).reshape(-1, 320).mean(axis=1)
    loud = np.flatnonzero(level > level.max() / 100)
    return samples[loud[0] * 320 : (loud[-1] + 1) * 320]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=int, default=60)
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.sentences))


if __name__ == "__main__":
    main()
