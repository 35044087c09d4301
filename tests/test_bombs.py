"""Files that are small and unpack to much, and files that are long: with bounded memory and in bounded time."""

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from sounds import encoded, pcm16, sound
from spire_ray import decoders, tables
from spire_ray.decoders import Decoders
from spire_ray.read import ReadAudio
from spire_ray.recordings import CutRecordings
from spire_ray.segment import Segmentation
from spire_ray.shards import StoreAt
from test_hostile import MAX_CHILD_MB, MAX_GROWTH_MB, watched

SECONDS = 120.0  # for each
HOUR = 3600


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    """A child that has decoded nothing yet, so that its peak is this file's."""
    made = Decoders(1)
    monkeypatch.setattr(decoders, "shared", lambda: made)
    yield made
    made._idle.get().end()


@dataclass(frozen=True)
class Bomb:
    """A file, and what becomes of a row for each of some spans (seconds) of it."""

    name: str
    write: Callable[[Path], object]
    spans: dict[tuple[float | None, float | None], str | None]
    max_seconds: float = 120.0


WHOLE = (None, None)
TAG = b"ID3\3\0\0\0\0\0\0"


def hush(path: Path, seconds: float, format: str, channels: int = 1, rate: int = 16_000) -> None:
    """Of silence, which packs to nothing."""
    second = np.zeros((rate, channels), np.int16)
    with sf.SoundFile(path, "w", rate, channels, format=format) as file:
        for _ in range(round(seconds)):
            file.write(second)


def flac_declaring(path: Path, samples: int) -> None:
    data = bytearray(encoded(pcm16(3.0), 16_000, "FLAC"))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    path.write_bytes(data)


def speech_wav(path: Path, hours: float) -> None:
    """Sound that is none but noise, a minute of it again and again."""
    minute = pcm16(60.0)
    with sf.SoundFile(path, "w", 16_000, 1, "PCM_16", format="WAV") as file:
        for _ in range(round(hours * 60)):
            file.write(minute)


def bare_mp3(path: Path, hours: float) -> None:
    """Without its count of frames, so that they are counted."""
    data = encoded(sound(60.0), 16_000, "MP3")
    first = data.index(b"\xff\xf3", 4) if data[:2] == b"\xff\xf3" else data.index(b"\xff\xfb", 4)
    with path.open("wb") as file:
        for _ in range(round(hours * 60)):
            file.write(data[first:])


def bombs(hours: float) -> list[Bomb]:
    end = hours * HOUR
    first, last = (5.0, 15.0), (end - 30, end - 20)
    long: dict[tuple[float | None, float | None], str | None] = {WHOLE: "too_long", first: None, last: None}
    silent: dict[tuple[float | None, float | None], str | None] = {WHOLE: "too_long", first: "silent", last: "silent"}
    nonsense = b"\xff\xf3\x18\xc4" * (1 << 20)
    nan = encoded(np.full(100 * 16_000, np.nan), 16_000, "WAV", "FLOAT")
    fast = min(600, 120 * hours)  # the longest utterance there may be, in all the memory that it may have
    return [
        Bomb("silent FLAC", lambda path: hush(path, end, "FLAC"), silent),
        Bomb("silent Ogg Vorbis", lambda path: hush(path, min(end, HOUR), "OGG"), {WHOLE: "too_long"}),
        Bomb("2^36 - 1 samples declared", lambda path: flac_declaring(path, 2**36 - 1), {WHOLE: "truncated"}),
        Bomb("2^31 samples declared", lambda path: flac_declaring(path, 2**31), {WHOLE: "truncated"}),
        Bomb("1,024 channels", lambda path: hush(path, 3, "WAV", 1024, 8_000), {WHOLE: "too_large"}),
        Bomb("32 channels at 384 kHz", lambda path: hush(path, 3 * hours, "WAV", 32, 384_000), {WHOLE: "silent"}),
        Bomb("384 kHz", lambda path: hush(path, fast, "WAV", 1, 384_000), {WHOLE: "silent"}, max_seconds=600),
        Bomb("NaN", lambda path: path.write_bytes(nan), {WHOLE: "not_finite"}),
        Bomb("zeros", lambda path: path.write_bytes(bytes(100 << 20)), {WHOLE: "unreadable"}),
        Bomb("a tag and zeros", lambda path: path.write_bytes(TAG + bytes(100 << 20)), {WHOLE: "truncated"}),
        Bomb("tags without end", lambda path: path.write_bytes(TAG * (1 << 20)), {WHOLE: "truncated"}),
        Bomb("frames of nonsense", lambda path: path.write_bytes(nonsense), {WHOLE: "truncated"}),
        Bomb("WAV", lambda path: speech_wav(path, hours), long),
        Bomb("MP3 without a count of its frames", lambda path: bare_mp3(path, hours), long),
    ]


def defuse(bomb: Bomb, folder: Path, fresh: Decoders) -> None:
    path = folder / "bomb"
    bomb.write(path)
    rows: list[dict[str, Any]] = [
        {"utterance_id": str(n), "audio_uri": str(path), "start_s": start, "end_s": end}
        for n, (start, end) in enumerate(bomb.spans)
    ]
    reader = ReadAudio({}, bomb.max_seconds)
    reader.read(tables.from_rows([], tables.PLAN))
    began = time.monotonic()
    with watched(fresh) as peaks:
        made = reader.read(tables.from_rows(rows, tables.PLAN))
    took = time.monotonic() - began
    size = path.stat().st_size / 1e6
    path.unlink()
    said = [error and tables.reason_of(error) for error in made.column("error").to_pylist()]
    print(f"\n{bomb.name}, {size:.1f} MB: {said} in {took:.1f} s; "
          f"decoder {peaks.child:.0f} MB, reader +{peaks.reader:.0f} MB")  # fmt: skip
    assert said == list(bomb.spans.values()), made.column("error").to_pylist()
    assert took < SECONDS
    assert peaks.child < MAX_CHILD_MB
    assert peaks.reader < MAX_GROWTH_MB


@pytest.mark.parametrize("bomb", bombs(hours=0.25), ids=lambda bomb: bomb.name.replace(" ", "-"))
def test_a_bomb_costs_a_row(bomb: Bomb, tmp_path: Path, fresh: Decoders) -> None:
    defuse(bomb, tmp_path, fresh)


@pytest.mark.torture
@pytest.mark.parametrize("bomb", bombs(hours=10), ids=lambda bomb: bomb.name.replace(" ", "-"))
def test_a_bomb_of_ten_hours_costs_a_row(bomb: Bomb, tmp_path: Path, fresh: Decoders) -> None:
    defuse(bomb, tmp_path, fresh)


def listen(path: Path, hours: float, folder: Path, fresh: Decoders) -> None:
    stage = CutRecordings(StoreAt(str(folder / "plan"), {}), Segmentation.parse("fixed:25"), {})  # type: ignore[arg-type]
    row = dict.fromkeys(tables.PLAN.names) | {"utterance_id": "long", "audio_uri": str(path)}
    began = time.monotonic()
    with watched(fresh) as peaks:
        pieces, seconds = stage.cut(row)
    print(f"\n{hours} h cut into {len(pieces)} pieces in {time.monotonic() - began:.1f} s; "
          f"decoder {peaks.child:.0f} MB, reader +{peaks.reader:.0f} MB")  # fmt: skip
    assert seconds == pytest.approx(hours * HOUR, abs=60)
    assert len(pieces) > hours * HOUR / 26
    assert not any(piece["error"] for piece in pieces)
    assert peaks.child < MAX_CHILD_MB
    assert peaks.reader < MAX_GROWTH_MB


def test_a_long_recording_is_cut_in_bounded_memory(tmp_path: Path, fresh: Decoders) -> None:
    speech_wav(tmp_path / "a.wav", 0.25)
    listen(tmp_path / "a.wav", 0.25, tmp_path, fresh)


@pytest.mark.torture
@pytest.mark.parametrize("write", [speech_wav, bare_mp3])
def test_ten_hours_are_cut_in_bounded_memory(
    write: Callable[[Path, float], None], tmp_path: Path, fresh: Decoders
) -> None:
    write(tmp_path / "a", 10)
    listen(tmp_path / "a", 10, tmp_path, fresh)
