"""What is decided over all pairs at once, at scale: seconds and memory of `decide` on synthetic measurements.

    python jobs/benchmark_dataset.py 10000000 [FOLDER]

The measurements are made first, in another process: parts of 10,000 pairs with keys at random, of which one in twenty
is that of another pair; speakers with 500 utterances. Then all kinds of duplicates, a draw and the split are decided.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spire_ray.dataset_tables import MEASURED, MEASURED_SCHEMA, put, there
from spire_ray.decide import decide
from spire_ray.dedupe import BAND_NAMES
from spire_ray.funnel import Funnel
from spire_ray.recipe import Recipe
from spire_ray.store import Store

PART = 10_000
LANGUAGES = np.array(["de", "fr", "es", "it"])


def make(folder: str, pairs: int) -> None:
    """The parts of `work/measured`."""
    random = np.random.default_rng(0)
    store = Store(folder)
    for part in range(pairs // PART):
        at = np.arange(part * PART, (part + 1) * PART)
        columns: dict[str, Any] = {
            "utterance_id": pa.array(at).cast(pa.string()),
            "language": pa.array(LANGUAGES[random.integers(len(LANGUAGES), size=PART)]),
            "duration_s": pa.array(random.uniform(2, 17, PART)),
            "recording": pa.array(_mixed(at // 20)),
            "speaker": pa.array(_mixed(at // 500 + pairs)),
            **{name: _keys(random, pairs) for name in ("utterance", "draw", "text_key", "units_key", *BAND_NAMES)},
        }
        filled = [columns.get(field.name, pa.nulls(PART, field.type)) for field in MEASURED_SCHEMA]
        put(store, MEASURED, part, pa.table(filled, names=MEASURED_SCHEMA.names), MEASURED_SCHEMA, "made")


def _keys(random: np.random.Generator, pairs: int) -> pa.Array:
    """One in twenty is drawn from as many as there are pairs, so that some meet."""
    keys = random.integers(0, 2**63, PART).astype(np.uint64)
    few = random.random(PART) < 0.05
    keys[few] = _mixed(random.integers(0, pairs // 20, PART)[few])
    return pa.array(keys)


def _mixed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return np.asarray((numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15), np.uint64)


def measure(folder: str) -> dict[str, Any]:
    """Decide, then count the funnel: seconds, and the most memory this process has held."""
    store = Store(folder)
    shards = len(there(store, MEASURED))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    decide(store, shards, Recipe(dedupe=("units", "text", "near"), per_language=PART * shards // 8, dev=0.01), "made")
    decided = time.perf_counter() - started
    funnel = Funnel.of(store, shards)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "pairs": shards * PART,
        "seconds": round(decided, 1),
        "funnel_seconds": round(time.perf_counter() - started - decided, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_mb": round(used.ru_maxrss / 1024),
        "rss_before_mb": round(before / 1024),
        "funnel": funnel.as_json()[0],
    }


def main(pairs: str, folder: str | None = None) -> None:
    """Both steps, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=folder) as made:
        for step in ("make", "measure"):
            subprocess.run([sys.executable, __file__, f"--{step}", str(Path(made) / "dataset"), pairs], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "--measure":
        print(json.dumps(measure(sys.argv[2]), indent=2))
    else:
        main(*sys.argv[1:])
