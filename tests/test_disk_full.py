"""A disk that is full from some moment on: the run stops with one line that names the folder, and resumes."""

import errno
import itertools
import os
import resource
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from spire_ray import external_sort, store
from spire_ray.errors import MachineFault
from test_crash_points import Job, assert_nothing_half, assert_whole, clean, corpus

__all__ = ["clean", "corpus"]  # fixtures


def test_out_is_full_from_any_write_on(
    corpus: Path,
    clean: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for room in itertools.count():
        written = itertools.count()

        def fsync(descriptor: int, room: int = room, written: "itertools.count[int]" = written) -> None:
            if next(written) >= room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        job = Job(corpus, tmp_path / "out")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            code = job.run()
        said = capsys.readouterr().err.splitlines()
        if code == 0:
            break
        assert code == 1
        faults = [line for line in said if "No space left on device" in line]
        assert faults == said[-1:]
        assert faults[0].startswith(f"spire-ray: fault: {job.out}/")
        assert not list(job.out.rglob(".tmp-*")), "a full disk is not helped by what was half written"
        assert_nothing_half(job, clean)
        assert job.run() == 0
        assert_whole(job, clean)
        shutil.rmtree(job.out)
    assert room > 15
    print(f"full at {room} moments")


def test_the_kernel_takes_no_more_of_a_file(
    corpus: Path,
    clean: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real EFBIG within each size of file that a run writes; a real disk that is full is in test_torture.py."""
    write, limits = store._write_beside, resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = sorted({len(data) for data in clean.values() if len(data) > 1})
    for size in sizes:

        def limited(path: Path, data: bytes, size: int = size) -> Path:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, limits[1]))
            try:
                return write(path, data)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        job = Job(corpus, tmp_path / "out")
        with monkeypatch.context() as patch:
            patch.setattr(store, "_write_beside", limited)
            assert job.run() == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"spire-ray: fault: {job.out}/")
        assert said.endswith("File too large")
        assert not list(job.out.rglob(".tmp-*"))
        assert_nothing_half(job, clean)
        assert job.run() == 0
        assert_whole(job, clean)
        shutil.rmtree(job.out)
    assert len(sizes) > 5


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Arrow's error, as of a real full device."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(external_sort, "RUN_BYTES", 1)
    monkeypatch.setattr(external_sort, "Path", lambda folder: Full())
    rows = pa.table({"utterance_id": [f"{n:09}" for n in range(200_000)]})
    with pytest.raises(MachineFault, match=f"{tmp_path}: No space left on device"):
        list(external_sort.sorted_by_id([rows, rows]))


class Full:
    """A folder in which every file is the device that is always full."""

    def __truediv__(self, name: str) -> str:
        return "/dev/full"
