"""Planning at scale: many synthetic utterances to a plan, each size in a process of its own.

First without reading a corpus (rows made in memory are sorted, cut and written), then from a manifest: JSONL in no
order (NeMo's columns and an id). The audio files do not exist, planning opens none of them.
"""

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spire_ray.corpus import open_corpus
from spire_ray.cut import cut
from spire_ray.plan import load_plan, write_plan
from spire_ray.store import Store
from spire_ray.utterances import PLANNED

SIZES = (1_000_000, 10_000_000)
SHARD_MINUTES = 60.0
TEXT = "this is what somebody said in about a dozen words of plain english"
_STEP = 7_368_787  # a prime: number * step % rows goes through all rows in no order


def measure(sizes: Sequence[int], folder: Path) -> dict[str, Any]:
    """Plan a manifest of each of `sizes` under `folder`. Rows as of the other benchmarks, and a figure for 10^8."""
    from spire_ray.driver import processor  # with it comes Ray, which planning alone does not load

    rows = []
    for size in sizes:
        rows.append({"name": f"{size:,} rows", "utterances": size, **_planned(str(size), folder / f"rows-{size}")})
    for size in sizes:
        manifest = folder / f"{size}.jsonl"
        write_manifest(manifest, size)
        told = _planned(str(manifest), folder / f"out-{size}")
        rows.append({"name": f"{size:,} lines of a manifest", "utterances": size, **told})
        manifest.unlink()
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": {"processor": processor(), "cpus": 1, "gpus": 0},
        "versions": {"python": sys.version.split()[0]},
        "rows": rows,
        "hours_for_10_to_the_8": round(rows[-1]["seconds"] / rows[-1]["utterances"] * 1e8 / 3600, 2),
    }


def _planned(corpus: str, out: Path) -> dict[str, Any]:
    told = subprocess.run([sys.executable, __file__, corpus, str(out)], check=True, stdout=subprocess.PIPE).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def synthetic(utterances: int) -> Iterator[pa.Table]:
    """So many rows of PLANNED, 65,536 at a time."""
    for first in range(0, utterances, 65_536):
        at = np.arange(first, min(first + 65_536, utterances), dtype=np.int64)
        numbers = pc.utf8_lpad(pa.array(at * _STEP % utterances).cast(pa.string()), 9, "0")
        speakers = pc.utf8_lpad(pa.array(at * _STEP % utterances // 500).cast(pa.string()), 6, "0")
        columns = {
            "utterance_id": pc.binary_join_element_wise("speaker-", speakers, "/", numbers, ""),
            "audio_uri": pc.binary_join_element_wise("/corpus/", numbers, ".flac", ""),
            "duration_s": pa.array(2 + (at * 7919 % 15_000) / 1000),
            "speaker": speakers,
            "source_language": pa.array(np.full(len(at), "en")),
            "reference": pa.array(np.full(len(at), TEXT)),
        }
        filled = [columns.get(field.name, pa.nulls(len(at), field.type)) for field in PLANNED]
        yield pa.Table.from_arrays(
            [column.cast(kind) for column, kind in zip(filled, PLANNED.types, strict=True)], schema=PLANNED
        )


def write_manifest(path: Path, utterances: int) -> None:
    """JSONL of `utterances` rows, 2 to 17 s each, in no order."""
    random.seed(0)
    with path.open("w") as file:
        for row in range(utterances):
            number = row * _STEP % utterances
            name = f"speaker-{number // 500:06}/{number:09}"
            file.write(
                f'{{"id": "{name}", "audio_filepath": "/corpus/{name}.flac", "duration": {random.uniform(2, 17):.3f},'
                f' "speaker": "{number // 500:06}", "text": "{TEXT}"}}\n'
            )


def plan(corpus: str, out: str) -> dict[str, Any]:
    """Plan a manifest, or a number of rows, into `out`: seconds, rows a second, and the most memory it has held."""
    started = time.perf_counter()
    tables = synthetic(int(corpus)) if corpus.isdecimal() else open_corpus(corpus).tables
    write_plan(Store(out), cut(tables, SHARD_MINUTES), {"corpus": corpus})
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = load_plan(Store(out))
    assert found is not None
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "utterances_per_second": round(found.utterances / seconds),
        "shards": found.shards,
        "peak_rss_mb": round(used.ru_maxrss / 1024),
    }


if __name__ == "__main__":
    print(json.dumps(plan(*sys.argv[1:])))
