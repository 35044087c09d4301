"""COMET in an environment of its own: `PYTHON comet_child.py MODEL`, a line of JSON in, a line of JSON out.

It imports nothing of spire_ray, which is not installed there: unbabel-comet wants other versions of numpy and
transformers than vLLM. A line in: {"segments": [{"src": …, "mt": …, "ref": …}, …]}; the line out: {"scores": […]}.
The first line out says what it is: {"version": …, "model": …}.
"""

import json
import os
import sys
from importlib.metadata import version
from typing import Any

BATCH = 32
CHECKED = (0, 1 / 7, 3 / 7, 6 / 7)  # which segments of a line are scored again, backwards: no mirror of themselves
TOLERANCE = 1e-2  # padding of a batch moves a score by about 1e-4, another segment's by far more


def main() -> None:
    """Answer lines until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Lightning prints to standard output
    from comet import download_model, load_from_checkpoint  # type: ignore[import-not-found,unused-ignore]
    from torch.cuda import device_count

    model = load_from_checkpoint(download_model(sys.argv[1]))
    # One device: several have given scores in another order (github.com/Unbabel/COMET/issues/60).
    gpus = min(1, device_count())
    told = {"version": version("unbabel-comet"), "model": sys.argv[1]}
    print(json.dumps(told), file=answers, flush=True)
    for line in sys.stdin:
        segments = json.loads(line)["segments"]
        scores = _scores(model, segments, gpus)
        _check_order(model, segments, scores, gpus)
        print(json.dumps({"scores": scores}), file=answers, flush=True)


def _scores(model: Any, segments: list[dict[str, str]], gpus: int) -> list[float]:
    found = model.predict(segments, batch_size=BATCH, gpus=gpus, progress_bar=False)
    return [float(score) for score in found.scores]


def _check_order(model: Any, segments: list[dict[str, str]], scores: list[float], gpus: int) -> None:
    if len(scores) != len(segments):
        sys.exit(f"COMET gave {len(scores)} scores for {len(segments)} segments")
    chosen = sorted({int(share * len(segments)) for share in CHECKED}, reverse=True)
    for at, again in zip(chosen, _scores(model, [segments[at] for at in chosen], gpus), strict=True):
        if abs(again - scores[at]) > TOLERANCE:
            sys.exit(f"COMET gave segment {at} of {len(segments)} a score of {scores[at]}, apart from them {again}")


if __name__ == "__main__":
    main()
