"""What must stay where it is: credentials and what people said are in no log, message or record; the door is shut."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import ray
import soundfile

from conftest import sound
from in_process import run_in_process, small_checkpoint
from spire_ray.cli import main
from spire_ray.shards import StoreAt
from test_interruption import SPIRE_RAY

PASSWORD = "hunter2-4f1b9c"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIA4PLANTEDKEY5XYZW",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+key/0c9f4be1a7d2",
    "AWS_SESSION_TOKEN": "planted-session-token-77ab01",
    "HF_TOKEN": "hf_plantedTokenQmZx81",
}
SAID = "the heron Okonkwo-3391 left before dawn"
TRANSLATED = "der Reiher Okonkwo-3391 ging vor Tagesanbruch"


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@dataclass
class Run:
    out: Path
    said: str  # on both streams
    sessions: Path  # all that Ray wrote


@pytest.fixture(scope="module")
def finished(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A whole run, in a process with planted credentials, over a manifest with planted transcripts and passwords."""
    folder = tmp_path_factory.mktemp("planted")
    soundfile.write(folder / "a.wav", sound(1.5, 0), 16_000)
    soundfile.write(folder / "b.wav", sound(0.9, 1), 16_000)
    rows: list[dict[str, object]] = [
        {"audio": "a.wav", "text": SAID, "translation_de": TRANSLATED, "speaker": "Okonkwo-3391"},
        {"audio": "b.wav", "text": SAID},
        {"audio": "missing.wav", "text": SAID},
        {"audio": f"file://reader:{PASSWORD}@localhost/c.wav", "text": SAID},
        {"audio": f"https://reader:{PASSWORD}@127.0.0.1:9/d.wav", "text": SAID},
    ]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "out"
    # Short: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as sessions:
        command = ["speech-to-text", str(folder / "m.jsonl"), str(out), "--checkpoint", str(bundle)]
        command += ["--languages", "de", "--max-tokens", "24"]
        environment = {**os.environ, **SECRETS, "RAY_TMPDIR": sessions}
        ended = subprocess.run(
            [*SPIRE_RAY, *command], env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert any(files(Path(sessions))), "Ray wrote its session elsewhere: nothing would be looked at"
        yield Run(out, ended.stdout + ended.stderr, Path(sessions))


def places(run: Run, *, tables: bool) -> dict[str, bytes]:
    """Everything that the run wrote or said, by its place; tables only when asked for, but their metadata always."""
    found = {"the terminal": run.said.encode()}
    found |= {str(path): path.read_bytes() for path in files(run.sessions)}
    for path in files(run.out):
        if path.suffix == ".parquet":
            found[f"metadata of {path}"] = repr(pq.read_metadata(path).metadata).encode()
            footer = pq.read_metadata(path)
            found[f"statistics of {path}"] = repr(
                [
                    footer.row_group(group).column(column).statistics
                    for group in range(footer.num_row_groups)
                    for column in range(footer.num_columns)
                    if footer.row_group(group).column(column).path_in_schema not in ("utterance_id", "audio_uri")
                ]
                if tables
                else []
            ).encode()
        if path.suffix != ".parquet" or tables:
            found[str(path)] = path.read_bytes()
    return found


def test_no_credential_is_anywhere(finished: Run) -> None:
    for place, data in places(finished, tables=True).items():
        for name, secret in {**SECRETS, "a password in a URL": PASSWORD}.items():
            assert secret.encode() not in data, f"{name} is in {place}"
    for table in ("plan", "units", "transcripts"):  # compressed on the disk
        rows = repr(pq.read_table(finished.out / table).to_pylist())
        assert PASSWORD not in rows, f"a password is in {table}"
        assert not any(secret in rows for secret in SECRETS.values())


def test_what_was_said_is_in_the_tables_alone(finished: Run) -> None:
    rows = pq.read_table(finished.out / "plan").to_pylist()
    assert SAID in {row["reference"] for row in rows}
    generated = [
        row["text"]
        for table in ("transcripts", "translations")
        for row in pq.read_table(finished.out / table).to_pylist()
        if row["error"] is None and len(row["text"]) > 12
    ]
    assert generated
    for place, data in places(finished, tables=False).items():
        for text in (SAID, TRANSLATED, "Okonkwo-3391", *generated):
            assert text.encode() not in data, f"{text!r} is in {place}"


def test_a_password_in_a_url_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be frozen in plan.json for as long as the tables are kept."""
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))
    url = f"https://reader:{PASSWORD}@127.0.0.1:9"
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus" / "a.wav", sound(1.0, 0), 16_000)
    for command in (
        ["tokenize", f"{url}/m.jsonl", tmp_path / "out", "--checkpoint", "any"],
        ["tokenize", tmp_path / "corpus", f"{url}/out", "--checkpoint", "any"],
        ["translate", f"{url}/lines.txt", tmp_path / "out", "--checkpoint", "any", "--from", "de", "--languages", "en"],
        ["show", f"{url}/out"],
        ["export", f"{url}/out", tmp_path / "file"],
        ["report", f"{url}/out", "--html", tmp_path / "file"],
        ["generate", f"{url}/out", "--checkpoint", "any"],
        ["retry", f"{url}/out"],
    ):
        assert main([str(word) for word in command]) == 2
        said = capsys.readouterr()
        assert PASSWORD not in said.out + said.err
        assert "password" in said.err
        assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    # Nor does the refusal of another corpus on a run that is there repeat it.
    assert main(["tokenize", str(tmp_path / "corpus"), str(tmp_path / "out"), "--checkpoint", "any"]) == 0
    assert main(["tokenize", f"{url}/m.jsonl", str(tmp_path / "out"), "--checkpoint", "any"]) == 2
    assert PASSWORD not in capsys.readouterr().err


def test_storage_options_are_not_shown() -> None:
    """They reach Ray as an argument of the stages, and whatever prints a stage prints its arguments."""
    given = {"key": SECRETS["AWS_ACCESS_KEY_ID"], "secret": SECRETS["AWS_SECRET_ACCESS_KEY"]}
    shown = f"{StoreAt('memory://run', given)!r} {StoreAt('memory://run', given)}"
    assert not any(value in shown for value in given.values())


PROBE = """
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", namespace=None, timeout=10)
except Exception as refusal:
    sys.exit(f"REFUSED {type(refusal).__name__}: {refusal}")
print("ANSWERED")
"""


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("token", ["the right one", "another", "none"])
def test_ray_answers_nobody_without_its_token(token: str, tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    if token == "another":
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    elif token == "none":
        environment |= {"RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    else:
        environment |= {"RAY_AUTH_MODE": "token"}
    probe = [sys.executable, "-c", PROBE, address]
    ended = subprocess.run(probe, env=environment, capture_output=True, text=True, timeout=100, check=False)
    if token == "the right one":
        assert ended.stdout == "ANSWERED\n", ended.stderr
    else:
        assert ended.returncode == 1, ended.stdout
        assert "REFUSED" in ended.stderr
        assert "nauth" in ended.stderr, ended.stderr  # Unauthenticated, UNAUTHENTICATED, unauthorized


@pytest.mark.usefixtures("local_ray")
def test_there_is_no_job_api() -> None:
    """No listener of the session takes a job over HTTP, with or without a token."""
    import http.client

    driver = psutil.Process()
    ports = {
        connection.laddr.port
        for process in (driver, *driver.children(recursive=True))
        if process.name() != "weed"  # the S3 server of other tests takes anything for an object's name
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert ports
    job = json.dumps({"entrypoint": "true"})
    answers = {}
    for port in ports:
        for path in ("/api/jobs/", "/api/job_agent/jobs/"):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                client.request("POST", path, body=job)
                answers[port, path] = client.getresponse().status
            except (OSError, http.client.HTTPException):
                continue  # it does not speak HTTP/1
            finally:
                client.close()
    assert answers, "nothing speaks HTTP: then nothing was asked"
    assert set(answers.values()) <= {401, 403, 404, 405}, answers


def test_no_library_reports_what_was_done(tmp_path: Path) -> None:
    """ONNX Runtime keeps its events under HOME before it sends them; Ray and vLLM are told by their own variables."""
    asks = """if True:
        import os
        import numpy as np
        from spire_ray import resources
        from spire_ray.engine import EngineSettings, set_environment
        from spire_ray.vad import Vad
        Vad().probabilities(np.zeros((4, 512), np.float32))
        set_environment(EngineSettings.for_device("cpu"))
        print(os.environ["RAY_USAGE_STATS_ENABLED"], os.environ["VLLM_NO_USAGE_STATS"])
    """
    names = ("RAY_USAGE_STATS_ENABLED", "VLLM_NO_USAGE_STATS", "ORT_DISABLE_TELEMETRY")
    kept = {name: value for name, value in os.environ.items() if name not in names and not name.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-c", asks], env={**kept, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 1"
    assert not [path for path in files(tmp_path) if "onnx" in str(path).lower()]
