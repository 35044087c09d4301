"""A codebook of your own: k-means on the features of a speech corpus, with SPIRE's encoder or yours.

Copy this file, edit what is in capitals, run it or submit it as README says ("On a cluster"):

    python jobs/fit_codebook.py CORPUS CODEBOOK.safetensors

A codebook on object storage is not read from there: copy it to a disk before you name it as --codebook.
"""

import sys

from spire_ray.cli import main

CLUSTERS, FRAMES = 5000, 10_000_000
# Your own: ["--encoder", "/models/hubert", "--layer", "22"]
ENCODER: list[str] = []

if __name__ == "__main__":
    sizes = ["--clusters", str(CLUSTERS), "--frames", str(FRAMES)]
    sys.exit(main(["fit-codebook", *sys.argv[1:], *sizes, *ENCODER]))
