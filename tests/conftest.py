"""Shared by tests that run the whole job: a random bundle, a small corpus of sound, and one Ray for all of them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import soundfile
from numpy.typing import NDArray

from bundle import make_bundle
from s3_server import S3Server, s3_server
from spire_ray import resources

__all__ = ["s3_server"]  # a fixture, for whoever asks for it
RATE = 16_000
SECONDS = (0.6, 1.1, 2.3, 0.9, 3.1, 1.7)


def sound(seconds: float, seed: int) -> NDArray[np.int16]:
    """Noise that swells a few times a second, like speech, int16 [seconds * 16000]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (120 + 60 * seed + 80 * np.sin(2 * np.pi * 1.5 * time)) * time)
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * (3 + seed % 3) * time)
    return np.int16(9000 * swell * (tone + 0.3 * rng.standard_normal(len(time))) / 2)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle folder with random weights."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "random")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six sounds in two sub-folders, and one file that is no audio though it is named like one."""
    folder = tmp_path_factory.mktemp("corpus")
    for index, seconds in enumerate(SECONDS):
        path = folder / f"speaker{index % 2}" / f"take-{index}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound(seconds, index), RATE, subtype="PCM_16")
    (folder / "speaker1" / "broken.wav").write_bytes(b"this was never a sound" * 40)
    return folder


@pytest.fixture(scope="session")
def manifest(corpus: Path) -> Path:
    """The same sounds in NeMo's form, with what is said."""
    path = corpus.parent / "manifest.jsonl"
    rows = [
        {"audio_filepath": f"{corpus.name}/speaker{i % 2}/take-{i}.wav", "duration": seconds, "text": f"sound {i}"}
        for i, seconds in enumerate(SECONDS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def local_ray(s3_server: S3Server) -> Iterator[None]:
    """Ray on this machine, as the commands start it; they use the one that runs. Its workers know the S3 server."""
    resources.connect(None)
    yield
    ray.shutdown()


@pytest.fixture
def mended(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus that a test may change."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))
