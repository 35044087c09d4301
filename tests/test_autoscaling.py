"""Ray's own autoscaler, from no node at all: a run gets the nodes it asks for, and they go when it has ended."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import soundfile

import checker
from conftest import RATE, sound
from ray_nodes import RayNodes, ray_nodes

MOST = 3  # nodes of a kind
IDLE_MINUTES = 0.2
# A process of its own: Ray reads once whether there is a token.
NODES = """
import json, sys
import ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="error")
print(json.dumps(ray.nodes()))
"""
# Not in `make test`: nodes are started one after another, which takes minutes on two cores that have other work.
pytestmark = [pytest.mark.timeout(600), pytest.mark.torture]


@dataclass
class Scaled:
    """A cluster that grows, and a job on it whose encoders and engines are arithmetic, on GPUs that are made up."""

    nodes: RayNodes
    folder: Path

    def start(self, shards: int, actors: dict[str, int], seconds: float, *words: str) -> "subprocess.Popen[str]":
        corpus, told = self.folder / "corpus", self.folder / "told"
        corpus.mkdir()
        told.mkdir()
        for index in range(shards):
            soundfile.write(corpus / f"{index}.flac", sound(65.0, index), RATE, subtype="PCM_16")
        script = Path(__file__).with_name("placement.py")
        command = [sys.executable, str(script), str(told), json.dumps(actors), str(seconds)]
        command += [words[0], str(corpus), str(self.folder / "out"), "--checkpoint", "any", *words[1:]]
        command += ["--shard-minutes", "1", "--address", self.nodes.address]
        return subprocess.Popen(command, env=dict(self.nodes.environment), stderr=subprocess.PIPE, text=True)

    def workers(self, alive: bool = True) -> list[tuple[float, float]]:
        """CPUs and GPUs of each node; with `alive` false of those that there were."""
        command = [sys.executable, "-c", NODES, self.nodes.address]
        said = subprocess.run(command, env=dict(self.nodes.environment), capture_output=True, text=True, check=True)
        has = [node["Resources"] for node in json.loads(said.stdout) if node["Alive"] == alive]
        return [(one.get("CPU", 0), one.get("GPU", 0)) for one in has if "node:__internal_head__" not in one]

    def are_given_back(self) -> bool:
        deadline = time.monotonic() + 120
        while (there := self.workers()) and time.monotonic() < deadline:
            time.sleep(2)
        return not there


@pytest.fixture
def scaled(tmp_path: Path) -> Iterator[Scaled]:
    with TemporaryDirectory(prefix="scaled") as folder, ray_nodes(Path(folder), {}) as nodes:
        nodes.start_autoscaler({"gpu": {"CPU": 2, "GPU": 1}, "cpu": {"CPU": 2}}, MOST, IDLE_MINUTES)
        yield Scaled(nodes, tmp_path)


def test_a_run_asks_for_its_gpus_and_gives_them_back(scaled: Scaled) -> None:
    """Two GPUs of at most three, each with two CPUs; and CPUs of another node for the readers that find none there."""
    actors = {"ReadShard": 6, "EncodeUnits": 2, "GenerateText": 2}
    assert scaled.workers() == []
    job = scaled.start(8, actors, 1.0, "speech-to-text", "--languages", "de", "--gpus", "2")
    told = job.communicate(timeout=400)[1]
    assert job.returncode == 0, told
    assert scaled.workers().count((2, 1)) == 2
    assert "of the 2 GPUs that there is work for 0 are there" in told
    for stage, count in actors.items():
        placed = [json.loads(path.read_text()) for path in (scaled.folder / "told").glob(f"{stage}-*.json")]
        assert len(placed) == count, stage
        if stage == "ReadShard":  # by now their own node may have been given back
            assert sum(one["node_gpus"] == 0 for one in placed) >= 2, "there are four CPUs beside the GPUs"
        else:
            assert {(one["node_gpus"], one["gpus"]) for one in placed} == {(1, 1)}
    assert checker.main([str(scaled.folder / "out")]) == 0
    assert scaled.are_given_back()


def test_a_node_that_is_taken_away_is_asked_for_again(scaled: Scaled) -> None:
    job = scaled.start(60, {}, 8.0, "tokenize", "--gpus", "2")
    parts = scaled.folder / "out" / "units"
    deadline = time.monotonic() + 200
    while len(list(parts.glob("part-*"))) < 8 or scaled.workers().count((2, 1)) < 2:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(1)
    scaled.nodes.kill_one_with("GPU")
    told = job.communicate(timeout=400)[1]
    assert job.returncode == 0, told
    assert checker.main([str(scaled.folder / "out")]) == 0
    assert scaled.workers(alive=False)
    assert scaled.workers().count((2, 1)) == 2, "another came in its place"
