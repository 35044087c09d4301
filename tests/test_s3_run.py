"""The whole job with its corpus, plan, tables and resume in S3, and nothing else of it anywhere."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import s3fs
import soundfile

from conftest import SECONDS, sound
from s3_server import S3Server
from spire_ray.cli import main

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(600)]
OPTIONS = ["--languages", "de", "--max-tokens", "6", "--shard-minutes", "0.06", "--deterministic"]
TABLES = ("plan", "units", "transcripts", "translations")
# Where the audio lay is not what was made of it.
OF_THE_PLACE = {"audio_uri", "etag"}


@pytest.fixture(scope="module")
def fs(s3_server: S3Server) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WebDataset folder: two tars, a text beside each sound, and one sound that is none."""
    folder = tmp_path_factory.mktemp("shards")
    for half in (0, 1):
        with tarfile.open(folder / f"{half:06}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(3 * half, 3 * half + 3):
                stream = io.BytesIO()
                soundfile.write(stream, sound(SECONDS[index], index), 16_000, format="FLAC")
                _add(tar, f"take-{index}.flac", b"never a sound" * 50 if index == 4 else stream.getvalue())
                _add(tar, f"take-{index}.txt", f"sound {index}".encode())
    return folder


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def contents(fs: s3fs.S3FileSystem, url: str) -> dict[str, tuple[str, Any]]:
    """ETag and time of every object."""
    return {name: (info["ETag"], info["LastModified"]) for name, info in fs.find(url, detail=True).items()}


def rows(files: dict[str, bytes], table: str) -> list[dict[str, Any]]:
    parts = [data for name, data in sorted(files.items()) if name.startswith(f"{table}/part-")]
    return [
        {name: value for name, value in row.items() if name not in OF_THE_PLACE}
        for part in parts
        for row in pq.read_table(io.BytesIO(part)).to_pylist()
    ]


def run(corpus: str, out: str, bundle: Path) -> int:
    return main(["speech-to-text", corpus, out, "--checkpoint", str(bundle), *OPTIONS])


@pytest.fixture(scope="module")
def corpus(s3_server: S3Server, fs: s3fs.S3FileSystem, shards: Path) -> str:
    url = f"{s3_server.url}/speech"
    fs.put(str(shards), url, recursive=True)
    return url


@pytest.fixture(scope="module")
def whole(s3_server: S3Server, corpus: str, bundle: Path, local_ray: None) -> str:
    """A finished run, all of it in S3."""
    out = f"{s3_server.url}/results/whole"
    assert run(corpus, out, bundle) == 0
    return out


def files(fs: s3fs.S3FileSystem, out: str) -> dict[str, bytes]:
    return {name.partition(f"{out.removeprefix('s3://')}/")[2]: fs.cat_file(name) for name in fs.find(out)}


def names(found: dict[str, bytes]) -> set[str]:
    return {name for name in found if not name.startswith(("runs/", "heartbeat/"))}


def test_a_run_in_s3_is_the_run_on_a_disk(
    fs: s3fs.S3FileSystem, whole: str, shards: Path, bundle: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    assert run(str(shards), str(tmp_path), bundle) == 0
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    local = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in paths}
    there = files(fs, whole)
    assert names(there) == names(local)
    for table in TABLES:
        assert rows(there, table) == rows(local, table)
    assert len(rows(there, "plan")) == len(SECONDS)
    assert [row["error"] is None for row in rows(there, "units")].count(False) == 1
    assert not any(s3_server.secret_key.encode() in data for data in there.values())


def test_a_second_run_writes_nothing(fs: s3fs.S3FileSystem, whole: str, corpus: str, bundle: Path) -> None:
    before = contents(fs, whole)
    assert run(corpus, whole, bundle) == 0
    assert contents(fs, whole) == before


def test_what_a_killed_run_left_is_gone_on_with(
    s3_server: S3Server, fs: s3fs.S3FileSystem, whole: str, corpus: str, bundle: Path
) -> None:
    there, half = files(fs, whole), f"{s3_server.url}/results/half"
    # Some parts are there; what marks the run and its tables as finished is not.
    missing = ("units/part-00001", "transcripts/part-00001", "transcripts/part-00002", "_SUCCESS", "runs/", "run.json")
    for name, data in there.items():
        if not any(part in name for part in (*missing, "README.md")):
            fs.pipe_file(f"{half}/{name}", data)
    before = contents(fs, half)
    assert run(corpus, half, bundle) == 0
    assert before.items() <= contents(fs, half).items()
    resumed = files(fs, half)
    assert names(resumed) == names(there)
    for table in TABLES:
        assert rows(resumed, table) == rows(there, table)
