"""VoxPopuli, English, to units, transcripts and translations, with its normalised transcripts as references.

543 hours of transcribed English from the European Parliament (github.com/facebookresearch/voxpopuli), CC0; the raw
audio is under the Parliament's legal notice too. SPIRE's continued pre-training has 500 hours of it. As
`python -m voxpopuli.get_asr_data --root ROOT --lang en` leaves it:

    ROOT/transcribed_data/en/asr_test.tsv                   id, raw_text, normalized_text, speaker_id, split, gender
    ROOT/transcribed_data/en/2020/<id>.ogg                  in the folder of the year that the id begins with

Ids are the corpus's. The Parquet version on the Hugging Face hub needs no job of its own: give its folder as CORPUS.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/voxpopuli.py ROOT OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr"]
SPLIT = "test"  # dev, train


def corpus(folder: str) -> str:
    """CORPUS: a split's table."""
    return f"{folder}/transcribed_data/en/asr_{SPLIT}.tsv"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
