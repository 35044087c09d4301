"""`spire-ray fit-codebook`, with real Ray where it must: the codebook against sklearn's on features of transformers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn.cluster import KMeans
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from conftest import RATE, sound
from spire_ray import fit
from spire_ray.cli import main
from spire_ray.codebook_card import Card, read_card
from spire_ray.fit_iterations import save_iteration
from spire_ray.holders import Holders
from spire_ray.pools import HOLDER_CPUS, Pool
from spire_ray.sampling import Sample, frame_keys

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


@pytest.fixture(scope="module")
def fitted(speech: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A codebook of all frames, by one holder on this machine of two CPUs."""
    target = tmp_path_factory.mktemp("fitted") / "codebook.safetensors"
    assert main(command(speech, target, bundle)) == 0
    return target


@pytest.fixture(scope="module")
def frames(speech: Path, bundle: Path) -> dict[str, NDArray[np.float32]]:
    """Of every utterance its features [T, 64] by transformers."""
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(bundle / "encoder")
    model = HubertModel.from_pretrained(bundle / "encoder").eval()
    features = {}
    for path in sorted(speech.glob("*.wav")):
        samples, rate = soundfile.read(path, dtype="float32")
        values = extractor(samples, sampling_rate=rate, return_tensors="pt").input_values
        with torch.inference_mode():
            features[path.name] = model(values, output_hidden_states=True).hidden_states[LAYER][0].numpy()
    return features


def split(frames: dict[str, NDArray[np.float32]], seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The frames that are trained on, and those held out, when all are taken."""
    sample = Sample.of(seed, 10_000_000, int(sum(LENGTHS) * 50))
    parts = [(part, frame_keys(seed, name, len(part)) < np.uint64(sample.training)) for name, part in frames.items()]
    return np.concatenate([part[kept] for part, kept in parts]), np.concatenate([part[~kept] for part, kept in parts])


def inertia(frames: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    distances = torch.cdist(torch.from_numpy(frames).double(), torch.from_numpy(centroids).double())
    return float(distances.square().amin(dim=1).mean())


def centroids_of(path: Path) -> NDArray[np.float32]:
    return np.asarray(load_file(path)["centroids"])


def card_of(path: Path) -> Card:
    card = read_card(path)
    assert card is not None
    return card


def test_the_codebook_is_as_good_as_sklearns(fitted: Path, frames: dict[str, NDArray[np.float32]]) -> None:
    training, held_out = split(frames)
    theirs = KMeans(CLUSTERS, init="k-means++", n_init=1, random_state=0).fit(training)
    centroids = centroids_of(fitted)
    assert centroids.shape == (CLUSTERS, 64)
    assert inertia(training, centroids) <= 1.02 * inertia(training, theirs.cluster_centers_)
    card = card_of(fitted)
    assert (int(card.frames), int(card.held_out_frames)) == (len(training), len(held_out))
    assert float(card.held_out_inertia) == pytest.approx(inertia(held_out, centroids), rel=1e-3)


def test_the_card_tells_what_it_was_fitted_on(fitted: Path, bundle: Path) -> None:
    card = card_of(fitted)
    told = (card.encoder_name, card.layer, card.final_layer_norm, card.dtype, card.seed, card.mode)
    assert told == (bundle.name, str(LAYER), "none", "float32", "0", "full")
    assert float(card.hours) == pytest.approx(sum(LENGTHS) / 3600, rel=1e-4)
    assert int(card.iterations) == len(list(fitted.parent.glob("*.fit/iteration-*.safetensors")))
    assert card.made_by.startswith("spire_ray 0")
    runs = [json.loads(path.read_text()) for path in fitted.parent.glob("*.fit/runs/*.json")]
    assert [run["stages"]["frames"]["utterances"] for run in runs] == [len(LENGTHS)]
    # No frame lies on the disk: 2,500 of 64 float16 are 320 kB. A file of centroids and counts has 8.5 kB.
    sizes = {path.name: path.stat().st_size for path in fitted.parent.rglob("*") if path.is_file()}
    named = {name for name in sizes if name.startswith("iteration-") or name == fitted.name}
    assert all(sizes[name] < CLUSTERS * (64 * 4 + 8) + 3_000 for name in named)
    assert sum(size for name, size in sizes.items() if name not in named) < 32_000


def test_tokenization_takes_it_for_its_layer_and_no_other(
    fitted: Path, speech: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["tokenize", str(speech), str(out), "--encoder", str(bundle / "encoder"), "--codebook", str(fitted)]
    assert main([*words, "--layer", "2"]) == 2
    assert "was fitted with layer = 3 (its card says), but this run has layer = 2" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "--layer", str(LAYER)]) == 0
    rows = [row for path in (out / "units").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    usage = np.bincount(np.concatenate([np.repeat(row["units"], row["run_lengths"]) for row in rows]))
    assert len(usage) <= CLUSTERS
    assert main(["codebook-report", str(fitted), str(out), "--json", str(tmp_path / "r.json")]) == 0
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["units"]["usage"][: len(usage)] == usage.tolist()
    assert told["units"]["dead"] == CLUSTERS - int((usage > 0).sum())


def test_two_holders_fit_what_one_does(
    fitted: Path,
    speech: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frames: dict[str, NDArray[np.float32]],
) -> None:
    asked: list[Pool] = []

    def two(encoders: Pool) -> Pool:
        asked.append(Pool(2, HOLDER_CPUS, 0, 1))
        return asked[0]

    monkeypatch.setattr(fit, "holder_pool", two)
    target = tmp_path / "codebook.safetensors"
    # Other shards too: neither those nor the actors decide which frames are taken.
    assert main([*command(speech, target, bundle), "--shard-minutes", "0.1"]) == 0
    assert len(asked) == 1
    one, other = card_of(fitted), card_of(target)
    assert (one.frames, one.held_out_frames, one.corpus) == (other.frames, other.held_out_frames, other.corpus)
    assert float(other.inertia) == pytest.approx(float(one.inertia), rel=1e-4)
    every = torch.from_numpy(np.concatenate([*frames.values()]))
    units = [torch.cdist(every, torch.from_numpy(centroids_of(path))).argmin(dim=1) for path in (fitted, target)]
    assert (units[0] == units[1]).float().mean() >= 0.999


def test_another_seed_samples_other_frames_and_fewer_may_be_asked_for(
    fitted: Path, speech: Path, bundle: Path, tmp_path: Path
) -> None:
    target = tmp_path / "codebook.safetensors"
    assert main(command(speech, target, bundle, "--seed", "5", "--frames", "1000")) == 0
    card = card_of(target)
    assert int(card.frames) == pytest.approx(1000, rel=0.1)
    assert not np.allclose(centroids_of(target), centroids_of(fitted))


def test_what_does_not_fit_is_taken_in_rounds_and_said_so(
    fitted: Path, speech: Path, bundle: Path, tmp_path: Path, frames: dict[str, NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(Holders, "capacity", lambda self, dim: 1700)
    target = tmp_path / "codebook.safetensors"
    words = [*command(speech, target, bundle), "--shard-minutes", "0.1"]
    assert main(words) == 0
    assert "mini-batch mode: the devices cannot hold all frames" in capsys.readouterr().err
    frozen = json.loads((tmp_path / "codebook.safetensors.fit" / "fit.json").read_text())["settings"]
    assert (frozen["mode"], frozen["rounds"]) == ("mini-batch", 2)
    card = card_of(target)
    training, _ = split(frames)
    assert (card.mode, card.frames, card.hours) == ("mini-batch, 2 rounds", str(len(training)), card_of(fitted).hours)
    assert inertia(training, centroids_of(target)) <= 1.15 * inertia(training, centroids_of(fitted))


KILLED_AFTER_TWO = """
import os, signal, sys
from spire_ray import fit
from spire_ray.cli import main
save = fit.save_iteration
def save_and_die(store, saved):
    save(store, saved)
    if saved.iteration.number == 2:
        os.killpg(0, signal.SIGKILL)
fit.save_iteration = save_and_die
main(sys.argv[1:])
"""


def test_a_killed_and_a_stopped_fit_end_as_an_unbroken_one(
    fitted: Path, speech: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    target = tmp_path / "codebook.safetensors"
    folder = tmp_path / "codebook.safetensors.fit"
    words = command(speech, target, bundle)
    child = [sys.executable, "-c", KILLED_AFTER_TWO, *words]
    killed = subprocess.run(child, stderr=subprocess.PIPE, text=True, start_new_session=True, timeout=280)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = {path.name: path.read_bytes() for path in folder.glob("iteration-*")}
    assert sorted(saved) == ["iteration-00001.safetensors", "iteration-00002.safetensors"]
    assert not target.exists()

    for other, named in (("--seed", "seed = 0"), ("--frames", "frames = 10000000"), ("--max-seconds", "max_seconds")):
        assert main([*words, other, "50"]) == 2
        assert named in capsys.readouterr().err
    assert main(command(speech, target, bundle, "--clusters", "31")) == 2
    assert "clusters = 32, this run asks for clusters = 31" in capsys.readouterr().err

    def save_and_stop(store: Any, saved: Any) -> None:
        save_iteration(store, saved)
        if saved.iteration.number == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fit, "save_iteration", save_and_stop)
    assert main(words) == 75
    assert "iteration 3 is saved; run the same command again to go on" in capsys.readouterr().err
    assert len(list(folder.glob("iteration-*"))) == 3
    monkeypatch.setattr(fit, "save_iteration", save_iteration)
    assert main(words) == 0
    assert target.read_bytes() == fitted.read_bytes()
    assert saved.items() <= {path.name: path.read_bytes() for path in folder.glob("iteration-*")}.items()


def test_an_end_that_was_not_written_down_is_written_without_encoding_again(
    fitted: Path, speech: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted.read_bytes()
    fitted.unlink()
    monkeypatch.setattr(Holders, "start", None)
    assert main(command(speech, fitted, bundle)) == 0
    assert fitted.read_bytes() == whole
