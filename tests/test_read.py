import errno
import io
import json
import os
import threading
import time
from typing import ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from fsspec.implementations.memory import MemoryFileSystem

from spire_ray import fetch, locations, read, tables
from spire_ray.corpus import read_corpus
from spire_ray.cut import cut
from spire_ray.errors import MachineFault, UserError
from spire_ray.read import ReadAudio


def pcm16(seconds, seed=0):
    return np.random.default_rng(seed).integers(-8_000, 8_000, round(seconds * 16_000)).astype(np.int16)


def flac(samples):
    stream = io.BytesIO()
    sf.write(stream, samples, 16_000, format="FLAC")
    return stream.getvalue()


def planned(*rows):
    return tables.from_rows([{"utterance_id": f"u{n}"} | row for n, row in enumerate(rows)], tables.PLAN)


def waveforms(rows, **options):
    table = ReadAudio({}, options.pop("max_seconds", 120.0), **options).read(rows)
    assert table.schema == tables.WAVEFORMS
    assert table.column("utterance_id").to_pylist() == rows.column("utterance_id").to_pylist()
    return table.to_pylist()


def samples_of(row):
    assert row["error"] is None
    assert row["duration_s"] == len(row["pcm"]) / 32_000
    return np.frombuffer(row["pcm"], "<i2")


def errors_of(rows, **options):
    found = waveforms(rows, **options)
    assert all((row["pcm"] is None) == (row["error"] is not None) for row in found)
    assert all(row["duration_s"] is None for row in found if row["error"])
    return [row["error"] and tables.reason_of(row["error"]) for row in found]


class Counted(MemoryFileSystem):
    """A file system that counts what is fetched and fails when told to."""

    protocol = ("counted",)
    store: ClassVar[dict] = {}
    fetched: ClassVar[list] = []
    faults: ClassVar[list] = []
    running = 0
    most = 0
    lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("counted:/"))

    def unstrip_protocol(self, name):
        return f"counted:/{name}"

    def info(self, path, **kwargs):
        info = super().info(path, **kwargs)
        return info | ({"ETag": f'"{hash(self.store[info["name"]].getvalue())}"'} if info["type"] == "file" else {})

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **kwargs):
        found = super().find(path, maxdepth, withdirs, detail=True, **kwargs)
        return {name: self.info(name) for name in found} if detail else list(found)

    def cat_file(self, path, start=None, end=None, **kwargs):
        with self.lock:
            Counted.fetched.append(path)
            Counted.running += 1
            Counted.most = max(Counted.most, Counted.running)
            fault = Counted.faults.pop(0) if Counted.faults else None
        try:
            time.sleep(0.01)
            if fault is not None:
                raise fault
            return super().cat_file(path, start, end, **kwargs)
        finally:
            with self.lock:
                Counted.running -= 1


@pytest.fixture
def counted(monkeypatch):
    fsspec.register_implementation("counted", Counted, clobber=True)
    for state in (Counted.store, Counted.fetched, Counted.faults):
        state.clear()
    Counted.most = 0
    monkeypatch.setattr(locations, "FIRST_WAIT_S", 0.001)
    return Counted()


def test_files_come_back_whole_and_in_order(tmp_path):
    for n in range(20):
        (tmp_path / f"{n:02}.flac").write_bytes(flac(pcm16(0.5 + n / 10, n)))
    rows = pa.concat_tables(cut(read_corpus(str(tmp_path)), 60))
    for n, row in enumerate(waveforms(rows)):
        assert np.array_equal(samples_of(row), pcm16(0.5 + n / 10, n))


def test_as_a_stage(tmp_path):
    (tmp_path / "a.wav").write_bytes(flac(pcm16(1.0)))
    row = tables.nest(7, 2, utterances=planned({"audio_uri": str(tmp_path / "a.wav"), "speech_ratio": 0.5}))
    made = ReadAudio({}, 120.0)(row)
    assert (made["shard"].to_pylist(), made["attempt"].to_pylist()) == ([7], [2])
    (row,) = tables.unnest(made, "utterances", tables.WAVEFORMS).to_pylist()
    assert np.array_equal(samples_of(row), pcm16(1.0))
    assert row["speech_ratio"] == 0.5


def test_no_rows():
    assert waveforms(planned()) == []


def test_pieces_of_a_file_fetch_it_once(counted):
    counted.pipe_file("/b/long.flac", flac(pcm16(10.0)))
    spans = [(0.0, 1.0), (8.25, 9.5), (2.0, None), (None, 3.0), (9.0, 20.0)]
    rows = planned(*({"audio_uri": "counted://b/long.flac", "start_s": s, "end_s": e} for s, e in spans))
    found = waveforms(rows, max_seconds=8.0)
    for (start, end), row in zip(spans[:4], found, strict=False):
        expected = pcm16(10.0)[int((start or 0) * 16_000) : None if end is None else int(end * 16_000)]
        assert np.array_equal(samples_of(row), expected)
    assert tables.reason_of(found[4]["error"]) == "too_long"
    assert Counted.fetched == ["/b/long.flac"]


def test_each_fault_is_a_row_with_its_reason(tmp_path, monkeypatch):
    def audio(name, samples, **options):
        sf.write(tmp_path / name, samples, options.pop("rate", 16_000), **options)
        return {"audio_uri": str(tmp_path / name)}

    def file(name, data):
        (tmp_path / name).write_bytes(data)
        return {"audio_uri": str(tmp_path / name)}

    whole = flac(pcm16(2.0))
    nan = np.full(16_000, np.nan, np.float32)
    cases = [
        (audio("good.wav", pcm16(1.0)), None),
        ({"audio_uri": str(tmp_path / "nowhere.wav")}, "missing"),
        ({"audio_uri": str(tmp_path / "good.wav" / "below")}, "missing"),
        ({"audio_uri": str(tmp_path)}, "missing"),
        ({"audio_uri": str(tmp_path / ("x" * 300))}, "missing"),
        (file("page.wav", b"<html>"), "unreadable"),
        (file("zero.wav", b""), "empty"),
        (audio("short.wav", pcm16(0.02)), "too_short"),
        (audio("long.wav", pcm16(3.0)), "too_long"),
        (audio("wide.wav", np.zeros((100, 40))), "too_large"),
        (file("cut.flac", whole[: len(whole) // 2]), "truncated"),
        (audio("nan.wav", nan, subtype="FLOAT"), "not_finite"),
        (audio("silent.wav", np.zeros(16_000)), "silent"),
        ({"error": "bad_manifest_row: line 3"}, "bad_manifest_row"),
        (audio("changed.wav", pcm16(1.0)) | {"etag": "1-1"}, "changed_since_plan"),
    ]
    rows = planned(*(row for row, _ in cases))
    assert errors_of(rows, max_seconds=2.5) == [reason for _, reason in cases]
    assert errors_of(rows, max_seconds=2.5, check_etag=False)[-1] is None
    assert waveforms(rows)[13]["error"] == "bad_manifest_row: line 3"
    monkeypatch.setattr(fetch, "MAX_OBJECT_BYTES", 1_000)
    assert errors_of(rows.slice(0, 1)) == ["too_large"]


def test_a_file_changed_since_the_plan(tmp_path, counted):
    (tmp_path / "a.flac").write_bytes(flac(pcm16(1.0)))
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    for corpus in (str(tmp_path), "counted://b"):
        rows = pa.concat_tables(cut(read_corpus(corpus), 60))
        assert errors_of(rows) == [None]
        if corpus == str(tmp_path):
            os.utime(tmp_path / "a.flac", ns=(1, 1))
        else:
            counted.pipe_file("/b/a.flac", flac(pcm16(2.0)))
        assert errors_of(rows) == ["changed_since_plan"]
        assert errors_of(rows, check_etag=False) == [None]


def test_faults_that_pass_are_tried_again(counted):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [OSError(errno.EBUSY, "slow down"), TimeoutError(), ConnectionResetError(), OSError("?")]
    assert errors_of(planned({"audio_uri": "counted://b/a.flac"})) == [None]
    assert len(Counted.fetched) == 5


def test_faults_that_stay_stop_the_run_and_name_the_file(counted):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [OSError(errno.EIO, "broken")] * 9
    with pytest.raises(MachineFault, match=r"counted://b/a.flac.*broken"):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))
    assert len(Counted.fetched) == 8


def no_credentials():
    from botocore.exceptions import NoCredentialsError

    return NoCredentialsError()


@pytest.mark.parametrize("fault", [PermissionError(errno.EACCES, "denied"), no_credentials()])
def test_refused_access_stops_the_run_at_once(counted, fault):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [fault]
    with pytest.raises(MachineFault, match=r"counted://b/a.flac"):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))
    assert len(Counted.fetched) == 1


def test_an_endpoint_that_botocore_has_not_reached_is_tried_once_more(counted):
    from botocore.exceptions import EndpointConnectionError

    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [EndpointConnectionError(endpoint_url="http://x")]
    assert errors_of(planned({"audio_uri": "counted://b/a.flac"})) == [None]
    Counted.faults[:] = [EndpointConnectionError(endpoint_url="http://x")] * 4
    with pytest.raises(MachineFault, match="EndpointConnectionError"):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))
    assert len(Counted.faults) == 2


def test_faults_of_the_program_are_not_hidden(counted):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))


def test_several_objects_at_a_time_but_few_bytes(counted, monkeypatch):
    size = len(flac(pcm16(1.0)))
    for n in range(24):
        counted.pipe_file(f"/b/{n:02}.flac", flac(pcm16(1.0)))
    rows = planned(*({"audio_uri": f"counted://b/{n:02}.flac"} for n in range(24)))
    assert errors_of(rows) == [None] * 24
    assert 2 < Counted.most <= 16
    for room, most in ((2 * size + 9, 2), (size // 2, 1)):
        Counted.most = 0
        monkeypatch.setattr(read, "IN_FLIGHT_BYTES", room)
        assert errors_of(rows) == [None] * 24
        assert Counted.most == most


# Parquet with audio bytes


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


def test_a_corpus_from_manifest_to_waveforms(tmp_path):
    (tmp_path / "wav").mkdir()
    sf.write(tmp_path / "wav" / "a.flac", pcm16(4.0), 16_000)
    lines = [
        {"audio_filepath": "wav/a.flac", "offset": 1.0, "duration": 1.5},
        {"audio_filepath": "wav/b.flac"},
        {"text": "x"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    rows = waveforms(pa.concat_tables(cut(read_corpus(str(tmp_path / "m.jsonl")), 60)))
    by_id = {row["utterance_id"]: row for row in rows}
    assert np.array_equal(samples_of(by_id["wav/a.flac#1000-2500"]), pcm16(4.0)[16_000:40_000])
    assert by_id["wav/b.flac"]["error"].startswith("missing: ")
    assert by_id["row-2"]["error"].startswith("bad_manifest_row: line 3")


def test_a_text_plan_is_refused():
    with pytest.raises(UserError, match="text corpus"):
        waveforms(planned({"text": "no audio"}))
