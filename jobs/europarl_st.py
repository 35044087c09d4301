"""Europarl-ST, English, to units, transcripts and translations, with references of both.

Speeches of the European Parliament in six languages and more (arXiv 1911.03167, www.mllp.upv.es/europarl-st; here
version 1.1), CC BY-NC 4.0. SPIRE's instruction tuning has 1,000 hours of it. Its audio is M4A, which is not read:
convert it, here to FLAC, and leave the rest as it is:

    cd v1.1/en/audios && for f in *.m4a; do ffmpeg -i $f -ac 1 -ar 16000 ${f%.m4a}.flac; done

    v1.1/en/audios/en.20080924.31.3-243.flac
    v1.1/en/de/test/segments.lst                            en.20080924.31.3-243 0.0 5.73
    v1.1/en/de/test/segments.en, segments.de                a line for each of segments.lst

An utterance's id is `<recording>#<start>-<end>` in milliseconds; what several directions share is one, with a reference
from each.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/europarl_st.py /data/europarl-st/v1.1 OUT
"""

import sys

from spire_ray.cli import main

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr", "nl", "it", "es", "pt"]
SPLIT = "test"  # dev, train, train-noisy


def corpus(folder: str) -> str:
    """CORPUS: a split's folders, one for each target language."""
    return f"{folder}/en/*/{SPLIT}"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
