import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from spire_ray import external_sort, tables
from spire_ray.cut import cut
from spire_ray.errors import UserError
from spire_ray.external_sort import sorted_by_id
from spire_ray.plan import write_plan
from spire_ray.store import Store
from spire_ray.utterances import PLANNED


@pytest.fixture(autouse=True)
def small_runs(monkeypatch, tmp_path):
    """Runs of a few dozen rows, so that a few thousand are merged from many."""
    monkeypatch.setattr(external_sort, "RUN_BYTES", 2000)
    monkeypatch.setattr(external_sort, "BATCH_ROWS", 7)
    monkeypatch.setattr(external_sort, "BATCHES_MERGED", 3)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def in_pieces(ids, size=50, **columns):
    for start in range(0, len(ids), size):
        rows = [{"utterance_id": one, "audio_uri": f"/a/{one}"} | columns for one in ids[start : start + size]]
        yield tables.from_rows(rows, PLANNED)


def shuffled(count):
    first = ("a", "é", "\U0001f600")
    ids = [f"{first[n % 3]}{n * 7919 % count:06}" for n in range(count)]
    random.Random(0).shuffle(ids)
    return ids


@pytest.mark.parametrize("count", [0, 1, 6, 300, 5000])
def test_as_a_plain_sort(count, small_runs):
    ids = shuffled(count)
    found = list(sorted_by_id(in_pieces(ids)))
    assert [one for table in found for one in table.column("utterance_id").to_pylist()] == sorted(ids, key=str.encode)
    for table in found:
        assert table.column("audio_uri").to_pylist() == [
            f"/a/{one}" for one in table.column("utterance_id").to_pylist()
        ]
    assert list(small_runs.iterdir()) == []


def test_what_is_in_memory_is_a_part_of_it(monkeypatch):
    monkeypatch.setattr(external_sort, "RUN_BYTES", 100_000)
    before = pa.total_allocated_bytes()
    held, sizes, size = [], [], 0
    for table in sorted_by_id(in_pieces(shuffled(20_000), reference="what was said in it " * 10)):
        held.append(pa.total_allocated_bytes() - before)
        sizes.append(table.num_rows)
        size += table.nbytes
        del table
    assert sum(sizes) == 20_000
    assert max(sizes) < 6000
    assert max(held) < size / 4


def test_equal_ids_are_found_across_runs_and_counted_at_the_end():
    ids = [f"{n:05}" for n in range(2000)]
    twice = [*ids, *ids[100:1000:100], *ids[100:300:100]]
    random.Random(1).shuffle(twice)
    seen = []
    with pytest.raises(UserError) as caught:
        seen.extend(table.num_rows for table in sorted_by_id(in_pieces(twice)))
    assert sum(seen) == len(twice)
    assert str(caught.value).startswith("duplicate ids: 20 rows share 9 ids (00100, 00200, 00300, ...);")


def test_the_plan_does_not_depend_on_runs_or_on_the_order_of_rows(tmp_path, monkeypatch):
    ids = shuffled(3000)
    settings = {"corpus": "x"}
    write_plan(Store(str(tmp_path / "many")), cut(in_pieces(ids, duration_s=7.3), 1), settings)
    monkeypatch.setattr(external_sort, "RUN_BYTES", 1 << 30)
    write_plan(Store(str(tmp_path / "one")), cut(in_pieces(sorted(ids), 999, duration_s=7.3), 1), settings)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 2
    for file in files:
        assert (tmp_path / "many" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


def test_nothing_is_written_when_ids_are_not_unique(tmp_path):
    with pytest.raises(UserError, match="duplicate ids: 2 rows share 1 id"):
        write_plan(Store(str(tmp_path / "out")), cut(in_pieces([*shuffled(3000), "a000000"]), 1), {"corpus": "x"})
    assert not Path(tmp_path / "out").exists()


def test_runs_keep_every_column(tmp_path):
    references = [{"language": "de", "text": "ja"}]
    rows = {"byte_offset": 1, "duration_s": 2.5, "references": references, "error": "bad_manifest_row: x"}
    found = pa.concat_tables(sorted_by_id(in_pieces(shuffled(500), **rows)))
    assert found.schema == PLANNED
    assert {name: found.column(name).to_pylist()[321] for name in rows} == rows
