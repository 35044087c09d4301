"""LibriSpeech to units, transcripts and translations, with its transcripts as references.

About 1,000 hours of read English (openslr.org/12), CC BY 4.0. Unpacked it is as it must be:

    LibriSpeech/test-clean/61/70968/61-70968-0000.flac
    LibriSpeech/test-clean/61/70968/61-70968.trans.txt      61-70968-0000 WHAT IS SAID

An utterance's id is its path in the split, its speaker the first number of its name.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/librispeech.py /data/LibriSpeech OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr"]
SPLIT = "test-clean"  # test-other, dev-clean, dev-other, train-clean-100, train-clean-360, train-other-500


def corpus(folder: str) -> str:
    """CORPUS: a split's folder."""
    return f"{folder}/{SPLIT}"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
