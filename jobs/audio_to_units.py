"""A speech corpus to units alone, with SPIRE's encoder and codebook or your own.

Copy this file, edit what is in capitals, run it or submit it as README says ("On a cluster"):

    python jobs/audio_to_units.py CORPUS OUT
"""

import sys

from spire_ray.cli import main

# Your own: ["--encoder", "/models/hubert", "--layer", "22", "--codebook", "/models/codebook.safetensors"]
ENCODER: list[str] = []

if __name__ == "__main__":
    sys.exit(main(["tokenize", *sys.argv[1:], *ENCODER]))
