import sys
from pathlib import Path

import pytest
import soundfile

sys.path.append(str(Path(__file__).parents[1] / "jobs"))
from benchmark_corpus import RATE, write_corpus
from benchmark_overhead import Bare, rows


def test_the_corpus_is_the_same_each_time_and_as_long_as_asked(tmp_path: Path) -> None:
    lengths = write_corpus(tmp_path / "a", minutes=2)
    assert lengths == write_corpus(tmp_path / "b", minutes=2)
    paths = sorted((tmp_path / "a").rglob("*.flac"))
    heard = [soundfile.info(path) for path in paths]
    assert [each.duration for each in heard] == pytest.approx(lengths)
    assert {(each.samplerate, each.channels, each.subtype) for each in heard} == {(RATE, 1, "PCM_16")}
    assert all(2 <= seconds <= 17 for seconds in lengths)
    assert 120 <= sum(lengths) < 120 + 17
    for path in paths:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_no_two_utterances_sound_alike(tmp_path: Path) -> None:
    write_corpus(tmp_path, minutes=1)
    openings = {soundfile.read(path, dtype="int16", frames=RATE)[0].tobytes() for path in tmp_path.rglob("*.flac")}
    assert len(openings) == len(list(tmp_path.rglob("*.flac")))


def test_each_part_of_the_job_is_compared_with_its_bare_part_and_the_sums_with_each_other() -> None:
    stages = {"units": {"work_seconds": 44.0}, "text": {"work_seconds": 63.0}}
    made = rows(600.0, Bare(40.0, 78.5, 2, {}), Bare(60.0, 110.0, 2, {}), stages)
    assert [(row["name"], row["seconds"], row["rtfx"], row.get("ratio")) for row in made] == [
        ("bare: decode + encode", 40.0, 15.0, None),
        ("bare: generate", 60.0, 10.0, None),
        ("bare: sum", 100.0, 6.0, None),
        ("job: units", 44.0, 13.6, 1.1),
        ("job: text", 63.0, 9.5, 1.05),
        ("job: sum", 107.0, 5.6, 1.07),
    ]
