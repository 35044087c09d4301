"""The whole job over a real S3 server on a bad day: the same tables, bounded attempts, one line when it ends."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
import soundfile
from botocore.retries.standard import ExponentialBackoff

import fault_proxy
from conftest import sound
from fault_proxy import CLEAR, FaultProxy, Weather
from in_process import run_in_process, small_checkpoint
from s3_server import BUCKET, S3Server
from spire_ray import fetch, locations
from spire_ray.cli import main
from spire_ray.store import Store

KEPT = ("plan", "units", "transcripts", "translations", "plan.json", "units.json", "text.json")
SOUNDS = 10


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Every S3 client made from here on asks it instead of the server."""
    with fault_proxy.before(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def job(proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A folder in S3 with a manifest of sounds, one of which is none; from here on commands run in process."""
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))
    fs, folder = s3fs.S3FileSystem(), f"{BUCKET}/{request.node.name}"
    lines = []
    for n in range(SOUNDS):
        stream = io.BytesIO()
        soundfile.write(stream, sound(1.0, n), 16_000, format="WAV" if n % 2 else "FLAC", subtype="PCM_16")
        fs.pipe_file(f"{folder}/audio/{n}", b"never a sound" * 99 if n == 3 else stream.getvalue())
        lines.append(json.dumps({"audio": f"audio/{n}", "duration": 1.0, "id": f"take {n}"}))
    fs.pipe_file(f"{folder}/m.jsonl", "\n".join(lines).encode())
    return f"s3://{folder}"


def run(job: str, out: str) -> int:
    options = ["--checkpoint", "any", "--languages", "de", "fr", "--shard-minutes", str(2.2 / 60)]
    return main(["speech-to-text", f"{job}/m.jsonl", f"{job}/{out}", *options])


def contents(job: str, out: str) -> dict[str, bytes]:
    """Every object that must be the same whatever the weather was, by its name below OUT."""
    fs, root = s3fs.S3FileSystem(skip_instance_cache=True), f"{job}/{out}".removeprefix("s3://")
    names = {path.removeprefix(f"{root}/"): path for path in fs.find(root)}
    return {name: fs.cat_file(path) for name, path in names.items() if name.partition("/")[0] in KEPT}


def test_bad_weather_changes_nothing(
    proxy: FaultProxy, job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The waits alone are shortened; with those of a real run it takes 45 s.
    monkeypatch.setattr(locations, "FIRST_WAIT_S", 0.1)
    usual_wait = ExponentialBackoff.delay_amount
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: usual_wait(self, context) / 10)
    began = time.monotonic()
    assert run(job, "clear") == 0
    usual = time.monotonic() - began
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.forget()
    # Of the corpus, whole objects alone: of a manifest nobody knows what it was.
    proxy.weather = Weather(
        slow_down=0.20, reset=0.05, truncated=0.05, flipped=0.15, slow=0.05, flips=r"/(audio|foul)/"
    )
    began = time.monotonic()
    assert run(job, "foul") == 0, capsys.readouterr().err
    took = time.monotonic() - began
    proxy.weather = CLEAR
    asked, attempts = list(proxy.asked), proxy.attempts()
    met = [one.fault for one in asked if one.fault]
    print(f"{len(asked)} requests, faults { ({kind: met.count(kind) for kind in set(met)}) }")
    print(f"at most {max(attempts.values())} attempts, {took:.1f} s, {usual:.1f} s without")
    assert contents(job, "foul") == contents(job, "clear")
    assert set(met) == {"slow_down", "reset", "truncated", "flipped", "slow"}
    assert max(attempts.values()) <= 8
    assert not [one for one in asked if one.method == "DELETE"]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a run ends with."""
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("spire-ray: fault: ")
    return last


@pytest.mark.parametrize("when", ["from the first request on", "after the plan"])
def test_expired_credentials_end_the_run_and_are_named(
    when: str, proxy: FaultProxy, job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = Weather(expired=1.0)
    if when == "after the plan":
        decide = proxy.decide

        def expires(method: str, target: str) -> str:
            if method == "PUT" and "/units/" in target:
                proxy.weather = expired
            return decide(method, target)

        monkeypatch.setattr(proxy, "decide", expires)
    else:
        proxy.weather = expired
    began = time.monotonic()
    assert run(job, "out") == 1
    took = time.monotonic() - began
    line = told(capsys)
    assert line.startswith(f"spire-ray: fault: {job}/")
    assert "PutObject: " in line or "HeadObject: " in line or "GetObject: " in line
    assert "PermissionError" in line
    refused = [one for one in proxy.asked if one.fault]
    print(f"{took:.1f} s, {len(refused)} refused requests: {line}")
    assert took < 60
    assert len(refused) <= 8


def test_a_server_that_never_has_time_is_given_up(
    proxy: FaultProxy, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.forget()
    proxy.weather = Weather(slow_down=1.0)
    began = time.monotonic()
    assert run(job, "out") == 1
    took = time.monotonic() - began
    print(f"{took:.1f} s, {len(proxy.asked)} requests: {told(capsys)}")
    assert max(proxy.attempts().values()) <= 8
    assert len(proxy.asked) <= 8
    waited = [later.at - one.at for one, later in zip(proxy.asked, proxy.asked[1:], strict=False)]
    assert sum(waited) > 1.0 * len(waited), "a tight loop"


def test_slow_bodies_are_waited_for(proxy: FaultProxy, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_proxy, "SLOW_S", 0.5)
    store = Store(job)
    store.create("sent", b"slowly " * 1000)
    proxy.weather = Weather(slow=1.0)
    assert store.get("sent") == b"slowly " * 1000
    assert {one.fault for one in proxy.asked[-1:]} == {"slow"}


def test_an_etag_that_is_no_md5_is_found_out(proxy: FaultProxy, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of objects that are encrypted by a key service it has the form of one."""
    monkeypatch.setattr(fetch, "_OTHER_TAGS", set())
    monkeypatch.setattr(locations, "FIRST_WAIT_S", 0.0)
    store = Store(job)
    (piece,) = [fetch.Piece(0, None, None, None, 0, 7000)]
    store.create("sent", b"slowly " * 1000)
    (asked,) = fetch.requests(f"{job}/sent", store.fs, store.path("sent"), [piece], 7000, "0" * 32)
    for expected in (2, 1):
        proxy.forget()
        with asked.fetch() as data:
            assert data == b"slowly " * 1000
        assert len(proxy.asked) == expected
    assert {BUCKET} == fetch._OTHER_TAGS
