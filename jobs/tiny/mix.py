"""What the codebook is fitted on and the language model learns from: the corpora mixed, each utterance as heard once.

    nice -n 19 .venv/bin/python jobs/tiny/mix.py /tmp/tiny /tmp/tiny/mix --hours 5
    .venv/bin/spire-ray fit-codebook /tmp/tiny/mix/manifest.jsonl spire_ray/tiny/codebook.safetensors --clusters 400 \
        --frames 600000 --encoder spire_ray/tiny/encoder --layer 3
    .venv/bin/spire-ray tokenize /tmp/tiny/mix/manifest.jsonl /tmp/tiny/mix-units --encoder spire_ray/tiny/encoder \
        --layer 3 --codebook spire_ray/tiny/codebook.safetensors

Utterances come from the folders of encoder_batches.SHARES in these shares, evenly over each folder's voices; one in
CLEAN_OF stays as it was synthesised. A folder whose utterances are all taken begins again, perturbed in another way.
Restartable: it goes on at the end of the manifest. References are the grammar's, asked for again, so that a corpus
spoken before a language was written has it too.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from encoder_batches import SHARES, read_manifest
from parse import parse
from perturb import RATE, perturb
from sentences import references

CLEAN_OF = 4
SEED = 30


def chosen(corpus: Path) -> Iterator[dict[str, Any]]:
    """Endless rows of the manifests under `corpus`, by SHARES, each folder's rows shuffled anew when they end."""
    random = np.random.default_rng(SEED)
    manifests = {name: corpus / name / "manifest.jsonl" for name in SHARES}
    folders = {name: _shuffled(path, random) for name, path in manifests.items() if path.exists()}
    weights = np.array([SHARES[name] for name in folders])
    while True:
        yield next(folders[str(random.choice(list(folders), p=weights / weights.sum()))])


def write(corpus: Path, folder: Path, hours: float) -> None:
    """Add utterances to `folder`/manifest.jsonl until they last `hours`."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.jsonl"
    done = read_manifest(manifest) if manifest.exists() else []
    seconds = sum(float(row["duration"]) for row in done)
    with manifest.open("a") as file:
        for number, row in enumerate(islice(chosen(corpus), len(done), None), len(done)):
            if seconds > hours * 3600:
                break
            line = _heard(row, folder, number)
            seconds += float(line["duration"])
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()


def _heard(row: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    random = np.random.default_rng([SEED, number])
    samples, _ = soundfile.read(row["audio"], dtype="float32")
    clean = random.random() * CLEAN_OF < 1
    heard = np.rint(samples * 32_767).astype(np.int16) if clean else perturb(samples, random).samples
    audio = f"{number // 1000:03d}/{number:06d}.flac"
    (folder / audio).parent.mkdir(exist_ok=True)
    soundfile.write(folder / audio, heard, RATE, subtype="PCM_16")
    return {
        "id": f"{number:06d}-{row['id']}",
        "audio": audio,
        "duration": len(heard) / RATE,
        "text": row["text"],
        "speaker": row["speaker"],
        "references": references(parse(row["text"])),
    }


def _shuffled(manifest: Path, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    rows = read_manifest(manifest)
    while True:
        for index in random.permutation(len(rows)):
            yield rows[index]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, required=True)
    arguments = parser.parse_args()
    write(arguments.corpus, arguments.folder, arguments.hours)


if __name__ == "__main__":
    main()
