"""Named checkpoints from a hub that speaks the real one's protocol, on this machine."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.cluster import MiniBatchKMeans
from transformers import HubertModel

from bundle import make_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle")


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as a download takes: a repository is a folder `owner/name`."""

    root: Path
    commit = "c0ffee" * 6 + "1234"
    served: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            folder = self.root / parts[2] / parts[3]
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            names = [path.relative_to(folder).as_posix() for path in files]
            if parts[4] == "revision":
                about = {"id": "/".join(parts[2:4]), "sha": self.commit, "siblings": [{"rfilename": n} for n in names]}
                return self._send(json.dumps(about).encode(), {})
            tree = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": f"oid-{name}"}
                for name, path in zip(names, files, strict=True)
            ]
            return self._send(json.dumps(tree).encode(), {})
        path = self.root.joinpath(*parts[:2], *parts[4:])
        if not path.is_file():
            return self.send_error(404)
        if self.command == "GET":
            self.served.append("/".join([*parts[:2], *parts[4:]]))
        return self._send(path.read_bytes(), {"ETag": f'"{path.name}-1"', "X-Repo-Commit": self.commit})

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Silence."""


@pytest.fixture
def hub(made: Path, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub of this process with tiny stand-ins in the published form: pickles where the originals are pickles."""
    root = tmp_path / "hub"
    shutil.copytree(made / "llm", root / "utter-project" / "SpireFull")
    (root / "utter-project" / "SpireFull" / "pytorch_model.bin").write_bytes(b"never fetched")
    encoder = root / "facebook" / "hubert-large-ll60k"
    encoder.mkdir(parents=True)
    shutil.copy(made / "encoder" / "config.json", encoder)
    torch.save(HubertModel.from_pretrained(made / "encoder").state_dict(), encoder / "pytorch_model.bin")
    (encoder / "tf_model.h5").write_bytes(b"never fetched")
    kmeans = MiniBatchKMeans(5, n_init=1, random_state=0).fit(np.random.default_rng(0).random((50, 4), np.float32))
    (root / "utter-project" / "SpireKMeans").mkdir()
    joblib.dump(kmeans, root / "utter-project" / "SpireKMeans" / "kmeans_model")
    np.save(root / "centers.npy", kmeans.cluster_centers_)
    handler = type("Hub", (_Hub,), {"root": root, "served": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.served
    server.shutdown()
    server.server_close()


RESOLVE = """
import json, sys
from dataclasses import asdict
from spire_ray.checkpoints import resolve
from spire_ray.errors import MachineFault
for asked in sys.argv[1:]:
    name, *need = asked.split()
    try:
        print(json.dumps(asdict(resolve(name, need=need)), default=str))
    except MachineFault as fault:
        print(fault)
"""


def resolve_apart(endpoint: str, home: Path, *asked: str) -> list[str]:
    """What `resolve` gives in a fresh process, where the hub's client reads its endpoint from the environment."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "SPIRE_RAY_CACHE": str(home / "spire")}
    environment |= {
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", RESOLVE, *asked]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_a_named_checkpoint_comes_from_the_hub(hub: tuple[str, list[str]], made: Path, tmp_path: Path) -> None:
    endpoint, served = hub
    (line,) = resolve_apart(endpoint, tmp_path / "home", "SpireFull llm encoder codebook")
    found = json.loads(line)
    assert (found["name"], found["layer"], found["unit_offset"]) == ("SpireFull", 22, 32005)
    assert found["revision"] == _Hub.commit
    llm = Path(found["llm"], "model.safetensors")
    assert llm.read_bytes() == (made / "llm" / "model.safetensors").read_bytes()
    encoder = load_file(Path(found["encoder"]) / "model.safetensors")
    for name, tensor in HubertModel.from_pretrained(made / "encoder").state_dict().items():
        assert torch.equal(encoder[name], tensor)
    centroids = load_file(found["codebook"])["centroids"]
    assert np.array_equal(centroids.numpy(), np.load(tmp_path / "hub" / "centers.npy").astype(np.float32))
    assert "utter-project/SpireFull/pytorch_model.bin" not in served
    assert "facebook/hubert-large-ll60k/tf_model.h5" not in served

    # Once fetched, a machine without network has it.
    (again,) = resolve_apart("http://127.0.0.1:9", tmp_path / "home", "SpireFull llm encoder codebook")
    assert json.loads(again) == found


def test_without_network_the_fault_says_what_to_do(tmp_path: Path) -> None:
    lines = resolve_apart("http://127.0.0.1:9", tmp_path, "SpireFull llm", "SpireFull encoder", "SpireBase codebook")
    for line, repository in zip(lines, ["SpireFull", "hubert-large-ll60k", "SpireKMeans"], strict=True):
        assert f"/{repository} is not cached" in line
        assert "give a folder" in line
