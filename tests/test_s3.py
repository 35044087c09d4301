"""The run directory and the reading of audio on a real S3 server, by the real s3fs."""

import io
import json
import logging
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import soundfile as sf
from numpy.typing import NDArray

from conftest import sound
from s3_server import S3Server
from spire_ray import fetch, locations, tables
from spire_ray.errors import MachineFault, UserError
from spire_ray.read import ReadAudio
from spire_ray.store import Store

Row = dict[str, Any]


@pytest.fixture
def store(s3_server: S3Server, request: pytest.FixtureRequest) -> Store:
    return Store(f"{s3_server.url}/{request.node.name}")


@pytest.fixture
def elsewhere(s3_server: S3Server) -> s3fs.S3FileSystem:
    """Another writer's view of the bucket."""
    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every request to S3 by its method and range."""
    made: list[tuple[str, str]] = []
    call = s3fs.S3FileSystem._call_s3

    async def counting(self: s3fs.S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
        made.append((method, kwargs.get("Range", "")))
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counting)
    return made


# The run directory


def test_the_first_put_wins_and_the_second_is_told(store: Store) -> None:
    assert store.create("units/part-00000.parquet", b"first")
    assert not store.create("units/part-00000.parquet", b"second")
    assert store.get("units/part-00000.parquet") == b"first"
    store.replace("run.json", b"1")
    store.replace("run.json", b"2")
    assert store.get("run.json") == b"2"
    assert store.get("units/part-00000.parquet") == b"first"


def test_of_many_writers_exactly_one_wins(store: Store) -> None:
    payloads = [f"writer {index} ".encode() * 1000 for index in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda data: store.create("units/part", data), payloads))
    assert won.count(True) == 1
    assert store.get("units/part") == payloads[won.index(True)]
    assert store.find("units") == ["part"]


def test_a_part_too_large_for_one_request_is_put_create_only_as_well(store: Store) -> None:
    first = np.random.default_rng(0).bytes(101 << 20)  # s3fs takes a multipart upload from 100 MiB
    assert store.create("units/part", first)
    assert not store.create("units/part", bytes(101 << 20))
    assert store.get("units/part") == first


def test_a_listing_is_whole_over_pages_and_fresh(store: Store, elsewhere: s3fs.S3FileSystem) -> None:
    assert store.find("units") == []
    names = [f"part-{number:05}.parquet" for number in range(2500)]  # a page has 1000
    elsewhere.pipe({store.path(f"units/{name}"): b"" for name in names})
    assert store.find("units") == names
    elsewhere.pipe_file(store.path("units/later"), b"by another writer")
    assert store.find("units") == ["later", *names]


def test_a_folder_made_in_a_console_is_no_part(store: Store, elsewhere: s3fs.S3FileSystem) -> None:
    elsewhere.touch(store.path("units/"))
    store.create("units/a", b"")
    store.create("strikes/deeper/b", b"")
    assert store.find("units") == ["a"]
    assert store.find("strikes") == ["deeper"]


def test_what_is_not_there_is_told_from_what_is_refused(
    s3_server: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(FileNotFoundError):
        store.get("never")
    for put in (store.create, store.replace):
        with pytest.raises(UserError, match=r"s3://no-such-bucket/run cannot be written: .*bucket"):
            getattr(Store("s3://no-such-bucket/run"), put.__name__)("a", b"")
    assert Store("s3://no-such-bucket/run").find("units") == []
    store.create("there", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-hush")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        refused = Store(store.url)
        caplog.clear()
        actions: list[Callable[[], object]] = [
            lambda: refused.get("there"),
            lambda: refused.find("units"),
            lambda: refused.create("new", b""),
            lambda: waveforms({"audio_uri": f"{store.url}/there"}),
        ]
        for action in actions:
            with pytest.raises(MachineFault, match=f"{store.url}.*PermissionError") as told:
                action()
            assert "hush" not in str(told.value) + str(told.value.__cause__)
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("spire_ray")]
        assert not any("hush" in message for message in ours)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_no_credentials_at_all_stop_at_once_with_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(locations, "ATTEMPTS", 1)
    try:
        with pytest.raises(MachineFault, match="Unable to locate credentials"):
            Store(store.url).get("a")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


# Reading audio


def flac(samples: NDArray[np.int16]) -> bytes:
    stream = io.BytesIO()
    sf.write(stream, samples, 16_000, format="FLAC")
    return stream.getvalue()


def planned(*rows: Row) -> pa.Table:
    return tables.from_rows([{"utterance_id": f"u{n:03}"} | row for n, row in enumerate(rows)], tables.PLAN)


def waveforms(*rows: Row, **options: Any) -> list[Row]:
    made: list[Row] = ReadAudio({}, 120.0, **options).read(planned(*rows)).to_pylist()
    return made


SOUNDS = [sound(0.3 + 0.02 * n, n) for n in range(40)]


def tar_of(sounds: list[NDArray[np.int16]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for n, samples in enumerate(sounds):
            for name, data in ((f"{n:03}.flac", flac(samples)), (f"{n:03}.json", json.dumps({"n": n}).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tar_rows(uri: str, data: bytes, etag: str | None = None) -> list[Row]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [member for member in tar if member.name.endswith(".flac")]
    return [
        {"audio_uri": uri, "byte_offset": member.offset_data, "byte_size": member.size, "etag": etag}
        for member in members
    ]


def parquet_of(sounds: list[NDArray[np.int16]]) -> bytes:
    sink = pa.BufferOutputStream()
    audio = pa.array([{"bytes": flac(samples), "path": None} for samples in sounds])
    pq.write_table(pa.table({"audio": audio}), sink, row_group_size=7)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@pytest.fixture(params=["files", "tar", "parquet"])
def layout(request: pytest.FixtureRequest) -> tuple[dict[str, bytes], Callable[[str], list[Row]]]:
    """What lies in a folder, and the rows that a plan has for it."""
    files: dict[str, bytes] = {f"{n:03}.flac": flac(samples) for n, samples in enumerate(SOUNDS)}
    rows: Callable[[str], list[Row]] = lambda root: [{"audio_uri": f"{root}/{name}"} for name in files]  # noqa: E731
    if request.param == "tar":
        files = {"a.tar": tar_of(SOUNDS)}
        rows = lambda root: tar_rows(f"{root}/a.tar", files["a.tar"])  # noqa: E731
    if request.param == "parquet":
        files = {"a.parquet": parquet_of(SOUNDS)}
        rows = lambda root: [{"audio_uri": f"{root}/a.parquet", "row_index": n} for n in range(len(SOUNDS))]  # noqa: E731
    return files, rows


def test_what_comes_from_s3_is_what_comes_from_a_disk(
    layout: tuple[dict[str, bytes], Callable[[str], list[Row]]],
    s3_server: S3Server,
    tmp_path: Any,
    elsewhere: s3fs.S3FileSystem,
    request: pytest.FixtureRequest,
) -> None:
    files, rows = layout
    root = f"{s3_server.url}/{request.node.name}"
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        elsewhere.pipe_file(f"{root}/{name}", data)
    there = waveforms(*rows(root))
    assert there == waveforms(*rows(str(tmp_path)))
    for row, samples in zip(there, SOUNDS, strict=True):
        assert np.array_equal(np.frombuffer(row["pcm"], "<i2"), samples)


def test_a_tar_is_read_by_few_ranged_requests(store: Store, calls: list[tuple[str, str]]) -> None:
    data = tar_of(SOUNDS)
    store.create("a.tar", data)
    etag = store.fs.info(store.path("a.tar"))["ETag"].strip('"')
    rows = tar_rows(f"{store.url}/a.tar", data, etag)
    calls.clear()
    half = waveforms(*rows[20:])
    assert [row["error"] for row in half] == [None] * 20
    last = rows[-1]["byte_offset"] + rows[-1]["byte_size"] - 1
    assert calls == [("head_object", ""), ("get_object", f"bytes={rows[20]['byte_offset']}-{last}")]


def test_a_tar_that_changed_is_never_read_at_the_old_places(store: Store) -> None:
    uri, data = f"{store.url}/a.tar", tar_of(SOUNDS)
    store.replace("a.tar", data)
    etag = store.fs.info(store.path("a.tar"))["ETag"].strip('"')
    rows = tar_rows(uri, data, etag)
    assert {row["error"] for row in waveforms(*rows)} == {None}
    store.replace("a.tar", tar_of(SOUNDS[::-1]))
    for check in (True, False):
        assert {tables.reason_of(row["error"]) for row in waveforms(*rows, check_etag=check)} == {"changed_since_plan"}
    # Without an ETag in the plan only the end shows it: one range is cut, those after it begin beyond the end.
    store.replace("a.tar", data[: rows[30]["byte_offset"] + 10])
    found = waveforms(*tar_rows(uri, data))
    assert [row["error"] and tables.reason_of(row["error"]) for row in found][30:] == ["changed_since_plan"] * 10


def test_an_object_changed_by_another_is_noticed_after_a_listing(store: Store, elsewhere: s3fs.S3FileSystem) -> None:
    store.create("sound/a.flac", flac(SOUNDS[0]))
    row = {
        "audio_uri": f"{store.url}/sound/a.flac",
        "etag": store.fs.info(store.path("sound/a.flac"))["ETag"].strip('"'),
    }
    assert waveforms(row)[0]["error"] is None
    # As planning does: s3fs would keep what it lists here and answer from that.
    store.fs.find(store.path("sound"), detail=True)
    store.fs.ls(store.path("sound"))
    elsewhere.pipe_file(store.path("sound/a.flac"), flac(SOUNDS[9]))
    assert tables.reason_of(waveforms(row)[0]["error"]) == "changed_since_plan"
    (fresh,) = waveforms(row, check_etag=False)
    assert np.array_equal(np.frombuffer(fresh["pcm"], "<i2"), SOUNDS[9])


def test_missing_objects_are_rows(store: Store) -> None:
    store.create("a.flac", flac(SOUNDS[0]))
    uris = [f"{store.url}/a.flac", f"{store.url}/b.flac", "s3://no-such-bucket/a.flac", store.url]
    rows = [{"audio_uri": uri} for uri in uris] + [{"audio_uri": uris[1], "byte_offset": 5, "byte_size": 9}]
    found = waveforms(*rows)
    assert [row["error"] and tables.reason_of(row["error"]) for row in found] == [None, *["missing"] * 4]


def test_an_hour_long_file_is_read_by_interval_and_held_by_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = sound(60.0, 3)
    monkeypatch.setattr(fetch, "SPOOL_BYTES", 100_000)
    store.create("long.flac", flac(samples))
    spans = [(0.0, 2.5), (17.25, 20.0), (59.0, 60.0)]
    found = waveforms(*({"audio_uri": f"{store.url}/long.flac", "start_s": a, "end_s": b} for a, b in spans))
    for (start, end), row in zip(spans, found, strict=True):
        assert np.array_equal(np.frombuffer(row["pcm"], "<i2"), samples[round(start * 16_000) : round(end * 16_000)])


def test_storage_options_lead_where_the_environment_does_not(
    s3_server: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("a.flac", flac(SOUNDS[0]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    options = locations.storage_options(json.dumps({"endpoint_url": s3_server.endpoint}))
    assert Store(store.url, options).get("a.flac") == flac(SOUNDS[0])
    (row,) = ReadAudio(options, 120.0).read(planned({"audio_uri": f"{store.url}/a.flac"})).to_pylist()
    assert row["error"] is None
    assert fsspec.filesystem("s3", use_listings_cache=False).endpoint_url is None
