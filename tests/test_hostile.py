"""Damaged audio files, many of them, through the reader: one outcome each, and a reader that is none the worse."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pyarrow.parquet as pq
import pytest

import checker
from crashing_decoder import breaking_decoders, counted_starts
from in_process import run_in_process, small_checkpoint
from mutations import mutated, originals
from sounds import encoded, pcm16
from spire_ray import decoders, tables
from spire_ray.cli import main
from spire_ray.decoders import Decoders
from spire_ray.read import ReadAudio

SHARD = 100
MAX_GROWTH_MB = 300  # of the reader
MAX_CHILD_MB = 2048


def read(files: dict[str, bytes], folder: Path) -> dict[str, str | None]:
    """A shard of these files to the reason of each one's error."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    rows = [{"utterance_id": name, "audio_uri": str(folder / name)} for name in files]
    made = ReadAudio({}, 120.0).read(tables.from_rows(rows, tables.PLAN))
    assert made.column("utterance_id").to_pylist() == list(files)
    found = {}
    for row in made.to_pylist():
        assert (row["pcm"] is None) == (row["error"] is not None)
        found[row["utterance_id"]] = row["error"] and tables.reason_of(row["error"])
    assert set(found.values()) <= {None, *tables.REASONS}
    return found


class Peaks:
    """The most memory that this process and the children of a Decoders held, in MB, looked at every 20 ms."""

    def __init__(self, made: Decoders) -> None:
        self.children = list(made._idle.queue)
        self.reader = self.child = 0.0
        self.before = resident("self", "VmRSS")

    def look(self) -> None:
        self.reader = max(self.reader, resident("self", "VmRSS") - self.before)
        for one in self.children:
            if one.process is not None:
                self.child = max(self.child, resident(one.process.pid, "VmHWM"))


def resident(pid: int | str, name: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(name)), 0.0)


@contextmanager
def watched(made: Decoders) -> Iterator[Peaks]:
    peaks, done = Peaks(made), Event()

    def look() -> None:
        while not done.wait(0.02):
            peaks.look()

    thread = Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()
        peaks.look()


def campaign(folder: Path, count: int, seed: int) -> None:
    """`count` damaged files, and in each shard of them one that is whole."""
    chance = random.Random(seed)
    whole = originals()
    datas = [data for _, data in whole]
    reasons: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    read(dict(whole), folder / "warm")
    began = time.monotonic()
    with watched(decoders.shared()) as peaks:
        for first in range(0, count, SHARD):
            files = {f"{n:05}": mutated(whole[n % len(whole)][1], datas, chance) for n in range(first, first + SHARD)}
            name, good = whole[first // SHARD % len(whole)]
            found = read({**files, "whole": good}, folder / f"{first:05}")
            assert found.pop("whole") is None, f"a whole {name} suffered from what lies beside it"
            reasons.update(reason or "read" for reason in found.values())
            kinds.update(whole[int(n) % len(whole)][0].split()[0] for n in found)
    assert reasons.total() == count
    assert set(kinds) >= {"WAV", "FLAC", "OGG", "MP3"}
    assert peaks.reader < MAX_GROWTH_MB
    assert peaks.child < MAX_CHILD_MB
    print(f"\n{count} damaged files in {time.monotonic() - began:.0f} s: {dict(reasons.most_common())}")
    print(f"the reader grew by {peaks.reader:.0f} MB, a decoder held {peaks.child:.0f} MB at most")


def test_damaged_files_have_one_outcome_each(tmp_path: Path) -> None:
    campaign(tmp_path, 400, seed=0)


@pytest.mark.torture
def test_damaged_files_in_thousands(tmp_path: Path) -> None:
    campaign(tmp_path, 20_000, seed=1)


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.torture)])
def test_a_run_over_damaged_files_ends_with_a_row_for_each(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan, reader, commits and records as they are; only the models are stand-ins."""
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))
    chance, whole = random.Random(2), originals()
    datas = [data for _, data in whole]
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    for n in range(count):
        name, data = whole[n % len(whole)]
        (corpus / f"{n:05}.{name.split()[0].lower().removesuffix('ex')}").write_bytes(mutated(data, datas, chance))
    began = time.monotonic()
    assert main(["tokenize", str(corpus), str(out), "--checkpoint", "any", "--shard-minutes", "1"]) == 0
    rows = pq.read_table(out / "units", columns=["utterance_id", "error"]).to_pylist()
    assert sorted(row["utterance_id"] for row in rows) == sorted(file.name for file in corpus.iterdir())
    reasons = Counter(row["error"] and tables.reason_of(row["error"]) for row in rows)
    assert checker.main([str(out)]) == 0
    print(f"{count} damaged files through a whole run in {time.monotonic() - began:.0f} s: {dict(reasons)}")


@pytest.mark.torture
def test_a_hundredth_of_the_files_break_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limits as they are: 60 s of computing, 120 s of waiting, 2 GiB."""
    sound = pcm16(2.0)
    flac = encoded(sound, 16_000, "FLAC")
    deeds = {50: "crash", 150: "hang", 250: "spin", 350: "eat", 450: "crash", 550: "eat", 650: "leave", 750: "rave"}
    files = {f"{n:04}": flac + (f"<{deeds[n]}>".encode() if n in deeds else b"") for n in range(800)}
    made = breaking_decoders(monkeypatch, 2, decoders.WALL_SECONDS, 60)
    started = counted_starts(monkeypatch)
    began = time.monotonic()
    with watched(made) as peaks:
        found = read(files, tmp_path / "shard")
    took = time.monotonic() - began
    timeouts = {"hang", "spin"}
    for n in range(800):
        expected = None if n not in deeds else "decoder_timeout" if deeds[n] in timeouts else "decoder_crash"
        assert found[f"{n:04}"] == expected
    # Two to begin with, and one for each of two attempts at a crash, one for each timeout.
    assert len(started) <= 2 + sum(1 if deed in timeouts else 2 for deed in deeds.values())
    assert peaks.child < 1.1 * MAX_CHILD_MB
    assert peaks.reader < MAX_GROWTH_MB
    print(f"\n800 files, {len(deeds)} of them poison, in {took:.0f} s; {len(started)} children started")
    print(f"the reader grew by {peaks.reader:.0f} MB, a decoder held {peaks.child:.0f} MB at most")


CUTS = 100


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_cut_file_is_noticed(format: str, tmp_path: Path) -> None:
    """At 100 random places, through the reader; without a word from the manifest on how long it is."""
    data = encoded(pcm16(4.0), 16_000, format)
    chance = random.Random(format)
    cuts = chance.sample(range(1, len(data)), CUTS)
    found = read({f"{cut:06}": data[:cut] for cut in cuts}, tmp_path / "shard")
    noticed = sum(reason is not None for reason in found.values())
    print(f"\n{format}: {noticed} of {CUTS} noticed: {dict(Counter(found.values()))}")
    assert noticed >= (CUTS if format == "WAV" else 0.99 * CUTS)


def test_a_cut_that_only_the_manifest_can_tell(tmp_path: Path) -> None:
    """A streamed WAV declares no length, and an MP3 cut between frames looks whole."""
    wav = bytearray(encoded(pcm16(4.0), 16_000, "WAV"))
    wav[4:8] = wav[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(wav[: len(wav) // 2])
    row = {"utterance_id": "a", "audio_uri": str(tmp_path / "a.wav")}
    for seconds, reason in ((None, None), (4.0, "truncated")):
        made = ReadAudio({}, 120.0).read(tables.from_rows([row | {"duration_s": seconds}], tables.PLAN))
        (error,) = made.column("error").to_pylist()
        assert (error and tables.reason_of(error)) == reason
