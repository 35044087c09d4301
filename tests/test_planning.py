"""Long recordings, with real Ray: what lies in OUT afterwards."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

sys.path.append(str(Path(__file__).parents[1] / "jobs"))
from benchmark_corpus import utterance
from spire_ray.cli import main

pytestmark = pytest.mark.usefixtures("local_ray")
RATE = 16_000


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return [row for path in sorted((out / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def lectures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of 69 s: sentences of 5 s with pauses, and ten minutes of nothing."""
    folder = tmp_path_factory.mktemp("lectures")
    for number in range(2):
        parts = [part for seed in range(11) for part in (utterance(5.0, 20 * number + seed), np.zeros(RATE, np.int16))]
        soundfile.write(folder / f"lecture-{number}.flac", np.concatenate([*parts, np.zeros(3 * RATE, np.int16)]), RATE)
    soundfile.write(folder / "nothing.flac", np.zeros(600 * RATE, np.int16), RATE)
    return folder


def test_recordings_end_as_units_of_their_pieces(lectures: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["tokenize", str(lectures), str(out), "--checkpoint", str(bundle)]
    assert main([*command, "--segment", "vad", "--shard-minutes", "1"]) == 0
    planned, units = rows(out, "plan"), rows(out, "units")
    assert len(list((out / "segments").glob("part-*.parquet"))) > 1
    assert [row["utterance_id"] for row in units] == [row["utterance_id"] for row in planned]
    pieces = [row for row in planned if row["error"] is None]
    assert {row["recording_id"] for row in pieces} == {"lecture-0.flac", "lecture-1.flac"}
    assert [row["error"] for row in units if row["utterance_id"].startswith("nothing")] == [
        "silent: no speech in 600.0 s"
    ]
    by_id = {row["utterance_id"]: row for row in units}
    for piece in pieces:
        made = by_id[piece["utterance_id"]]
        assert made["error"] is None
        assert made["duration_s"] == pytest.approx(piece["end_s"] - piece["start_s"], abs=1e-3)
        assert made["speech_ratio"] == piece["speech_ratio"] > 0.5
    for number in range(2):
        seconds = sum(row["duration_s"] for row in pieces if row["recording_id"] == f"lecture-{number}.flac")
        assert 55 <= seconds <= 70
    before = contents(out)
    assert main(command) == 0
    assert contents(out) == before


def test_a_segmentation_that_was_stopped_goes_on(lectures: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ["--segment", "fixed:25", "--shard-minutes", "1"]
    assert main(["plan", str(lectures), str(whole), *options]) == 0
    assert main(["plan", str(lectures), str(stopped), *options]) == 0
    for path in [stopped / "plan.json", *sorted((stopped / "segments").glob("part-*"))[1:]]:
        path.unlink()
    for path in (stopped / "plan").iterdir():
        path.unlink()
    kept = next((stopped / "segments").glob("part-*")).stat().st_mtime_ns
    assert main(["plan", str(lectures), str(stopped), *options]) == 0
    assert rows(stopped, "plan") == rows(whole, "plan")
    assert min(path.stat().st_mtime_ns for path in (stopped / "segments").glob("part-*")) == kept
    assert min(row["duration_s"] for row in rows(whole, "plan")) > 2
    assert sum(row["duration_s"] for row in rows(whole, "plan")) == pytest.approx(2 * 69 + 600, abs=0.01)
