"""The reader over planned rows, its results checked, and a file system that counts and fails."""

import io
import threading
import time
from typing import ClassVar

import fsspec
import numpy as np
import pytest
import soundfile as sf
from fsspec.implementations.memory import MemoryFileSystem

from spire_ray import locations, tables
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
