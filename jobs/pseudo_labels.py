"""Pseudo-labelled speech translation: units of a corpus, its transcripts translated, and a training set of both.

    CORPUS ─tokenize─> WORK/units ─> WORK/transcripts.jsonl ─translate─> WORK/translations ─build-dataset─> WORK/dataset

Copy this file, edit what is in capitals, run it or submit it as README says ("On a cluster"); the same command again
does what is missing. The corpus has reference transcripts; WORK is a folder that every node sees. After a
`spire-ray retry WORK/units` the set is another one: build it into another folder.

    python jobs/pseudo_labels.py CORPUS WORK
"""

import json
import os
import sys
from pathlib import Path

from spire_ray.cli import main as spire_ray
from spire_ray.joined import Joined
from spire_ray.store import Store

UNITS_OF = "SpireFull"  # whose encoder and codebook make the units
TRANSLATOR = "TowerFull"
SOURCE, LANGUAGES = "en", ["de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh"]
# The authors kept translations from a quality estimation of 0.85 on: add "--scorer", "comet-kiwi", "--scorer-python",
# PYTHON with an environment that has unbabel-comet, and the preset holds them to it.
DATASET = ["--tasks", "asr", "st", "--preset", "spire", "--dedupe", "units", "near", "--dev", "0.01"]


def main(corpus: str, work: Path) -> int:
    """The four steps, each of which goes on where it was."""
    units, translations = work / "units", work / "translations"
    text = work / "transcripts.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    if code := spire_ray(["tokenize", corpus, str(units), "--checkpoint", UNITS_OF]):
        return code
    if not text.exists():
        write_transcripts(units, text)
    languages = ["--from", SOURCE, "--languages", *LANGUAGES]
    if code := spire_ray(["translate", str(text), str(translations), *languages, "--checkpoint", TRANSLATOR]):
        return code
    build = ["build-dataset", str(units), str(work / "dataset"), "--translations", str(translations)]
    return spire_ray([*build, *DATASET])


def write_transcripts(units: Path, text: Path) -> None:
    """The reference transcripts as a text corpus; ids are the utterances', by which translations are joined."""
    unfinished = text.with_suffix(".tmp")
    with unfinished.open("w", encoding="utf-8") as lines:
        joined = Joined(Store(str(units)))
        for shard in range(joined.plan.shards):
            for row in joined.shard(shard):
                if row["reference"]:
                    told = {"id": row["utterance_id"], "text": row["reference"]}
                    lines.write(json.dumps(told, ensure_ascii=False) + "\n")
    os.rename(unfinished, text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
