"""A stage's fault reaches the user as its one line, though Ray passes on only the text of it."""

import ipaddress
import os
from pathlib import Path

import psutil
import pytest
import ray

from spire_ray.cli import main
from spire_ray.driver import Driver
from spire_ray.errors import MachineFault, UserError
from spire_ray.progress import Progress

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.mark.parametrize("while_loading", [True, False])
@pytest.mark.parametrize("kind", [MachineFault, UserError])
def test_the_fault_of_a_stage(while_loading: bool, kind: type[Exception]) -> None:
    class Stage:  # here, so that it travels to Ray's workers by value
        def __init__(self) -> None:
            if while_loading:
                raise kind("unit 5000 has no token: use another codebook")

        def __call__(self, row: object) -> object:
            raise kind("unit 5000 has no token: use another codebook")

    pool = ray.data.ActorPoolStrategy(size=1)
    dataset = ray.data.from_items([{"shard": 0}]).map_batches(Stage, batch_size=1, num_cpus=0.5, compute=pool)
    with Driver("test") as driver:
        assert driver.cluster.cpus >= 2
        with pytest.raises(kind) as raised:
            driver.run(dataset, Progress("units", 1, 0.0), patience_s=0)
    assert str(raised.value) == "unit 5000 has no token: use another codebook"


def test_ray_on_one_machine_listens_on_loopback_alone() -> None:
    driver = psutil.Process()
    listening = {
        ipaddress.ip_address(connection.laddr.ip.removeprefix("::ffff:"))
        for process in (driver, *driver.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert all(address.is_loopback for address in listening), listening


def test_ray_asks_for_its_token() -> None:
    assert os.environ.get("RAY_AUTH_MODE", "token") == "token"
    assert Path.home().joinpath(".ray", "auth_token").is_file()


def test_a_broken_part_of_the_run_directory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.json").write_text("{")
    assert main(["show", str(tmp_path)]) == 2
    assert "plan.json is damaged" in capsys.readouterr().err
