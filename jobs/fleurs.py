"""FLEURS, English, to units, transcripts and translations, with references of both.

About 10 hours of training speech in each of 102 languages, which read the same sentences (arXiv 2205.12446,
huggingface.co/datasets/google/fleurs), CC BY 4.0. SPIRE's instruction tuning has 90 hours of it. In each split's folder
unpack its tar file, `tar -xzf test.tar.gz`, and leave the tables of other languages beside:

    fleurs/data/en_us/test.tsv                              number, file, what is written, what is said, ...; no header
    fleurs/data/en_us/audio/test/<file>.wav
    fleurs/data/de_de/test.tsv                              the same numbers: the reference translations

An utterance's id is its path: numbers come up to three times, once a reader.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/fleurs.py /data/fleurs OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh"]
SPLIT = "test"  # dev, train


def corpus(folder: str) -> str:
    """CORPUS: the table of a split in English; others beside it are found."""
    return f"{folder}/data/en_us/{SPLIT}.tsv"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
