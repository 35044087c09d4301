"""The units of an earlier run to text with another checkpoint, in a run directory of its own.

Copy this file, edit what is in capitals, run it or submit it as README says ("On a cluster"):

    python jobs/units_to_text.py OUT OUT2
"""

import sys

from spire_ray.cli import main

CHECKPOINT = "SpireBase"
LANGUAGES = ["de", "fr"]

if __name__ == "__main__":
    settings = ["--checkpoint", CHECKPOINT, "--languages", *LANGUAGES]
    sys.exit(main(["generate", *sys.argv[1:2], "--to", *sys.argv[2:], *settings]))
