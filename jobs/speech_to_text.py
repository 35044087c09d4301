"""A speech corpus to units, transcripts and translations.

Copy this file, edit what is in capitals, run it or submit it as README says ("On a cluster"):

    python jobs/speech_to_text.py CORPUS OUT
"""

import sys

from spire_ray.cli import main

CHECKPOINT = "SpireFull"
LANGUAGES = ["de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh"]

if __name__ == "__main__":
    sys.exit(main(["speech-to-text", *sys.argv[1:], "--checkpoint", CHECKPOINT, "--languages", *LANGUAGES]))
