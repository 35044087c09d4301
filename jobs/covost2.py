"""CoVoST 2, English, to units, transcripts and translations, with references of both.

Translations of Common Voice 4 (arXiv 2007.10310, github.com/facebookresearch/covost), CC0. SPIRE's instruction tuning
has 90 hours of it. Put the tables that the makers' `get_covost_splits.py` writes into the folder of Common Voice:

    cv-corpus-4-2019-12-10/en/covost_v2.en_de.test.tsv      path, sentence, translation, client_id
    cv-corpus-4-2019-12-10/en/covost_v2.en_zh-CN.test.tsv
    cv-corpus-4-2019-12-10/en/clips/common_voice_en_1.mp3

An utterance's id is its path; those of several tables are one, with a reference from each.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/covost2.py /data/cv-corpus-4-2019-12-10/en OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "zh"]
TABLES = "{de,zh-CN}"  # of more: sv-SE, tr, fa, mn, cy, ca, sl, et, id, ar, ta, lv, ja; of one: de
SPLIT = "test"  # dev, train


def corpus(folder: str) -> str:
    """CORPUS: a split's tables."""
    return f"{folder}/covost_v2.en_{TABLES}.{SPLIT}.tsv"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
