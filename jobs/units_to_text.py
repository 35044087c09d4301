"""The units of an earlier run to text with another checkpoint, in a run directory of its own.

Copy this file, edit what is in capitals, run or submit it:

python jobs/units_to_text.py OUT OUT2
ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/units_to_text.py s3://results/x s3://results/x-base
"""

import sys

from spire_ray.cli import main

CHECKPOINT = "SpireBase"
LANGUAGES = ["de", "fr"]

if __name__ == "__main__":
    out, out2 = sys.argv[1:3]
    sys.exit(main(["generate", out, "--to", out2, "--checkpoint", CHECKPOINT, "--languages", *LANGUAGES]))
