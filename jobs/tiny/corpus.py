"""Speak the sentences: 16 kHz FLAC files and a JSONL manifest, one engine a folder. Restartable: it goes on at the end.

    SPEAK="nice -n 19 /tmp/tts-venv/bin/python jobs/tiny/corpus.py"
    $SPEAK /tmp/tiny/flite flite --hours 3          # and so on for each engine
    $SPEAK /tmp/tiny/dev kokoro --voices af_sarah bm_lewis --split dev --hours 0.1
    $SPEAK /tmp/tiny/test kokoro --voices bf_emma am_michael --split held_out --hours 0.6

Engines are those of voices.py; --voices picks Kokoro voices one after another instead of drawing them. Hours of speech
an hour of one busy core: flite 15, festival 10, espeak 100, hibari 40, piper 8, kokoro 1.4.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from sentences import Sentence, draw, references
from voices import SAMPLE_RATE, Speech, kokoro, speaker

SEEDS = {"flite": 1, "festival": 2, "espeak": 3, "hibari": 4, "piper": 5, "kokoro": 6}
DEV_SEED, TEST_SEED = 90, 91
FILES_IN_A_FOLDER = 1000
BLOCK = 20_000  # sentences drawn at once


def texts(engine: str, split: str, seed: int) -> Iterator[Sentence]:
    """Endless sentences for an engine: of the train split, or with `split` "held_out" of the other.

    "dev" is of the train split too, from a seed of its own: its voices are new, its sentences partly.
    """
    seed = {"train": SEEDS[engine], "dev": DEV_SEED}.get(split, TEST_SEED) + 10 * seed
    yield from draw(BLOCK, seed, "held_out" if split == "held_out" else "train")
    while split == "train":
        seed += 1000
        yield from draw(BLOCK, seed, "train")


def make(folder: Path, engine: str, hours: float, split: str, voices: list[str], seed: int = 0) -> None:
    """Add utterances to `folder`/manifest.jsonl until they last `hours`.

    An utterance is a pure function of engine, split and its number, so a second run goes on where the first ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.jsonl"
    lines = manifest.read_text().splitlines() if manifest.exists() else []
    seconds = sum(float(json.loads(line)["duration"]) for line in lines)
    with manifest.open("a") as file:
        for number, sentence in enumerate(islice(texts(engine, split, seed), len(lines), None), len(lines)):
            if seconds > hours * 3600:
                break
            random = np.random.default_rng([SEEDS[engine], len(split), seed, number])
            name, say = (voices[number % len(voices)], None) if voices else speaker(engine, random)
            speech = (say or kokoro(name))(sentence.english)
            line = write(folder, number, name, sentence, speech)
            seconds += float(line["duration"])
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()


def write(folder: Path, number: int, voice: str, sentence: Sentence, speech: Speech) -> dict[str, Any]:
    """Write one FLAC file and return its line of the manifest."""
    relative = f"{number // FILES_IN_A_FOLDER:03d}/{number:06d}.flac"
    path = folder / relative
    path.parent.mkdir(exist_ok=True)
    peak = float(np.abs(speech.samples).max())
    soundfile.write(path, speech.samples * min(1.0, 0.99 / peak), SAMPLE_RATE, subtype="PCM_16")
    return {
        "id": f"{folder.name}-{number:06d}",
        "audio": relative,
        "duration": len(speech.samples) / SAMPLE_RATE,
        "text": sentence.english,
        "speaker": voice,
        "references": references(sentence),
        "frame": sentence.frame,
        "phones": speech.phones,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("engine", choices=sorted(SEEDS))
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--split", choices=("train", "dev", "held_out"), default="train")
    parser.add_argument("--voices", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0, help="another gives other sentences and voices")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.engine, arguments.hours, arguments.split, arguments.voices, arguments.seed)


if __name__ == "__main__":
    main()
