"""A cluster of three nodes: jobs that are submitted, followed, stopped, gone on with, and that lose a node midway."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import soundfile

import checker
from conftest import RATE, sound
from ray_nodes import RayNodes, ray_nodes
from s3_server import S3Server
from test_secrets import SAID, SECRETS, files

ROOT = Path(__file__).parents[1]
SHARDS = 10
SPIRE_RAY = str(Path(sys.executable).with_name("spire-ray"))
METRICS = {"spire_shards", "spire_utterances", "spire_audio_seconds", "spire_rtfx", "spire_actor_rtfx", "spire_errors"}
TEXT_METRICS = {"spire_prompt_tokens", "spire_cached_tokens", "spire_generated_tokens"}
# In a process of its own: Ray reads once whether there is a token.
STOP = """
import sys, time
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient(sys.argv[1])
client.stop_job(sys.argv[2])
print("asked", flush=True)
while not (info := client.get_job_info(sys.argv[2])).status.is_terminal():
    time.sleep(0.5)
print(info.status.value)
"""
# Not in `make test`: a Ray of three nodes on two cores that have other work takes minutes to start.
pytestmark = [pytest.mark.timeout(600), pytest.mark.torture]


@pytest.fixture(scope="module")
def nodes(s3_server: S3Server) -> Iterator[RayNodes]:
    # Not pytest's folder: the names of Ray's sockets in it would be over the 107 characters that Linux takes.
    with TemporaryDirectory(prefix="nodes") as folder, ray_nodes(Path(folder), s3_server.environment) as nodes:
        nodes.start_head("--num-cpus=1")  # the driver's
        nodes.join("first", cpus=2)
        nodes.join("second", cpus=2)
        yield nodes


@pytest.fixture(scope="module")
def corpus(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two minutes of sound to a shard, and one file that is none, in S3."""
    folder = tmp_path_factory.mktemp("two-minutes")
    for index in range(SHARDS):
        soundfile.write(folder / f"{index}.flac", sound(110.0, index), RATE, subtype="PCM_16")
    (folder / "broken.flac").write_bytes(b"never a sound" * 50)
    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    fs.put(f"{folder}/", f"{s3_server.bucket}/cluster/", recursive=True)
    return f"{s3_server.url}/cluster"


def submit(nodes: RayNodes, *words: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    command = [SPIRE_RAY, "submit", "--address", nodes.dashboard, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env={**nodes.environment, **(environment or {})}
    )


def tokenize(corpus: str, out: str, bundle: Path) -> list[str]:
    return ["tokenize", corpus, out, "--checkpoint", str(bundle), "--shard-minutes", "1"]


def parts(out: str) -> dict[str, bytes]:
    fs = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    found: dict[str, bytes] = fs.cat(f"{out}/units/part-*.parquet") if fs.glob(f"{out}/units/part-*") else {}
    return {key.rpartition("/")[2]: value for key, value in found.items()}


def wait_for_a_part(out: str, job: "subprocess.Popen[str]") -> int:
    # One client for all looks, and not many of them: they take their time from two cores.
    fs = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    deadline = time.monotonic() + 200
    while not (count := len(fs.glob(f"{out}/units/part-*"))):
        assert not job.poll(), job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.25)
    return count


def scraped(nodes: RayNodes) -> dict[str, float]:
    """Our metrics as Prometheus gets them, from all nodes that Ray's own service discovery names."""
    found: dict[str, float] = {}
    discovery = json.loads((nodes.folder / "prom_metrics_service_discovery.json").read_text())
    for target in discovery[0]["targets"]:
        try:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            continue  # a node that is gone
        for name, value in re.findall(r"^ray_(spire_\w+?)(?:_total)?\{[^}]*\} (\S+)$", text, re.MULTILINE):
            found[name] = found.get(name, 0.0) + float(value)
    return found


def test_a_job_that_loses_a_node_ends_with_all_its_rows(
    nodes: RayNodes, corpus: str, bundle: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    out = f"{s3_server.url}/out-lost"
    job = submit(nodes, *tokenize(corpus, out, bundle))
    assert wait_for_a_part(out, job) < SHARDS
    metrics: dict[str, float] = {}
    nodes.kill("second")
    while not metrics.keys() >= METRICS and job.poll() is None:
        metrics |= scraped(nodes)
        time.sleep(1)
    log, told = job.communicate(timeout=400)
    assert job.returncode == 0, log + told
    assert re.search(r"job spire-tokenize-\w+\n  log   RAY_AUTH_MODE=token ray job logs", told)
    assert "11 of 11 shards" in log or f"{SHARDS} of {SHARDS} shards" in log
    assert "1 unreadable" in log
    assert metrics.keys() >= METRICS
    assert 0 < metrics["spire_audio_seconds"] <= SHARDS * 110
    s3fs.S3FileSystem(skip_instance_cache=True).get(out, str(tmp_path / "out"), recursive=True)
    assert checker.main([str(tmp_path / "out")]) == 0


def test_a_stopped_job_is_gone_on_with_by_the_same_command(
    nodes: RayNodes, corpus: str, bundle: Path, s3_server: S3Server
) -> None:
    out = f"{s3_server.url}/out-stopped"
    first = submit(nodes, "--no-wait", *tokenize(corpus, out, bundle))
    told = first.communicate(timeout=100)[1]
    assert first.returncode == 0, told
    (name,) = re.findall(r"^job (\S+)$", told, re.MULTILINE)
    wait_for_a_part(out, first)
    nodes.pause("EncodeUnits")
    follow = subprocess.Popen(
        [SPIRE_RAY, "show", out, "--follow"], stderr=subprocess.PIPE, text=True, env=dict(nodes.environment)
    )
    command = [sys.executable, "-c", STOP, nodes.dashboard, name]
    stop = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(nodes.environment))
    assert stop.stdout
    assert stop.stdout.readline() == "asked\n"
    time.sleep(10)  # Ray's supervisor of the job looks once a second; nothing tells when it has
    nodes.go_on("EncodeUnits")
    assert stop.communicate(timeout=300)[0] == "STOPPED\n"
    assert "units" in follow.communicate(timeout=60)[1]
    assert follow.returncode == 75
    stopped = parts(out)
    assert 0 < len(stopped) < SHARDS

    again = submit(nodes, *tokenize(corpus, out, bundle))
    log, told = again.communicate(timeout=400)
    assert again.returncode == 0, log + told
    whole = parts(out)
    assert whole.items() > stopped.items()
    assert whole == parts(f"{s3_server.url}/out-lost")


def test_a_job_file_is_submitted_by_rays_own_command_and_its_text_is_counted(
    nodes: RayNodes, s3_server: S3Server, tmp_path: Path
) -> None:
    """As README says: a copy of a job file that was edited, its folder sent along, and time to stop in."""
    text = (ROOT / "jobs" / "speech_to_text.py").read_text().replace('"SpireFull"', '"tiny"')
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.py").write_text(text)
    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    fs.put(f"{ROOT}/spire_ray/tiny/clips/", f"{s3_server.bucket}/clips/", recursive=True)
    command = [str(Path(SPIRE_RAY).with_name("ray")), "job", "submit", "--address", nodes.dashboard]
    command += ["--working-dir", str(tmp_path / "work"), "--runtime-env-json", documented("--runtime-env-json")]
    out = f"{s3_server.url}/out-clips"
    command += ["--", "python", "mine.py", f"{s3_server.url}/clips/manifest.jsonl", out, "--shard-minutes", "0.3"]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(nodes.environment)
    )
    metrics: dict[str, float] = {}
    while job.poll() is None and not metrics.keys() >= TEXT_METRICS:
        metrics |= scraped(nodes)
        time.sleep(1)
    log = job.communicate(timeout=400)[0]
    assert job.returncode == 0, log
    assert metrics.keys() >= TEXT_METRICS, metrics
    assert metrics["spire_cached_tokens"] < metrics["spire_prompt_tokens"]
    assert fs.exists(f"{out}/translations/_SUCCESS")
    parts = fs.glob(f"{out}/translations/part-*.parquet")
    rows = pa.concat_tables(pq.read_table(file, filesystem=fs) for file in parts)
    assert len(rows) == 9 * 44
    assert rows["error"].null_count == len(rows)


def documented(option: str) -> str:
    """What README gives for an option."""
    (given,) = set(re.findall(rf"{option} '([^']+)'", (ROOT / "README.md").read_text()))
    return str(given)


def test_the_exit_code_is_the_jobs_and_mistakes_are_found_before(nodes: RayNodes, s3_server: S3Server) -> None:
    job = submit(nodes, "show", f"{s3_server.url}/nothing")
    log, told = job.communicate(timeout=100)
    assert job.returncode == 2, log + told
    assert "has no plan.json" in log
    job = submit(nodes, "show", "some/folder")
    assert "some/folder is relative to this folder" in job.communicate(timeout=100)[1]
    assert job.returncode == 2


def test_neither_secrets_nor_what_was_said_are_in_the_dashboard(nodes: RayNodes, bundle: Path, tmp_path: Path) -> None:
    """The submitter has the secrets in its environment; the job's records, its log and all of Ray's files have not."""
    soundfile.write(tmp_path / "a.wav", sound(1.5, 0), RATE)
    rows = [{"audio": name, "text": SAID} for name in ("a.wav", "missing.wav")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {name: value for name, value in SECRETS.items() if name not in nodes.environment}
    job = submit(nodes, *tokenize(str(tmp_path / "m.jsonl"), str(tmp_path / "out"), bundle), environment=own)
    log, told = job.communicate(timeout=400)
    assert job.returncode == 0, log + told
    (name,) = re.findall(r"^job (\S+)$", told, re.MULTILINE)
    token = Path(nodes.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    found = {"the terminal": (log + told).encode()}
    for place in (
        f"jobs/{name}",
        f"jobs/{name}/logs",
        "v0/actors?detail=1",
        "v0/tasks?detail=1",
        "v0/workers?detail=1",
    ):
        request = urllib.request.Request(f"{nodes.dashboard}/api/{place}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found[place] = answer.read()
    assert name.encode() in found[f"jobs/{name}"]
    assert b"EncodeUnits" in found["v0/actors?detail=1"]
    found |= {str(path): path.read_bytes() for path in files(nodes.folder)}
    for place, data in found.items():
        for secret in (*own.values(), SAID):
            assert secret.encode() not in data, f"{secret!r} is in {place}"


def test_nobody_submits_without_the_token(nodes: RayNodes) -> None:
    request = urllib.request.Request(f"{nodes.dashboard}/api/jobs/", b'{"entrypoint": "true"}', method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)


@pytest.fixture(scope="module")
def gpus(nodes: RayNodes) -> None:
    nodes.join("large", cpus=1, gpus=2, kind="H100")
    nodes.join("small", cpus=1, gpus=1, kind="L4")


# Of each engine: the GPUs of its node, its own, and those of the nodes of its group.
@pytest.mark.parametrize(
    ("tensor_parallel", "engines"), [(1, [(1, ["0"], []), (2, ["0"], []), (2, ["1"], [])]), (2, [(2, [], [2, 2])])]
)
def test_readers_are_where_cpus_are_and_models_where_gpus_are(
    nodes: RayNodes,
    gpus: None,
    corpus: str,
    s3_server: S3Server,
    tmp_path: Path,
    tensor_parallel: int,
    engines: list[tuple[int, list[str], list[int]]],
) -> None:
    """Two encoders on each GPU, of whatever kind; an engine on each, or on two of one node. Readers take the CPUs."""
    out = f"{s3_server.url}/out-placed-{tensor_parallel}"
    script, readers_for = Path(__file__).with_name("placement.py"), {True: 5, False: 3}  # the CPUs that are left
    wanted = {"ReadShard": readers_for["second" in nodes.raylets], "EncodeUnits": 6, "GenerateText": len(engines)}
    words = ["speech-to-text", corpus, out, "--checkpoint", "any", "--languages", "de", "--shard-minutes", "1"]
    words += ["--gpus-per-encoder", "0.5", "--tensor-parallel", str(tensor_parallel), "--address", nodes.address]
    command = [sys.executable, script, tmp_path, json.dumps(wanted), "0", *words]
    done = subprocess.run(
        command, env=dict(nodes.environment), capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    actors = {
        stage: [json.loads(path.read_text()) for path in sorted(tmp_path.glob(f"{stage}-*.json"))] for stage in wanted
    }
    assert {stage: len(each) for stage, each in actors.items()} == wanted
    readers, encoders, placed = actors.values()
    assert {(one["cpus"], one["gpus"]) for one in readers} == {(1, 0)}
    assert {one["node_gpus"] for one in readers} == {0}, "there are as many CPUs on nodes without GPUs"
    assert {(one["cpus"], one["gpus"]) for one in encoders} == {(0, 0.5)}
    places = sorted((one["node_gpus"], one["devices"]) for one in encoders)
    assert places == sorted(2 * [(1, ["0"]), (2, ["0"]), (2, ["1"])])
    assert {(one["cpus"], one["gpus"]) for one in placed} == {(0, 1 if tensor_parallel == 1 else 0)}
    assert sorted((one["node_gpus"], sorted(one["devices"]), one["group"]) for one in placed) == engines
