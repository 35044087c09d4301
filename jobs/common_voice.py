"""Common Voice, English, to units, transcripts and translations, with its sentences as references.

How many hours depends on the release (release 25: 28,377 validated hours in all languages); SPIRE has 800 hours with
transcripts and 1,700 with translations by a model. CC0; Mozilla's platform, where releases are fetched, asks not to
host copies of them (see commonvoice.mozilla.org). A language of a release, unpacked, is as it must be:

    cv-corpus-4-2019-12-10/en/test.tsv                      client_id, path, sentence, ...
    cv-corpus-4-2019-12-10/en/clips/common_voice_en_1.mp3

An utterance's id is its path, its speaker the client_id.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/common_voice.py /data/cv-corpus-4-2019-12-10/en OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr"]
SPLIT = "test"  # dev, train, validated


def corpus(folder: str) -> str:
    """CORPUS: a split's table."""
    return f"{folder}/{SPLIT}.tsv"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
