"""A long recording: hours of real speech in one file, cut by `--segment vad` and by `--segment fixed:25`.

Each way is a process of its own, which tells its seconds and the most memory that it has held; and so for a recording
of three minutes, as memory is not to grow with the length.
"""

import json
import os
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spire_ray.recordings import CutRecordings
from spire_ray.segment import Segmentation
from spire_ray.shards import StoreAt
from spire_ray.tables import from_rows
from spire_ray.utterances import PLANNED

HOURS = 3.0
SHORT_HOURS = 0.05
CLIPS = 400  # more than the package has of whole sentences
PAUSES_S = (0.2, 2.5)  # between sentences
RATE = 16_000
PACKAGES = ("soundfile", "onnxruntime", "silero-vad")
COLUMNS = {"name": "", "seconds": "seconds", "rtfx": "RTFx", "pieces": "pieces", "longest": "longest, s"}
COLUMNS |= {"covered": "in pieces", "peak_rss_mb": "peak MB"}


def measure(hours: float, folder: Path) -> dict[str, Any]:
    """Both ways over a short recording and one of `hours` under `folder`."""
    import demo_speech
    from spire_ray.driver import processor  # with it comes Ray, which the stage alone does not load

    sentences = sorted((demo_speech.fetch(folder / "speech", CLIPS).parent / "prompts").glob("*.wav"))
    rows = []
    for length in (SHORT_HOURS, hours):
        recording = folder / f"{length:g}-hours.flac"
        write_recording(recording, sentences, length * 3600)
        for method in ("fixed:25", "vad"):
            told = cut_apart(recording, method)
            rows.append({"name": f"{method}, {length:g} h", "rtfx": round(length * 3600 / told["seconds"]), **told})
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": {"processor": processor(), "cpus": len(os.sched_getaffinity(0)), "gpus": 0},
        "versions": {name: version(name) for name in PACKAGES},
        "rows": rows,
    }


def write_recording(path: Path, sentences: list[Path], seconds: float) -> None:
    """FLAC of 16 kHz: `sentences` (16 kHz, mono) again and again, with pauses between them, until they last."""
    rng = np.random.default_rng(0)
    left = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        while left > 0:
            spoken = soundfile.read(sentences[rng.integers(len(sentences))], dtype="int16")[0]
            # Not digital silence, which is easier than a room.
            room = rng.normal(0, 3, round(rng.uniform(*PAUSES_S) * RATE)).astype(np.int16)
            sound = np.concatenate([spoken, room])[:left]
            file.write(sound)
            left -= len(sound)


def cut_apart(recording: Path, method: str) -> dict[str, Any]:
    """What `cut` tells of it, in a process of its own."""
    command = [sys.executable, __file__, str(recording), method]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return told


def cut(recording: str, method: str) -> dict[str, Any]:
    """Cut a recording into segments by the pipeline's own stage: seconds, pieces, and the most memory held."""
    segmentation = Segmentation.parse(method)
    assert segmentation is not None
    (row,) = from_rows([{"utterance_id": "recording", "audio_uri": recording}], PLANNED).to_pylist()
    stage = CutRecordings(StoreAt(str(Path(recording).parent)), segmentation, {})
    started = time.perf_counter()
    pieces, heard = stage.cut(row)
    took = time.perf_counter() - started
    lengths = [piece["duration_s"] for piece in pieces]
    return {
        "seconds": round(took, 2),
        "pieces": len(pieces),
        "longest": max(lengths),
        "covered": round(sum(lengths) / heard, 4),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    print(json.dumps(cut(*sys.argv[1:])))
