"""What a driver puts into OUT while it works is what `show --follow` tells a person elsewhere."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from spire_ray import corpus, heartbeat, planning
from spire_ray.cli import main
from spire_ray.corpus import Corpus
from spire_ray.driver import Driver
from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.follow import follow
from spire_ray.heartbeat import Heartbeat
from spire_ray.progress import Progress
from spire_ray.resources import Cluster
from spire_ray.store import Store

DRIVER = {"id": "20261122T000000Z-1", "command": "tokenize", "part": "2/3", "host": "node-7"}
EARLIER = "20261121T235959Z-f"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def beat_of(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.get(f"heartbeat/{DRIVER['id']}.json"))
    return found


def progress(stage: str, shards: int) -> Progress:
    return Progress(stage, shards, total_s=7200.0, stream=io.StringIO())


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "done"),
        (Interrupted("told to"), "stopped"),
        (MachineFault("disk"), "failed"),
        (UserError("no such"), "refused"),
    ],
)
def test_a_driver_says_how_it_ended(store: Store, error: Exception | None, state: str) -> None:
    def work() -> None:
        with Heartbeat(store, DRIVER) as heartbeat:
            heartbeat.tell(progress("segments", 3))
            heartbeat.tell(progress("units", 5))
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            work()
    else:
        work()
    told = beat_of(store)
    assert told["state"] == state
    assert list(told["stages"]) == ["segments", "units"]
    assert told["stages"]["units"]["shards_to_do"] == 5
    assert abs(told["at"] - time.time()) < 60


def test_a_driver_with_nothing_to_do_writes_nothing(store: Store) -> None:
    with Heartbeat(store, DRIVER):
        pass
    assert store.find("heartbeat") == []


def followed(store: Store, error: Exception | None) -> str:
    """What follow prints of a driver that works for half a second, and that another one had failed before."""
    store.replace(
        f"heartbeat/{EARLIER}.json",
        json.dumps({**DRIVER, "id": EARLIER, "part": "1/1", "state": "failed", "at": 0}).encode(),
    )
    stream, begun = io.StringIO(), threading.Event()

    def work() -> None:
        with suppress(MachineFault, Interrupted), Heartbeat(store, DRIVER) as heartbeat:
            heartbeat.tell(progress("segments", 3))
            heartbeat.tell(progress("units", 5))
            while not store.find("heartbeat")[1:]:
                time.sleep(0.01)
            begun.set()
            time.sleep(0.5)
            if error:
                raise error

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert begun.wait(30)
        follow(store, stream, look_every_s=0.05)
    finally:
        thread.join()
    return stream.getvalue()


def test_a_driver_is_followed_to_its_end(store: Store) -> None:
    lines = followed(store, None).splitlines()
    assert lines[0].startswith("node-7 part 2/3  ")
    assert lines[-1].startswith("node-7 part 2/3  units  0.00 of 2.00 h | 0 of 5 shards")
    assert lines[-1].endswith("| done")


def test_the_fault_of_one_that_was_followed_is_told(store: Store) -> None:
    with pytest.raises(MachineFault, match="node-7 stopped on a fault"):
        followed(store, MachineFault("disk"))


def test_one_that_was_stopped_is_to_be_run_again(store: Store) -> None:
    with pytest.raises(Interrupted, match="tokenize on node-7 was stopped"):
        followed(store, Interrupted("told to"))


def test_a_driver_that_was_killed_counts_no_more_once_it_is_started_again(store: Store) -> None:
    killed = {**DRIVER, "id": EARLIER, "state": "running", "at": time.time(), "doing": "", "stages": {}}
    store.replace(f"heartbeat/{EARLIER}.json", json.dumps(killed).encode())
    stream, raised = io.StringIO(), list[BaseException]()

    def watch() -> None:
        try:
            follow(store, stream, look_every_s=0.02)
        except (MachineFault, Interrupted, UserError) as error:
            raised.append(error)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    while "starting" not in stream.getvalue():
        time.sleep(0.01)
    with Heartbeat(store, DRIVER) as heartbeat:
        heartbeat.tell(progress("units", 5))
        while "0 of 5 shards" not in stream.getvalue():
            time.sleep(0.01)
    thread.join(30)
    assert not thread.is_alive()
    assert raised == []
    assert stream.getvalue().rstrip().endswith("| done")


@pytest.mark.parametrize(
    ("state", "raised"), [("done", None), ("failed", MachineFault), ("refused", UserError), ("stopped", Interrupted)]
)
def test_who_comes_late_is_told_how_the_last_ones_ended(
    store: Store, state: str, raised: type[Exception] | None
) -> None:
    told = {**DRIVER, "at": time.time() - 3600, "doing": "", "stages": {}}
    first = "done" if raised is None else "stopped"  # which anything else is worse than
    for id_, part, ended in ((EARLIER, "1/1", "failed"), ("20261122T000000Z-2", "1/3", first), (None, "2/3", state)):
        one = told | {"id": id_ or DRIVER["id"], "part": part, "state": ended}
        store.replace(f"heartbeat/{one['id']}.json", json.dumps(one).encode())
    stream = io.StringIO()
    with pytest.raises(raised, match="on node-7") if raised else nullcontext():
        follow(store, stream)
    assert stream.getvalue().splitlines() == [
        f"node-7 part 2/3  starting | {state}",
        f"node-7 part 1/3  starting | {first}",
    ]


def test_where_nobody_works_there_is_nothing_to_follow(store: Store) -> None:
    with pytest.raises(UserError, match="no driver has worked"):
        follow(store)


def beats(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in (out / "heartbeat").glob("*.json")]


def waited_for(out: Path, doing: str) -> dict[str, Any]:
    """The beat that tells of `doing`."""
    for _ in range(600):
        if found := [beat for beat in beats(out) if beat["doing"] == doing]:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{doing}: {beats(out)}")


def plan_slowly(ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """Plan a manifest that gives no second row before a beat has told of the first. The exit code; what lies in OUT."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    manifest, out = tmp_path / "m.jsonl", tmp_path / "out"
    manifest.write_text("".join(json.dumps({"id": id_, "audio": "a.wav"}) + "\n" for id_ in ids))

    def tables_of(found: Corpus) -> Iterator[pa.Table]:
        rows = pa.concat_tables(found.tables)
        yield rows.slice(0, 1)
        told = waited_for(out, "planning, 1 rows")
        assert told["state"] == "running"
        stream = io.StringIO()
        with pytest.raises(Enough):
            follow(Store(str(out)), Once(stream))
        assert stream.getvalue().endswith("planning, 1 rows\n")
        yield rows.slice(1)

    def slow(*corpus_: Any, **options: Any) -> Corpus:
        found = corpus.open_corpus(*corpus_, **options)
        return Corpus(found.note, tables_of(found))

    monkeypatch.setattr(Driver, "cluster", Cluster(cpus=2, gpus=0, node_cpus=2))  # no Ray
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.05)
    monkeypatch.setattr(planning, "open_corpus", slow)
    return main(["plan", str(manifest), str(out)]), sorted(path.name for path in out.iterdir())


class Enough(Exception):
    pass


class Once(io.TextIOBase):
    """A stream that follow is left by after its first line."""

    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(text)

    def flush(self) -> None:
        raise Enough


def test_a_corpus_that_takes_long_to_plan_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_slowly(["a", "b"], tmp_path, monkeypatch) == (0, ["heartbeat", "plan", "plan.json"])
    assert [(beat["state"], beat["doing"]) for beat in beats(tmp_path / "out")] == [("done", "planning, 2 rows")]


def test_one_that_is_refused_after_long_leaves_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_slowly(["twin", "twin"], tmp_path, monkeypatch) == (2, ["heartbeat"])
    assert [beat["state"] for beat in beats(tmp_path / "out")] == ["refused"]


def test_what_is_refused_at_once_leaves_nothing(store: Store) -> None:
    with pytest.raises(UserError), Heartbeat(store, DRIVER) as beating:  # noqa: PT012 - the block is what is tested
        beating.doing("planning, 8,192 rows")
        raise UserError("duplicate ids")
    assert not Path(store.root).exists()
