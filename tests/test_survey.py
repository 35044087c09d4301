"""What `spire-ray plan` says, and what it leaves on the disk."""

import json
from pathlib import Path

import pytest
import soundfile

from conftest import sound
from spire_ray.cli import main
from spire_ray.errors import UserError
from spire_ray.job_part import JobPart
from spire_ray.plan import Shard, load_plan
from spire_ray.resources import Cluster
from spire_ray.store import Store

LENGTHS = [0.5, 3.0, 3.5, 4.0, 12.0, 400.0]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CPUs and no GPU, without asking Ray."""
    monkeypatch.setattr("spire_ray.driver.Driver.cluster", Cluster(cpus=2, gpus=0, node_cpus=2))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "m.jsonl"
    rows: list[dict[str, object]] = [{"audio": f"{n}.flac", "duration": seconds} for n, seconds in enumerate(LENGTHS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"audio": "", "id": "bad"}]))
    return path


def test_a_dry_run_counts_and_writes_nothing(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = ["--rtfx-units", "423", "--rtfx-text", "42.3", "--price-per-hour", "2.5"]
    assert main(["plan", str(manifest), str(tmp_path / "out"), "--dry-run", *rates]) == 0
    said = capsys.readouterr().out
    assert "7 utterances, 0.12 hours, 1 shard\n" in said  # 423 s; 10 minutes without GPUs
    assert "1 cannot be planned" in said
    assert "1 are over 120 s" in said
    assert [line.split()[:4] for line in said.splitlines() if "█" in line] == [
        ["0", "to", "1", "1"],
        ["2", "to", "5", "3"],
        ["10", "to", "15", "1"],
        ["120", "to", "600", "1"],
    ]
    assert "units: 0.00 GPU-hours, 0.00 at 2.5 an hour (RTFx 423.0 per GPU, given)" in said
    assert not (tmp_path / "out").exists()


def test_no_speed_is_invented(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(manifest), str(tmp_path / "out"), "--dry-run", "--rtfx-text", "0.1175"]) == 0
    said = capsys.readouterr().out
    assert "units: needs a measured speed" in said
    assert "text: 1.00 GPU-hours (RTFx 0.1 per GPU, given)" in said


def test_without_dry_run_the_plan_is_there_and_is_told_again(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = []
    for _ in range(2):
        assert main(["plan", str(manifest), str(out)]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "7 utterances, 0.12 hours" in said[0]
    plan = load_plan(Store(str(out)))
    assert plan is not None
    assert (plan.utterances, plan.settings["segment"]) == (7, "none")


def test_the_speed_of_an_earlier_run(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def record(gpus: int, **stages: tuple[float, float]) -> bytes:
        told = {name: {"audio_hours": hours, "work_seconds": work} for name, (hours, work) in stages.items()}
        return json.dumps({"stages": told, "hardware": {"gpus": gpus, "cpus": 16}}).encode()

    earlier = Store(str(tmp_path / "earlier"))
    earlier.create("runs/a.json", record(4, units=(100.0, 90.0), text=(100.0, 900.0)))
    earlier.create("runs/b.json", record(2, units=(50.0, 90.0)))
    assert main(["plan", str(manifest), str(tmp_path / "out"), "--dry-run", "--like", earlier.url]) == 0
    said = capsys.readouterr().out
    assert "(RTFx 1,000.0 per GPU, measured in" in said  # 150 h in 540 GPU seconds
    assert "(RTFx 100.0 per GPU, measured in" in said
    assert main(["plan", str(manifest), str(tmp_path / "out"), "--dry-run", "--like", str(tmp_path / "none")]) == 2
    assert "give --rtfx-units" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--segment", "vad:3"], "give vad, none, or fixed:SECONDS"),
        (["--segment", "fixed:60", "--max-seconds", "30"], "pieces of up to 60 s, but --max-seconds is 30"),
        (["--part", "0/4"], "--part 0/4: give NUMBER/OF"),
        (["--part", "5/4"], "--part 5/4: give NUMBER/OF"),
    ],
)
def test_mistakes(
    options: list[str], said: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(manifest), str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_segmentation_of_the_same_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", sound(1.0, 0), 16_000)
    assert main(["plan", str(tmp_path), str(tmp_path / "out")]) == 0
    assert main(["plan", str(tmp_path), str(tmp_path / "out"), "--segment", "none"]) == 0
    assert main(["plan", str(tmp_path), str(tmp_path / "out"), "--segment", "vad"]) == 2
    assert 'segment = "none", this run asks for segment = "vad"' in capsys.readouterr().err


def test_parts_are_disjoint_and_complete() -> None:
    shards = [Shard(index, 0, 1, 1.0) for index in range(103) if index % 10]  # some are done
    parts = [JobPart(number, 16).own(shards) for number in range(1, 17)]
    assert sorted(shard.index for part in parts for shard in part) == [shard.index for shard in shards]
    assert max(map(len, parts)) - min(map(len, parts)) <= 7
    assert JobPart.parse("1/1").own(shards) == shards
    with pytest.raises(UserError, match="counted from 1"):
        JobPart.parse("1/")
