"""Decoders that crash, hang, eat memory or talk nonsense: one row each, and whoever reads goes on."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from crashing_decoder import DEEDS, breaking_decoders, counted_starts
from sounds import encoded, pcm16
from spire_ray import decoder, decoders, tables
from spire_ray.decoders import FILES, Decoders, Place
from spire_ray.errors import MachineFault, RowFault
from spire_ray.read import ReadAudio
from spire_ray.recordings import CutRecordings
from spire_ray.segment import Segmentation
from spire_ray.shards import StoreAt

SOUND: NDArray[np.int16] = pcm16(2.0)
FLAC: bytes = encoded(SOUND, 16_000, "FLAC")


@pytest.fixture
def one() -> Iterator[Decoders]:
    made = Decoders(1)
    yield made
    close(made)


def close(made: Decoders) -> None:
    while not made._idle.empty():
        made._idle.get().end()


def child_of(made: Decoders) -> int:
    """The process of the only child."""
    child = made._idle.get()
    made._idle.put(child)
    assert child.process is not None
    return child.process.pid


def decoded(made: Decoders, data: bytes | BinaryIO, *span: float | None) -> NDArray[np.int16] | RowFault:
    """A whole file, or an interval of it."""
    size = len(data) if isinstance(data, bytes) else os.fstat(data.fileno()).st_size
    (sound,) = made.decode(data, [Place(0, size, *span)], 120.0)
    return sound


def reason(made: Decoders, data: bytes) -> str | None:
    return reason_of(decoded(made, data))


def reason_of(sound: NDArray[np.int16] | RowFault) -> str | None:
    if isinstance(sound, RowFault):
        return sound.reason
    assert np.array_equal(sound, SOUND)
    return None


def test_one_child_decodes_file_after_file(one: Decoders, tmp_path: Path) -> None:
    assert reason(one, FLAC) is None
    first = child_of(one)
    (tmp_path / "a.flac").write_bytes(FLAC)
    with (tmp_path / "a.flac").open("rb") as file:
        for span in ((None, None), (0.5, 1.25), (1.0, None)):
            part = SOUND[int((span[0] or 0) * 16_000) : int((span[1] or 2) * 16_000)]
            assert np.array_equal(decoded(one, file, *span), part)
    assert reason(one, b"no sound") == "unreadable"
    assert reason(one, b"") == "empty"
    blocks = list(one.blocks(tmp_path / "a.flac", None, None))
    assert np.array_equal(np.concatenate(blocks) * 32_768, SOUND)
    assert child_of(one) == first


@pytest.mark.parametrize(
    ("deed", "expected", "detail"),
    [
        ("crash", "decoder_crash", "Segmentation fault"),
        ("hang", "decoder_timeout", "did not answer for 2 s"),
        ("spin", "decoder_timeout", "computed"),
        ("claim", "decoder_crash", "over 2000 MiB"),
        ("rave", "decoder_crash", "ended"),
        ("boast", "decoder_crash", "ended"),
        ("invent", "decoder_crash", "ended"),
        ("leave", "decoder_crash", "ended: 0"),
        ("raise_something", "decoder_crash", "ended: 1"),
    ],
)
def test_a_decoder_that_breaks_costs_one_file(
    deed: str, expected: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = breaking_decoders(monkeypatch, 1, wall_seconds=2 if deed == "hang" else 60, cpu_seconds=1)
    poison = FLAC + f"<{deed}>".encode()
    assert poison.endswith(tuple(DEEDS))
    assert reason(made, FLAC) is None
    first = child_of(made)
    told = decoded(made, poison)
    assert isinstance(told, RowFault)
    assert (told.reason, detail in told.detail) == (expected, True)
    assert not os.path.exists(f"/proc/{first}"), "the broken child is still there"
    assert reason(made, FLAC) is None
    close(made)


@pytest.mark.parametrize(("deed", "attempts"), [("crash", 2), ("spin", 1)])
def test_a_file_has_two_attempts_at_most(deed: str, attempts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = breaking_decoders(monkeypatch, 1, wall_seconds=60, cpu_seconds=1)
    started = counted_starts(monkeypatch)
    assert reason(made, FLAC + f"<{deed}>".encode()) in ("decoder_crash", "decoder_timeout")
    assert len(started) == attempts
    close(made)


def among(sounds: list[bytes]) -> tuple[bytes, list[Place]]:
    """Files as they lie in a tar, and where; beside the last is what no decoder should see."""
    ends = np.cumsum([10 + len(sound) for sound in sounds]).tolist()
    places = [Place(end - len(sound), len(sound)) for end, sound in zip(ends, sounds, strict=True)]
    return b"".join(b"tar header" + sound for sound in sounds) + b"the next", places


def test_files_among_others_are_read_to_their_own_ends(one: Decoders, tmp_path: Path) -> None:
    cut, wav = FLAC[: len(FLAC) // 2], encoded(SOUND, 16_000, "WAV")
    sounds = [FLAC, cut, b"", wav, wav[:-2], b"no sound", FLAC] * FILES
    expected = [None, "truncated", "empty", None, "truncated", "unreadable", None] * FILES
    data, places = among(sounds)
    assert [reason_of(sound) for sound in one.decode(data, places, 120.0)] == expected
    (tmp_path / "a.tar").write_bytes(data)
    with (tmp_path / "a.tar").open("rb") as file:
        assert [reason_of(sound) for sound in one.decode(file, places, 120.0)] == expected
    spans = [place._replace(start_s=0.5, end_s=1.25) for place in places[:1]] * 3
    for sound in one.decode(data, spans, 120.0):
        assert np.array_equal(sound, SOUND[8_000:20_000])


def test_an_answer_holds_no_more_than_is_enough(one: Decoders) -> None:
    minute = pcm16(60.0)
    data, places = among([encoded(minute, 16_000, "FLAC")])
    found = list(one.decode(data, places * 40, 120.0))
    assert all(np.array_equal(sound, minute) for sound in found)
    assert len(found) == 40
    samples = next(path for path in Path(f"/proc/{child_of(one)}/fd").iterdir() if "samples" in os.readlink(path))
    assert decoder.ENOUGH_BYTES < samples.stat().st_size < decoder.ENOUGH_BYTES + minute.nbytes + 1


@pytest.mark.parametrize(
    ("deed", "expected", "starts"),
    [("crash", "decoder_crash", 3), ("spin", "decoder_timeout", 3), ("boast", "decoder_crash", 3)],
)
def test_one_of_many_that_breaks_the_decoder_costs_itself(
    deed: str, expected: str, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = breaking_decoders(monkeypatch, 1, wall_seconds=60, cpu_seconds=1)
    started = counted_starts(monkeypatch)
    sounds = [FLAC] * (2 * FILES)
    sounds[5] += f"<{deed}>".encode()
    found = [reason_of(sound) for sound in made.decode(*among(sounds), 120.0)]
    assert found == [None] * 5 + [expected] + [None] * (2 * FILES - 6)
    assert len(started) == starts
    close(made)


def test_a_death_that_was_the_machines_costs_nothing(one: Decoders) -> None:
    assert reason(one, FLAC) is None
    os.kill(child_of(one), signal.SIGKILL)  # as the kernel does when memory runs out
    assert reason(one, FLAC) is None


def test_a_recording_gives_its_blocks_until_the_decoder_dies(one: Decoders, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(pcm16(60.0), 16_000, "WAV"))
    assert reason(one, FLAC) is None
    child = child_of(one)
    heard = []

    def listen() -> None:
        for block in one.blocks(tmp_path / "a.wav", None, None):
            heard.append(block)
            if len(heard) == 5:
                os.kill(child, signal.SIGSEGV)
                time.sleep(0.2)

    with pytest.raises(RowFault, match="decoder_crash"):
        listen()
    assert 5 <= len(heard) <= 6
    assert np.array_equal(np.concatenate(heard) * 32_768, pcm16(60.0)[: sum(map(len, heard))])
    assert reason(one, FLAC) is None


def test_who_stops_listening_leaves_a_child_that_decodes(one: Decoders, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(pcm16(60.0), 16_000, "WAV"))
    for _ in one.blocks(tmp_path / "a.wav", None, None):
        break
    assert reason(one, FLAC) is None


def is_decoder(pid: int) -> bool:
    return b"spire_ray.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_child_has_its_limits_and_no_environment(one: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    assert reason(one, FLAC) is None
    folder = Path(f"/proc/{child_of(one)}")
    assert b"wJalr" not in (folder / "environ").read_bytes()
    limits = {line[:26].strip(): line[26:].split()[0] for line in (folder / "limits").read_text().splitlines()}
    assert decoder.MEMORY_BYTES < int(limits["Max data size"]) < decoder.MEMORY_BYTES + (256 << 20)
    assert decoder.CPU_SECONDS <= int(limits["Max cpu time"]) <= decoder.CPU_SECONDS + 2
    assert int(limits["Max core file size"]) == 0
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY


def test_a_child_that_cannot_start_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_CHILD", "import no_such_package")
    with pytest.raises(MachineFault, match=r"does not start: ModuleNotFoundError.*no_such_package"):
        decoded(Decoders(1), FLAC)


def test_children_end_with_whoever_started_them() -> None:
    source = (
        "import os, signal, time; from spire_ray.decoders import Decoders; from test_decoders import *\n"
        "made = Decoders(1); assert reason(made, FLAC) is None; print(child_of(made), flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_decoder(child)
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}") or not is_decoder(child):
            return
        time.sleep(0.1)
    raise AssertionError("the child outlived its parent")


@pytest.mark.parametrize(
    ("deed", "reason", "attempts"), [("crash", "decoder_crash", 2), ("spin", "decoder_timeout", 1)]
)
def test_a_recording_that_breaks_the_decoder_is_a_row(
    deed: str, reason: str, attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = breaking_decoders(monkeypatch, 1, wall_seconds=60, cpu_seconds=1)
    started = counted_starts(monkeypatch)
    segmentation = Segmentation.parse("fixed:25")
    assert segmentation is not None
    stage = CutRecordings(StoreAt(str(tmp_path / "plan"), {}), segmentation, {})
    (tmp_path / "bad.wav").write_bytes(FLAC + f"<{deed}>".encode())
    (tmp_path / "good.wav").write_bytes(FLAC)
    row = dict.fromkeys(tables.PLAN.names)
    (piece,), seconds = stage.cut(row | {"utterance_id": "bad", "audio_uri": str(tmp_path / "bad.wav")})
    assert tables.reason_of(piece["error"]) == reason
    assert (seconds, len(started)) == (0.0, attempts)
    (piece,), seconds = stage.cut(row | {"utterance_id": "good", "audio_uri": str(tmp_path / "good.wav")})
    assert (piece["error"], seconds) == (None, 2.0)
    close(made)


def test_a_shard_with_files_that_break_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = breaking_decoders(monkeypatch, 2, wall_seconds=20, cpu_seconds=1)
    poison = {7: ("crash", "decoder_crash"), 21: ("spin", "decoder_timeout"), 40: ("leave", "decoder_crash")}
    for n in range(60):
        word = f"<{poison[n][0]}>".encode() if n in poison else b""
        (tmp_path / f"{n:02}.flac").write_bytes(FLAC + word)
    rows = [{"utterance_id": f"{n:02}", "audio_uri": str(tmp_path / f"{n:02}.flac")} for n in range(60)]
    read = ReadAudio({}, 120.0).read(tables.from_rows(rows, tables.PLAN))
    assert isinstance(read, pa.Table)
    for n, row in enumerate(read.to_pylist()):
        assert (row["error"] and tables.reason_of(row["error"])) == (poison[n][1] if n in poison else None)
        assert row["pcm"] is None if n in poison else np.array_equal(np.frombuffer(row["pcm"], "<i2"), SOUND)
    close(made)
