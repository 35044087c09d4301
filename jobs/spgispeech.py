"""SPGISpeech to units, transcripts and translations, with its transcripts as references.

5,000 hours of earnings calls (arXiv 2104.02014), for academic research, to be asked for at Kensho: see its terms
(huggingface.co/datasets/kensho/spgispeech). SPIRE has 5,100 hours of it. Unpacked it is as it must be:

    spgispeech/val.csv                                      wav_filename|wav_filesize|transcript
    spgispeech/val/<call>/<n>.wav                           or spgispeech/val below val.csv

An utterance's id is its path.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/spgispeech.py /data/spgispeech OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr"]
SPLIT = "val"  # train


def corpus(folder: str) -> str:
    """CORPUS: a split's table."""
    return f"{folder}/{SPLIT}.csv"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
