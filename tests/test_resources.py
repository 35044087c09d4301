"""Joining Ray: what a user is told when there is none, or no room for it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import OutOfDiskError, RayError

from spire_ray import resources
from spire_ray.errors import MachineFault
from spire_ray.faults import fault_behind


def test_without_an_address_or_a_cluster_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **settings: object) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(resources.UserError, match=r"no Ray cluster answers at auto: nobody answers"):
        resources.connect("auto")


def test_an_address_where_nobody_listens_is_told_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(resources.UserError, match=r"^no Ray cluster answers at 127.0.0.1:1: .*[Rr]efused"):
        resources.connect("127.0.0.1:1")
    assert capfd.readouterr().err == ""


def test_a_ray_that_does_not_start_is_a_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["The current node timed out during startup.", "Something else."]
    tried = []

    def fail(*words: object, **settings: object) -> None:
        tried.append(words)
        raise Exception(said[len(tried) - 1])

    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(MachineFault, match=r"Ray does not start here: Something else\."):
        resources.connect("auto")
    assert len(tried) == 2
    tried, said = [], said[1:]
    with pytest.raises(MachineFault, match=r"Ray does not start here: Something else\."):
        resources.connect("auto")
    assert len(tried) == 1


def test_ray_is_not_started_where_it_has_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(*words: object, **settings: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("shutil.disk_usage", {tmp_path: SimpleNamespace(free=5 << 20)}.__getitem__)
    for folder in (tmp_path, tmp_path / "not" / "yet"):
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        with pytest.raises(MachineFault, match=f"{folder} has 5 MB free"):
            resources.connect(None)


@pytest.mark.parametrize("error", [OutOfDiskError("x"), RayError("RayTaskError(OutOfDiskError): Local disk is full")])
def test_a_disk_that_ray_has_filled_is_named(error: RayError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/scratch/ray")
    told = fault_behind(error)
    assert isinstance(told, MachineFault)
    assert str(told).startswith("the disk of /scratch/ray,")
