"""Multilingual LibriSpeech, English, to units, transcripts and translations, with its transcripts as references.

44,500 hours of read English, 6,000 of seven other languages (arXiv 2012.03411, openslr.org/94), CC BY 4.0. SPIRE's
continued pre-training has 19,200 hours of it. Unpacked it is as it must be, as FLAC or as its Opus version:

    mls_english/test/transcripts.txt                        10226_10111_000000, a tab, what is said
    mls_english/test/segments.txt                           the same ids, an address, start and end (seconds)
    mls_english/test/audio/10226/10111/10226_10111_000000.flac

Ids are the corpus's. transcripts.txt alone is read for the plan: millions of files are not listed.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/multilingual_librispeech.py /data/mls_english OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr"]
SPLIT = "test"  # dev, train


def corpus(folder: str) -> str:
    """CORPUS: a split's folder."""
    return f"{folder}/{SPLIT}"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
