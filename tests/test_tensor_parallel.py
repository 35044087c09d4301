"""Engines of two GPUs on nodes of one: real vLLM over a placement group of Ray's, its workers on CPUs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest

from ray_nodes import RayNodes, ray_nodes
from spire_ray.checkpoints import TINY_FOLDER
from test_secrets import files
from vllm_plugin import install

CLIPS = TINY_FOLDER / "clips" / "manifest.jsonl"
SPIRE_RAY = str(Path(sys.executable).with_name("spire-ray"))
WORDS = ["--checkpoint", "tiny", "--languages", "de", "fr"]
# Not in `make test`: a Ray of three nodes and engines of three processes take minutes to start on two busy cores.
pytestmark = [pytest.mark.timeout(600), pytest.mark.torture]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips as one engine on this machine hears them."""
    out = tmp_path_factory.mktemp("alone") / "out"
    command = [SPIRE_RAY, "speech-to-text", str(CLIPS), str(out), *WORDS, "--shard-minutes", "0.2"]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    return out


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    plugin = install(tmp_path_factory.mktemp("plugin"))
    with TemporaryDirectory(prefix="split") as folder, ray_nodes(Path(folder), {"PYTHONPATH": plugin}) as nodes:
        nodes.start_head("--num-cpus=1")
        nodes.join("first", cpus=1, gpus=1)
        nodes.join("second", cpus=1, gpus=1)
        yield nodes


def start(alone: Path, out: Path, told: Path, environment: Mapping[str, str], *on: str) -> "subprocess.Popen[str]":
    told.mkdir()
    script = str(Path(__file__).with_name("tensor_parallel.py"))
    command = [sys.executable, script, str(told), "generate", str(alone), "--to", str(out), *WORDS]
    command += ["--tensor-parallel", "2", *on]
    return subprocess.Popen(command, env={**environment}, stderr=subprocess.PIPE, text=True)


def texts(out: Path) -> dict[str, list[dict[str, Any]]]:
    columns = ["utterance_id", "text", "finish_reason", "error"]
    parts = {table: sorted(out.glob(f"{table}/part-*")) for table in ("transcripts", "translations")}
    return {
        table: [row for part in of for row in pq.read_table(part, columns=columns).to_pylist()]
        for table, of in parts.items()
    }


def test_an_engine_of_two_gpus_of_this_machine_writes_what_one_alone_does(alone: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": install(tmp_path / "plugin"), "MADE_UP_GPUS": "2"}
    job = start(alone, tmp_path / "out", tmp_path / "told", environment)
    said = job.communicate(timeout=400)[1]
    assert job.returncode == 0, said
    assert "Warning" not in said
    (engine,) = [json.loads(path.read_text()) for path in (tmp_path / "told").iterdir()]
    assert engine["nodes"] == [engine["node"]] * 2
    assert texts(tmp_path / "out") == texts(alone)


def test_an_engine_of_two_nodes_writes_what_one_alone_does(nodes: RayNodes, alone: Path, tmp_path: Path) -> None:
    job = start(alone, tmp_path / "out", tmp_path / "told", nodes.environment, "--address", nodes.address)
    said = job.communicate(timeout=400)[1]
    assert job.returncode == 0, said
    (engine,) = [json.loads(path.read_text()) for path in (tmp_path / "told").iterdir()]
    assert len(set(engine["nodes"])) == 2
    assert engine["node"] in engine["nodes"]
    made = texts(tmp_path / "out")
    assert made == texts(alone)
    said_aloud = {row["text"].encode() for table in made.values() for row in table if len(row["text"]) > 20}
    assert len(said_aloud) > 50
    for path in files(nodes.folder):
        data = path.read_bytes()
        assert not any(text in data for text in said_aloud), path


def test_an_engine_that_loses_a_node_begins_again_when_another_has_joined(
    nodes: RayNodes, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = start(alone, out, tmp_path / "told", nodes.environment, "--address", nodes.address)
    deadline = time.monotonic() + 300
    while not (before := list(out.glob("transcripts/part-*"))):
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (engine,) = [json.loads(path.read_text()) for path in (tmp_path / "told").iterdir()]
    nodes.kill(next(name for name in ("first", "second") if nodes.id_of(name) != engine["node"]))
    nodes.join("third", cpus=1, gpus=1)
    said = job.communicate(timeout=400)[1]
    assert job.returncode == 0, said
    assert len(before) < len(list(out.glob("transcripts/part-*"))), "the node was lost after the work was done"
    assert len(list((tmp_path / "told").iterdir())) == 2
    assert texts(out) == texts(alone)


def test_an_engine_that_loses_a_node_while_it_starts_begins_again(nodes: RayNodes, alone: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", tmp_path / "told"
    job = start(alone, out, told, nodes.environment, "--address", nodes.address)
    (worker, *_) = workers_of_vllm(nodes, job)
    nodes.kill(worker)
    nodes.join("fourth", cpus=1, gpus=1)
    said = job.communicate(timeout=500)[1]
    assert job.returncode == 0, said
    assert texts(out) == texts(alone)


def workers_of_vllm(nodes: RayNodes, job: "subprocess.Popen[str]") -> list[str]:
    """The nodes on which a worker of an engine has begun, as soon as there are two."""
    deadline = time.monotonic() + 200
    while len(found := [name for name in nodes.raylets if nodes.runs(name, "RayWorkerProc")]) < 2:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found
