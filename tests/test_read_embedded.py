"""Audio bytes inside Parquet to waveforms."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reading import Counted, counted, errors_of, flac, pcm16, planned, samples_of, waveforms
from spire_ray import tables
from spire_ray.corpus import read_corpus
from spire_ray.cut import cut

__all__ = ["counted"]  # a fixture


def embedded(path, values, row_group_size=None, layout="struct"):
    column = pa.array(values, pa.binary())
    if layout == "struct":
        column = pa.array([{"bytes": one, "path": "x.flac"} for one in values])
    table = pa.table({"text": [str(n) for n in range(len(values))], "audio": column})
    pq.write_table(table, path, row_group_size=row_group_size, compression="none")


@pytest.mark.parametrize("layout", ["struct", "binary"])
def test_embedded_audio_comes_from_its_row(tmp_path, layout):
    embedded(tmp_path / "a.parquet", [flac(pcm16(0.2, n)) for n in range(50)], 7, layout)
    embedded(tmp_path / "b.parquet", [flac(pcm16(0.2, 100))], None, layout)
    rows = pa.concat_tables(cut(read_corpus(str(tmp_path)), 60))
    assert rows.num_rows == 51
    for row in waveforms(rows):
        name, _, number = row["utterance_id"].partition("#")
        assert np.array_equal(samples_of(row), pcm16(0.2, int(number) + 100 * (name == "b.parquet")))


def test_pieces_and_faults_of_embedded_audio(tmp_path):
    embedded(tmp_path / "a.parquet", [flac(pcm16(3.0)), None, b"", b"<html>"])
    path = {"audio_uri": str(tmp_path / "a.parquet")}
    rows = planned(
        path | {"row_index": 3},
        path | {"row_index": 0, "start_s": 1.0, "end_s": 2.0},
        path | {"row_index": 1},
        path | {"row_index": 0, "start_s": 0.0, "end_s": 0.5},
        path | {"row_index": 2},
    )
    found = waveforms(rows)
    assert np.array_equal(samples_of(found[1]), pcm16(3.0)[16_000:32_000])
    assert np.array_equal(samples_of(found[3]), pcm16(3.0)[:8_000])
    assert [row["error"] and tables.reason_of(row["error"]) for row in found] == [
        "unreadable", None, "missing", None, "empty",
    ]  # fmt: skip


def test_only_the_row_groups_that_are_needed_are_read(counted, tmp_path, monkeypatch):
    values = [np.random.default_rng(n).bytes(300_000) for n in range(40)]
    values[25] = flac(pcm16(1.0))
    embedded(tmp_path / "a.parquet", values, 2)
    counted.pipe_file("/b/a.parquet", (tmp_path / "a.parquet").read_bytes())
    taken = []
    opened = Counted._open

    def counting(self, path, mode="rb", **kwargs):
        file = opened(self, path, mode, **kwargs)
        inner = file.read
        monkeypatch.setattr(file, "read", lambda n=-1: (taken.append(len(data := inner(n))), data)[1], raising=False)
        return file

    monkeypatch.setattr(Counted, "_open", counting)
    assert errors_of(planned({"audio_uri": "counted://b/a.parquet", "row_index": 25})) == [None]
    assert 0 < sum(taken) < 2_000_000  # of 12 MB


def test_parquet_that_changed_or_broke(tmp_path):
    path = tmp_path / "a.parquet"
    embedded(path, [flac(pcm16(0.5, n)) for n in range(6)], 2)
    rows = pa.concat_tables(cut(read_corpus(str(path)), 60))
    assert errors_of(rows) == [None] * 6
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    assert errors_of(rows) == ["changed_since_plan"] * 6
    found = errors_of(rows, check_etag=False)
    assert found[:2] == [None, None]
    assert "unreadable" in found
    path.write_bytes(b"no Parquet")
    assert errors_of(rows, check_etag=False) == ["unreadable"] * 6
    embedded(path, [flac(pcm16(0.5))])
    assert errors_of(rows, check_etag=False)[-1] == "changed_since_plan"
    path.unlink()
    assert errors_of(rows, check_etag=False) == ["missing"] * 6
