"""Fits that cannot be: one line, and nothing lost or written over."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from conftest import RATE, sound
from spire_ray import fit
from spire_ray.cli import main
from spire_ray.errors import UserError
from spire_ray.fit_iterations import Saved
from spire_ray.fit_state import Fit, FitOptions
from spire_ray.kmeans import Iteration
from spire_ray.plan import Plan
from spire_ray.progress import Progress
from spire_ray.sampling import Sample
from spire_ray.settings import Features
from spire_ray.store import Store

CLUSTERS = 32
LAYER = 3  # the bundle's
LENGTHS = [4.0 + index % 3 for index in range(10)]
FAST_SHARDS = ["--shard-minutes", "0.3"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 s of sound in ten files."""
    folder = tmp_path_factory.mktemp("speech")
    for index, seconds in enumerate(LENGTHS):
        soundfile.write(folder / f"{index}.wav", sound(seconds, index), RATE, subtype="PCM_16")
    return folder


def command(speech: Path, target: Path, bundle: Path, *more: str) -> list[str]:
    words = ["fit-codebook", str(speech), str(target), "--clusters", str(CLUSTERS), "--checkpoint", str(bundle)]
    return [*words, *FAST_SHARDS, *more]


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """Run a command that must be refused. Returns its last line."""
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_corpus_that_nobody_can_read_gives_no_codebook(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk").mkdir()
    for name in "ab":
        (tmp_path / "junk" / f"{name}.wav").write_bytes(b"this was never a sound" * 900)
    target = tmp_path / "codebook.safetensors"
    line = refused(capsys, command(tmp_path / "junk", target, bundle))
    assert "no readable audio: all 2 utterances have errors (the first: a.wav: unreadable" in line
    assert line.endswith(f"no codebook was made, and {target}.fit, which has the plan alone, may be removed")
    assert not target.exists()
    assert not (tmp_path / "codebook.safetensors.fit" / "fit.json").exists()


class Sampled:
    """Driver and holders after a round of sampling: so many frames, of so much audio."""

    def __init__(self, sizes: tuple[int, int], audio_s: float) -> None:
        self.found, self.audio_s = sizes, audio_s

    def run(self, dataset: None, progress: Progress, patience_s: float) -> None:
        progress.audio_s = self.audio_s
        progress.faults = ["7.wav: missing"]

    def say(self, line: str) -> None:
        pass

    def sizes(self) -> tuple[int, int]:
        return self.found

    def keep(self, *frames: object) -> None:
        pass


@pytest.mark.parametrize(
    ("sizes", "trained_before", "says"),
    [
        ((31, 2), None, r"31 frames were sampled to train on, fewer than --clusters 32; no codebook was made"),
        ((900, 50), 1000, r"the corpus is not what it was: 1000 frames .* mend it \(7.wav: missing\)"),
        ((1000, 50), 1000, None),
        ((32, 0), None, None),
    ],
)
def test_frames_that_do_not_suffice_or_are_others_than_before(
    sizes: tuple[int, int],
    trained_before: int | None,
    says: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spire_ray.pipeline.audio_to_frames", lambda *settings: None)
    none = np.zeros((CLUSTERS, 2), np.float32)
    iteration = Iteration(2, none, np.zeros(CLUSTERS, np.int64), 1.0, 1.0, 0.1, 0, 1.0, 0, done=False)
    saved = None if trained_before is None else Saved(iteration, 1, trained_before, 50, 0.01, 0)
    plan = Plan(1, 1, 1.0, 0, {}, "", (1,), (20.0,))
    there: Any = Sampled(sizes, 20.0)
    options = FitOptions("encoder", "encoder", 3, CLUSTERS)
    features = Features("encoder", 3, "float32", 120.0)
    under_way = Fit(there, Store(str(tmp_path)), options, features, plan, Sample.of(0, 10, 10), 1, saved)
    if says is None:
        assert fit._sample(under_way, 1, plan.without(()), there) == pytest.approx(20 / 3600)
        return
    with pytest.raises(UserError, match=says):
        fit._sample(under_way, 1, plan.without(()), there)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake is found before Ray is started."""

    def connect(address: str | None) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("spire_ray.resources.connect", connect)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # by another test of the session


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--clusters", "1"], "--clusters 1 is not from 2 to 32767"),
        (["--clusters", "-3"], "--clusters -3 is not from 2 to 32767"),
        (["--clusters", "32768"], "--clusters 32768 is not from 2 to 32767"),
        (["--clusters", "5000"], "has about 2450 frames, fewer than --clusters 5000"),
        (["--frames", "31"], "--frames 31 is fewer than --clusters 32"),
        (["--seed", "-1"], "--seed -1 is below 0"),
        (["--layer", "2"], "--checkpoint brings its own encoder and layer"),
        (["--max-seconds", "601"], "--max-seconds 601 is above 600"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line_with_nothing_written(
    speech: Path, bundle: Path, tmp_path: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, command(speech, tmp_path / "c.safetensors", bundle, *more))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_ray")
def test_an_output_that_is_there_or_cannot_be_written(
    speech: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine")
    assert "taken.safetensors exists: name a new file" in refused(capsys, command(speech, taken, bundle))
    assert "cannot be written" in refused(capsys, command(speech, taken / "c.safetensors", bundle))
    assert "name the codebook something.safetensors" in refused(capsys, command(speech, tmp_path / "c.bin", bundle))
    assert "does not exist" in refused(capsys, command(tmp_path / "no", tmp_path / "c.safetensors", bundle))
    assert [path.name for path in tmp_path.iterdir()] == ["taken.safetensors"]
    assert taken.read_text() == "mine"
