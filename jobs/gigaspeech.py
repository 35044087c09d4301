"""GigaSpeech to units, transcripts and translations, with its transcripts as references.

10,000 transcribed hours of audiobooks, podcasts and YouTube (arXiv 2106.06909, github.com/SpeechColab/GigaSpeech),
given out on request and for non-commercial research and education alone: see the terms on the corpus's page
(huggingface.co/datasets/speechcolab/gigaspeech). SPIRE has 9,900 hours of it. Downloaded it is as it must be:

    GigaSpeech/GigaSpeech.json                              recordings and their segments
    GigaSpeech/audio/podcast/P0001/POD0000000018.opus

Ids are the corpus's, offsets are into the recordings. Punctuation tags become marks; <SIL>, <MUSIC>, <NOISE> and
<OTHER> are no references, and the makers advise to leave such utterances out of a score.
A subset is written as a manifest beside GigaSpeech.json, once; without one the folder is read as it is.
Copy this file, edit what is in capitals, run or submit it:

    python jobs/gigaspeech.py /data/GigaSpeech OUT
"""

import json
import sys

from spire_ray.cli import main
from spire_ray.gigaspeech import FILE, records
from spire_ray.locations import locate

SETTINGS = ["--checkpoint", "SpireFull", "--languages", "de", "fr"]
SUBSET = "TEST"  # DEV, XS, S, M, L, XL; "" for all that is there


def corpus(folder: str) -> str:
    """CORPUS: the folder, or a manifest of the subset, written on first use."""
    if not SUBSET:
        return folder
    name = f"GigaSpeech.{SUBSET}.jsonl"
    fs, path = locate(folder)
    if not fs.exists(f"{path}/{name}"):
        partial = f"{path}/.{name}"  # so that half a manifest is never taken for one
        with fs.open(partial, "w", encoding="utf-8") as file:
            for record in records(fs, f"{path}/{FILE}", SUBSET):
                file.write(json.dumps(record.values, ensure_ascii=False) + "\n")
        fs.mv(partial, f"{path}/{name}")
    return f"{folder}/{name}"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(["speech-to-text", corpus(sys.argv[1]), sys.argv[2], *SETTINGS, *sys.argv[3:]]))
