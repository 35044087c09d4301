"""A text corpus to translations.

Copy this file, edit what is in capitals, run it or submit it as README says ("On a cluster"):

    python jobs/translate_text.py TEXT OUT
"""

import sys

from spire_ray.cli import main

CHECKPOINT = "TowerFull"
SOURCE, LANGUAGES = "de", ["en"]

if __name__ == "__main__":
    settings = ["--from", SOURCE, "--languages", *LANGUAGES, "--checkpoint", CHECKPOINT]
    sys.exit(main(["translate", *sys.argv[1:], *settings]))
