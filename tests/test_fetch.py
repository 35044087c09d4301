import errno
import io
import os
import tarfile

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from spire_ray import fetch, locations
from spire_ray.errors import MachineFault, RowFault, UserError
from spire_ray.fetch import Object, Piece, Request, Room

MB = 1 << 20


def piece(row, first, size):
    return Piece(row, None, None, None, first, size)


def merged(*spans):
    made = fetch.requests("u", None, "p", [piece(row, first, size) for row, (first, size) in enumerate(spans)])
    return [(one.start, one.stop, [piece.row for piece in one.pieces]) for one in made]


def test_neighbours_become_one_request():
    assert merged((0, 1000), (1000, 500), (1700, 300)) == [(0, 2000, [0, 1, 2])]


def test_the_order_of_rows_does_not_count():
    assert merged((1700, 300), (0, 1000), (1000, 500)) == [(0, 2000, [1, 2, 0])]


def test_two_rows_may_want_the_same_bytes_or_overlap():
    assert merged((0, 1000), (0, 1000), (500, 100), (900, 200)) == [(0, 1100, [0, 1, 2, 3])]


def test_no_request_brings_much_that_nobody_wants():
    # A tar in which each 100 kB of sound is beside 10 MB of pictures; one where three quarters are text.
    assert merged((0, 100_000), (10_100_000, 100_000)) == [(0, 100_000, [0]), (10_100_000, 10_200_000, [1])]
    assert len(merged(*((start, 1000) for start in range(0, 40_000, 4000)))) == 10


def test_requests_are_of_a_bounded_size():
    made = merged(*((start, 300_000) for start in range(0, 60 * MB, 300_000)))
    assert len(made) == 8
    assert all(stop - start <= fetch.REQUEST_BYTES for start, stop, _ in made)
    assert merged((0, 50 * MB), (50 * MB, 10)) == [(0, 50 * MB, [0]), (50 * MB, 50 * MB + 10, [1])]


@given(st.lists(st.tuples(st.integers(0, 20 * MB), st.integers(0, 10 * MB)), min_size=1, max_size=60))
def test_every_piece_lies_in_its_request_and_bounds_hold(spans):
    made = merged(*spans)
    assert sorted(row for _, _, rows in made for row in rows) == list(range(len(spans)))
    for start, stop, rows in made:
        bytes_wanted = np.zeros(stop - start, bool)
        for row in rows:
            first, size = spans[row]
            assert start <= first
            assert first + size <= stop
            bytes_wanted[first - start : first + size - start] = True
        assert (~bytes_wanted).sum() <= fetch.WASTE * (stop - start)
        assert stop - start <= max(fetch.REQUEST_BYTES, *(spans[row][1] for row in rows), 0)


def test_a_tar_takes_few_requests():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for number in range(200):
            for name, size in ((f"{number:03}.flac", 100_000), (f"{number:03}.json", 300)):
                info = tarfile.TarInfo(name)
                info.size = size
                tar.addfile(info, io.BytesIO(bytes(size)))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        members = [member for member in tar if member.name.endswith(".flac")]
    made = merged(*((member.offset_data, member.size) for member in members))
    assert len(made) == 3  # 20 MB in requests of up to 8 MiB, for 200 members
    assert sum(stop - start for start, stop, _ in made) < 1.03 * 200 * 100_000


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(locations, "FIRST_WAIT_S", 0.001)
    fs = MemoryFileSystem()
    fs.store.clear()
    return fs


def request(fs, start, stop):
    return Request(fs, "/b/x", "memory://b/x", start, stop, [piece(0, start, stop - start)])


def test_a_range_is_what_lies_there(memory):
    data = np.random.default_rng(0).bytes(1000)
    memory.pipe_file("/b/x", data)
    asked = request(memory, 100, 900)
    with asked.fetch() as got:
        assert got == data[100:900]
        assert asked.place(piece(0, 200, 50))[:2] == (100, 50)
    with request(memory, 5, 5).fetch() as got:
        assert got == b""


def test_a_range_that_is_not_there_any_more_is_told(memory):
    memory.pipe_file("/b/x", bytes(1000))
    for start, stop in ((900, 1100), (2000, 2100)):
        told = rf"changed_since_plan.* {stop - start} bytes at {start} are asked for"
        with pytest.raises(RowFault, match=told), request(memory, start, stop).fetch():
            pass


def test_a_large_one_goes_by_way_of_a_file(memory, monkeypatch):
    data = np.random.default_rng(0).bytes(1_000_003)
    memory.pipe_file("/b/x", data)
    monkeypatch.setattr(fetch, "SPOOL_BYTES", 500_000)
    monkeypatch.setattr(fetch, "_SPOOL_PART", 100_000)
    asked = request(memory, 1, 1_000_003)
    assert asked.memory == 400_000
    with asked.fetch() as got:
        assert not isinstance(got, bytes)
        assert os.pread(got.fileno(), 2_000_000, 0) == data[1:]
    assert got.closed
    with pytest.raises(RowFault, match="changed_since_plan"), request(memory, 1, 1_000_004).fetch():
        pass


def test_a_full_disk_is_the_machines_fault(memory, monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    memory.pipe_file("/b/x", bytes(1000))
    monkeypatch.setattr(fetch, "SPOOL_BYTES", 500)
    monkeypatch.setattr(fetch.tempfile, "TemporaryFile", Full)
    with pytest.raises(MachineFault, match="No space left"), request(memory, 0, 1000).fetch():
        pass


def test_sizes_settle_what_is_asked(monkeypatch):
    wanted = Object("u", None, True, [piece(0, 0, 100), piece(1, 900, 200), piece(2, 500, None), piece(3, 0, 501)])
    monkeypatch.setattr(fetch, "MAX_OBJECT_BYTES", 500)
    pieces, faults = fetch.sized(wanted, 1000)
    assert [(one.row, one.size) for one in pieces] == [(0, 100), (2, 500)]
    assert [(row, fault.reason) for row, fault in faults] == [(1, "changed_since_plan"), (3, "too_large")]


def test_an_interval_of_a_larger_file_is_read(monkeypatch):
    monkeypatch.setattr(fetch, "MAX_OBJECT_BYTES", 500)
    monkeypatch.setattr(fetch, "MAX_RECORDING_BYTES", 1000)
    spans = [(0.0, 1.0), (5.0, None), (None, None)]
    wanted = Object("u", None, False, [Piece(row, None, *span) for row, span in enumerate(spans)])
    pieces, faults = fetch.sized(wanted, 1000)
    assert [(one.row, one.size) for one in pieces] == [(0, 1000), (1, 1000)]
    assert [(row, fault.reason) for row, fault in faults] == [(2, "too_large")]
    assert [fault.reason for _, fault in fetch.sized(wanted, 1001)[1]] == ["too_large"] * 3


def test_who_wants_more_than_all_the_room_is_alone():
    room = Room(10)
    with room.for_bytes(4), room.for_bytes(6):
        assert room.held == 10
    with room.for_bytes(1000):
        assert room.held == 10
    assert room.held == 0


# Storage options


@pytest.mark.parametrize(
    "text",
    [
        '{"endpoint_url": "http://127.0.0.1:9000", "anon": true}',
        '{"config_kwargs": {"signature_version": "s3v4", "max_pool_connections": 32}, "requester_pays": true}',
        '{"token": "anon", "project": "speech"}',
    ],
)
def test_options_that_hold_no_secret_are_taken(text):
    assert isinstance(locations.storage_options(text), dict)


@pytest.mark.parametrize(
    "text",
    [
        '{"key": "AKIAHUSH", "anon": false}',
        '{"client_kwargs": {"aws_secret_access_key": "hush"}}',
        '{"token": "ya29.hush"}',
        '{"account_key": "hush"}',
        '{"sas_token": "hush"}',
        '{"s3_additional_kwargs": {"SSECustomerKey": "hush"}}',
        '{"endpoint_url": "http://me:hush@127.0.0.1"}',
        '{"headers": {"Authorization": "Bearer hush"}}',
        '["hush"]',
        "hush",
    ],
)
def test_secrets_in_options_are_refused_and_not_repeated(text):
    with pytest.raises(UserError) as told:
        locations.storage_options(text)
    assert "hush" not in str(told.value).lower()


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(UserError, match=r"sftp://me:\.\.\.@ holds a password") as told:
        locations.locate("sftp://me:hush@host/corpus")
    assert "hush" not in str(told.value)
    for fine in ("memory://bucket/a:b@c.wav", "memory://host:80/x@y.wav"):
        locations.locate(fine)
