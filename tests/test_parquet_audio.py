import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import Tagged, empty_tagged, hugging_face, only, refused, rows_of, write_audio


@pytest.fixture
def tagged():
    return empty_tagged()


def test_the_hugging_face_layout(tmp_path):
    path = hugging_face(
        tmp_path / "data" / "train-0.parquet",
        [{"bytes": b"x", "path": "p.wav"}, {"bytes": None, "path": "q.wav"}],
        text=["said", None],
        duration=[2.5, None],
    )
    a, b = rows_of(tmp_path)
    assert (a["utterance_id"], b["utterance_id"]) == ("data/train-0.parquet#0", "data/train-0.parquet#1")
    assert (a["audio_uri"], a["row_index"], a["byte_size"]) == (str(path), 0, None)
    assert (a["reference"], a["duration_s"], b["row_index"]) == ("said", 2.5, 1)
    assert a["etag"] == f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    assert [row["utterance_id"] for row in rows_of(path)] == ["train-0.parquet#0", "train-0.parquet#1"]


def test_a_binary_audio_column_with_ids(tmp_path):
    table = pa.table({"audio": pa.array([b"x", b"y"], pa.binary()), "id": ["one", None], "start": [1.0, 2.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet")
    assert [row["utterance_id"] for row in rows] == ["one", "a.parquet#1#2000-"]


def test_planning_does_not_read_the_audio_bytes(tagged, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).bytes(1 << 20)
    path = hugging_face(tmp_path / "a.parquet", [{"bytes": noise, "path": None}] * 8, text=["x"] * 8)
    tagged.pipe_file("/bucket/a.parquet", path.read_bytes())
    read = []
    opened = Tagged._open

    def counting(self, path, mode="rb", **kwargs):
        file = opened(self, path, mode, **kwargs)
        inner = file.read
        monkeypatch.setattr(file, "read", lambda n=-1: (read.append(len(data := inner(n))), data)[1], raising=False)
        return file

    monkeypatch.setattr(Tagged, "_open", counting)
    assert len(rows_of("tagged://bucket/a.parquet")) == 8
    assert 0 < sum(read) < 1 << 20


def test_audio_files_beside_parquet(tmp_path):
    write_audio(tmp_path / "a.wav")
    pq.write_table(pa.table({"speaker": ["s"]}), tmp_path / "meta.parquet")
    assert only(tmp_path)["utterance_id"] == "a.wav"
    hugging_face(tmp_path / "data.parquet", [{"bytes": b"x", "path": None}])
    assert "both audio files and Parquet" in refused(tmp_path)
