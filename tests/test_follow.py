"""What a driver puts into OUT while it works is what `show --follow` tells a person elsewhere."""

import io
import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.follow import follow
from spire_ray.heartbeat import Heartbeat
from spire_ray.progress import Progress
from spire_ray.store import Store

DRIVER = {"id": "20261122T000000Z-1", "command": "tokenize", "part": "2/3", "host": "node-7"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def beat_of(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.get(f"heartbeat/{DRIVER['id']}.json"))
    return found


def progress(stage: str, shards: int) -> Progress:
    return Progress(stage, shards, total_s=7200.0, stream=io.StringIO())


@pytest.mark.parametrize(
    ("error", "state"), [(None, "done"), (Interrupted("told to"), "stopped"), (MachineFault("disk"), "failed")]
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
        "heartbeat/earlier.json", json.dumps({**DRIVER, "id": "earlier", "state": "failed", "at": 0}).encode()
    )
    stream, begun = io.StringIO(), threading.Event()

    def work() -> None:
        with suppress(MachineFault), Heartbeat(store, DRIVER) as heartbeat:
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


def test_where_nobody_works_there_is_nothing_to_follow(store: Store) -> None:
    with pytest.raises(UserError, match="no driver is at work"):
        follow(store)
