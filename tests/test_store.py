"""Create-only puts: one winner, whole objects, nothing left behind."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from spire_ray.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on the local disk, and one on a file system that only fsspec knows."""
    return Store(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run")


def test_the_first_put_wins_and_the_second_is_told(store: Store) -> None:
    assert store.create("units/part-00000.parquet", b"first")
    assert not store.create("units/part-00000.parquet", b"second")
    assert store.get("units/part-00000.parquet") == b"first"


def test_replace_is_for_summaries(store: Store) -> None:
    store.replace("run.json", b"1")
    store.replace("run.json", b"2")
    assert store.get("run.json") == b"2"


def test_find_lists_names_and_nothing_of_a_missing_folder(store: Store) -> None:
    assert store.find("units") == []
    store.create("units/b", b"")
    store.create("units/a", b"")
    assert store.find("units") == ["a", "b"]


def test_of_many_writers_exactly_one_wins_and_no_temporary_file_stays(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    payloads = [f"writer {index} ".encode() * 1000 for index in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda data: store.create("table/part", data), payloads))
    assert won.count(True) == 1
    assert (tmp_path / "table" / "part").read_bytes() == payloads[won.index(True)]
    assert [path.name for path in (tmp_path / "table").iterdir()] == ["part"]


def test_a_part_interrupted_while_it_is_written_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / ".tmp-0123").write_bytes(b"half")
    assert Store(str(tmp_path)).find("units") == []


def test_a_listing_shows_what_others_have_committed_since(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}/shared")
    assert store.find("units") == []
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/shared/units/part", b"by another writer")
    assert store.find("units") == ["part"]
