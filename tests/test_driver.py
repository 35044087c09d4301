"""A stage's fault reaches the user as its one line, though Ray passes on only the text of it."""

import ipaddress
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import ray
from ray.data import DataContext, Dataset

from spire_ray.cli import main
from spire_ray.driver import Driver
from spire_ray.errors import Interrupted, MachineFault, UserError
from spire_ray.plan import Shard
from spire_ray.pools import Pool
from spire_ray.progress import Progress
from spire_ray.resources import Wanted

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


def run_where_a_gpu_is_waited_for() -> None:
    """A stage whose one actor finds no place: there is no GPU here."""

    class Nothing:
        def __call__(self, row: object) -> object:
            return row

    def dataset_of(shards: Sequence[Shard], pools: Sequence[Pool]) -> Dataset:
        pool = ray.data.ActorPoolStrategy(size=pools[0].size)
        rows = ray.data.from_items([{"shard": shard.index} for shard in shards])
        return rows.map_batches(Nothing, batch_size=1, num_gpus=1, compute=pool)

    shards = [Shard(index=at, attempt=0, utterances=1, seconds=1.0) for at in range(2)]
    with Driver("test", wanted=Wanted(gpus=8)) as driver:
        pools = [Pool(8, num_cpus=0, num_gpus=1)]
        driver.run_shards(shards, lambda there: pools, dataset_of, Progress("units", 2, 2.0), patience_s=0)


def test_a_run_that_waits_for_nodes_ends_at_once_when_it_is_stopped(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    threading.Timer(5, signal.raise_signal, [signal.SIGTERM]).start()
    began = time.monotonic()
    with pytest.raises(Interrupted, match="0 of 2 shards committed in this run"):
        run_where_a_gpu_is_waited_for()
    assert time.monotonic() - began < 60
    assert "of the 2 GPUs that there is work for 0 are there" in capsys.readouterr().err
    assert caplog.text == "", "a stop is no fault"


def test_a_dataset_that_was_made_before_has_the_patience_of_its_stage() -> None:
    class Slow:
        def __call__(self, row: object) -> object:
            time.sleep(6)
            raise MachineFault("it is late")

    pool = ray.data.ActorPoolStrategy(size=1)
    dataset = ray.data.from_items([{"shard": 0}]).map_batches(Slow, batch_size=1, num_cpus=0.5, compute=pool)
    dataset.context.execution_no_progress_timeout_s = 2
    with Driver("test") as driver, pytest.raises(MachineFault, match="it is late"):
        driver.run(dataset, Progress("units", 1, 0.0), patience_s=0)


def test_a_run_whose_nodes_do_not_come_says_what_it_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spire_ray.driver.MIN_PATIENCE_S", 5.0)
    monkeypatch.setattr(DataContext.get_current(), "execution_no_progress_timeout_s", 0)  # as it was, after this test
    with pytest.raises(MachineFault, match=r"^no shard has ended for 0 minutes: `ray status` tells"):
        run_where_a_gpu_is_waited_for()


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
