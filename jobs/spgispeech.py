"""SPGISpeech to units, transcripts and translations, with its transcripts as references.

5,000 hours of earnings calls (arXiv 2104.02014), to be asked for at Kensho and under its terms, which could not be
looked up for this file: read them first. SPIRE has 5,100 hours of it. Unpacked it is as it must be:

    spgispeech/val.csv                                      wav_filename|wav_filesize|transcript
    spgispeech/val/<call>/<n>.wav                           or spgispeech/val below val.csv

An utterance's id is its path.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/spgispeech.py /data/spgispeech OUT
"""

import sys

from spire_ray.cli import main

CHECKPOINT = "SpireFull"
LANGUAGES = ["de", "fr"]
SPLIT = "val"  # train


def corpus(folder: str) -> str:
    """CORPUS: a split's table."""
    return f"{folder}/{SPLIT}.csv"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, out, *options = sys.argv[1:]
    settings = ["--checkpoint", CHECKPOINT, "--languages", *LANGUAGES]
    sys.exit(main(["speech-to-text", corpus(folder), out, *settings, *options]))
