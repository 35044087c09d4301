"""A text corpus to translations.

Copy this file, edit what is in capitals, run or submit it:

    python jobs/translate_text.py TEXT OUT
    ray job submit --address http://HEAD:8265 --working-dir . -- python translate_text.py s3://corpora/de.jsonl s3://results/de-en
"""

import sys

from spire_ray.cli import main

CHECKPOINT = "TowerFull"
SOURCE, LANGUAGES = "de", ["en"]

if __name__ == "__main__":
    settings = ["--from", SOURCE, "--languages", *LANGUAGES, "--checkpoint", CHECKPOINT]
    sys.exit(main(["translate", *sys.argv[1:], *settings]))
