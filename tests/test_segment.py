"""Cuts of recordings, against silero's own Python wrapper and against where the sound was put."""

import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import silero_vad
import soundfile
import soxr
import torch

sys.path.append(str(Path(__file__).parents[1] / "jobs"))
from benchmark_corpus import utterance
from benchmark_segment import cut_apart
from spire_ray import fetch, stream, tables
from spire_ray.cut import cut
from spire_ray.errors import RowFault, UserError
from spire_ray.plan import write_plan
from spire_ray.recordings import CommitSegments, CutRecordings, read_segments
from spire_ray.segment import Segmentation, cut_recording, measure, speech
from spire_ray.shards import StoreAt
from spire_ray.store import Store
from spire_ray.utterances import PLANNED
from spire_ray.vad import Vad

RATE = 16_000
VAD, FIXED = Segmentation("vad", 25.0), Segmentation("fixed", 25.0)


def blocks(path, start_s=None, end_s=None):
    with path.open("rb") as file:
        yield from stream.blocks(file.fileno(), start_s, end_s)


def hush(seconds):
    return np.random.default_rng(0).integers(-3, 4, round(seconds * RATE)).astype(np.int16)


def recording(*parts):
    """Speech of the synthetic voice (positive seconds) and silence (negative): the sound, and where speech is."""
    sounds, spoken, at = [], [], 0.0
    for number, seconds in enumerate(parts):
        sounds.append(utterance(seconds, number) if seconds > 0 else hush(-seconds))
        if seconds > 0:
            spoken.append((at, at + seconds))
        at += abs(seconds)
    return np.concatenate(sounds), spoken


def levels_of(samples, vad=True):
    sound = samples.astype(np.float32) / 32768
    return measure((sound[start : start + 70_001] for start in range(0, len(sound), 70_001)), Vad() if vad else None)


def timestamps(samples):
    """By silero's wrapper: the streaming model, a frame at a time, with its own state machine."""
    model = silero_vad.load_silero_vad(onnx=False)
    sound = torch.from_numpy(samples.astype(np.float32) / 32768)
    found = silero_vad.get_speech_timestamps(
        sound, model, threshold=0.5, min_speech_duration_ms=127, min_silence_duration_ms=100, speech_pad_ms=0
    )
    return [(one["start"], one["end"]) for one in found]


def test_speech_is_where_silero_finds_it():
    samples, _ = recording(-1.0, 3.0, -0.7, 4.0, -2.5, 0.4, -0.5, 5.0, -0.3, 2.0)
    ours = [(first * 512, min(last * 512, len(samples))) for first, last in speech(levels_of(samples).probabilities)]
    assert len(ours) > 3
    assert ours == timestamps(samples)


def test_pieces_are_short_hold_all_speech_and_end_in_pauses():
    samples, spoken = recording(-2.0, 9.0, -0.6, 8.0, -1.5, 12.0, -0.5, 3.0, -4.0, 5.0, -1.0)
    pieces = cut_recording(levels_of(samples), VAD)
    assert all(piece.end_ms - piece.start_ms <= 25_000 for piece in pieces)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(pieces))
    outside = np.ones(len(samples), bool)
    for piece in pieces:
        outside[piece.start_ms * 16 : piece.end_ms * 16] = False
    for start, end in timestamps(samples):
        assert not outside[start:end].any()
    # The pause of 1.5 s is the longest that the first 25 s offer; nothing reaches over the one of 4 s.
    assert pieces[0].end_ms == pytest.approx(1000 * spoken[1][1], abs=350)
    assert pieces[0].start_ms == pytest.approx(2000, abs=350)
    assert pieces[1].end_ms == pytest.approx(1000 * spoken[3][1], abs=350)
    assert len(pieces) == 3
    assert outside.sum() / RATE > 6


def test_speech_ratio_is_the_share_that_silero_hears():
    samples, _ = recording(-1.0, 6.0, -1.0, 6.0, -1.0)
    (piece,) = cut_recording(levels_of(samples), VAD)
    heard = sum(end - start for start, end in timestamps(samples))
    assert piece.speech_ratio == pytest.approx(heard / ((piece.end_ms - piece.start_ms) * 16), abs=0.01)


@pytest.mark.parametrize("segmentation", [VAD, FIXED])
def test_speech_without_pauses_is_cut_where_it_is_quietest(segmentation):
    time = np.arange(70 * RATE) / RATE
    rng = np.random.default_rng(1)
    loud = np.where(abs(time - 21.5) < 0.1, 0.1, 1.0) * np.where(abs(time - 43.0) < 0.1, 0.1, 1.0)
    samples = (3000 * loud * rng.standard_normal(len(time))).clip(-32768, 32767).astype(np.int16)
    levels = levels_of(samples)
    levels.probabilities[:] = 0.9  # as if it were all speech
    pieces = cut_recording(levels, segmentation)
    assert [piece.end_ms for piece in pieces[:2]] == pytest.approx([21_500, 43_000], abs=120)
    assert (pieces[0].start_ms, pieces[-1].end_ms) == (0, 70_000)
    assert all(before.end_ms == after.start_ms for before, after in pairwise(pieces))


@pytest.mark.parametrize("seconds", [0.5, 24.99, 25.0, 25.01, 26.0, 49.99, 50.01, 133.3])
def test_fixed_pieces_cover_everything(seconds):
    samples, _ = recording(seconds)
    pieces = cut_recording(levels_of(samples, vad=False), FIXED)
    assert (pieces[0].start_ms, pieces[-1].end_ms) == (0, round(seconds * 1000))
    assert all(before.end_ms == after.start_ms for before, after in pairwise(pieces))
    lengths = [piece.end_ms - piece.start_ms for piece in pieces]
    assert max(lengths) <= 25_000
    assert min(lengths) > 400 / 16
    assert {piece.speech_ratio for piece in pieces} == {None}


def test_no_speech_no_pieces():
    assert cut_recording(levels_of(hush(30.0)), VAD) == []


@pytest.mark.parametrize(
    ("text", "segmentation"),
    [("vad", VAD), ("fixed:25", FIXED), ("none", None), ("fixed:7.5", Segmentation("fixed", 7.5))],
)
def test_segment_options(text, segmentation):
    assert Segmentation.parse(text) == segmentation


@pytest.mark.parametrize("text", ["", "fixed", "fixed:0", "fixed:nan", "fixed:1e9", "vad:3", "silero"])
def test_other_segment_options_are_refused(text):
    with pytest.raises(UserError, match="give vad, none, or fixed:SECONDS"):
        Segmentation.parse(text)


@pytest.mark.parametrize(
    ("name", "rate", "channels"), [("a.wav", 16_000, 1), ("a.flac", 44_100, 2), ("a.ogg", 48_000, 1)]
)
def test_streamed_sound_is_that_of_soundfile_and_soxr(tmp_path, name, rate, channels):
    rng = np.random.default_rng(2)
    sound = rng.uniform(-0.3, 0.3, (round(9.3 * rate), channels))
    soundfile.write(tmp_path / name, sound, rate)
    decoded = soundfile.read(tmp_path / name, dtype="float32", always_2d=True)[0].mean(axis=1)
    expected = decoded if rate == RATE else soxr.resample(decoded, rate, RATE, quality="HQ")
    streamed = np.concatenate(list(blocks(tmp_path / name)))
    assert len(streamed) == len(expected)
    assert np.abs(streamed - expected).max() < 1e-4
    piece = np.concatenate(list(blocks(tmp_path / name, 2.5, 7.0)))
    assert len(piece) == round(4.5 * RATE)


def test_a_long_recording_streams_in_bounded_memory(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        minute = np.concatenate([utterance(50.0, 1), hush(10.0)])
        for _ in range(30):
            file.write(minute)
    tracemalloc.start()
    samples = sum(len(block) for block in blocks(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples == 30 * 60 * RATE  # 115 MB as float32
    assert peak < 5e6


@pytest.mark.parametrize("method", ["vad", "fixed:25"])
def test_the_stage_holds_no_more_of_a_long_recording_than_of_a_short_one(tmp_path, method):
    samples = np.concatenate([utterance(18.0, 1), hush(2.0)])
    for name, times in (("short", 3), ("long", 60)):
        with soundfile.SoundFile(tmp_path / f"{name}.flac", "w", RATE, 1, "PCM_16") as file:
            for _ in range(times):
                file.write(samples)
    short, long = (cut_apart(tmp_path / f"{name}.flac", method) for name in ("short", "long"))
    assert long["pieces"] >= 48
    assert long["longest"] <= 25.0
    assert long["peak_rss_mb"] - short["peak_rss_mb"] < 20  # 20 minutes are 77 MB as float32


def test_a_recording_of_which_nothing_could_be_read_later_is_told_when_it_is_planned(corpus, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_RECORDING_BYTES", 1000)
    (row,), _ = segmented(corpus, planned(corpus, "a.wav"))
    assert row["error"].startswith("too_large: ")
    assert "at most 1000 are read" in row["error"]


def test_a_file_that_breaks_off_gives_its_sound_and_then_the_fault(tmp_path):
    path = tmp_path / "cut.flac"
    soundfile.write(path, recording(40.0)[0], RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    heard = []
    with pytest.raises(RowFault, match=r"truncated|unreadable"):
        heard.extend(len(block) for block in blocks(path))
    assert 0 < sum(heard) < 40 * RATE


@pytest.fixture
def corpus(tmp_path):
    """Three recordings: one of 40 s, one that breaks off, one of nothing but silence."""
    soundfile.write(tmp_path / "a.wav", recording(-1.0, 15.0, -1.0, 15.0, -1.0, 6.0, -1.0)[0], RATE)
    soundfile.write(tmp_path / "b.flac", recording(*([5.0, -1.0] * 8))[0], RATE)
    (tmp_path / "b.flac").write_bytes((tmp_path / "b.flac").read_bytes()[:500_000])
    soundfile.write(tmp_path / "c.wav", hush(5.0), RATE)
    return tmp_path


def planned(folder, *names, **columns):
    rows = [
        {"utterance_id": name, "audio_uri": str(folder / name), "source_language": "en"} | columns for name in names
    ]
    return tables.from_rows(rows, PLANNED)


def descriptor(shard):
    return pa.table({"shard": pa.array([shard], pa.int32()), "attempt": pa.array([0], pa.int32())})


def segmented(folder, rows, segmentation=VAD):
    store = Store(str(folder / "out"))
    under = Store(f"{store.url}/segments")
    recordings = write_plan(under, cut(rows, 60), {"corpus": "x"})
    made = CutRecordings(StoreAt(under.url), segmentation, {})(descriptor(0))
    made = made.append_column("ready_at", pa.array([0.0]))
    summary = CommitSegments(StoreAt(store.url), "mark")(made)
    return pa.concat_tables(read_segments(store, recordings)).to_pylist(), summary.to_pylist()[0]


def test_recordings_become_rows_of_a_plan(corpus):
    reference = {"reference": "what was said", "speaker": "s", "etag": "e"}
    rows, summary = segmented(corpus, planned(corpus, "a.wav", "b.flac", "c.wav", "no.wav", **reference))
    by_recording = {
        name: [row for row in rows if row["utterance_id"].startswith(name)] for name in ("a", "b", "c", "no")
    }
    assert len(by_recording["a"]) == 2
    for row in by_recording["a"]:
        assert row["utterance_id"] == f"a.wav#{round(row['start_s'] * 1000)}-{round(row['end_s'] * 1000)}"
        assert row["duration_s"] == pytest.approx(row["end_s"] - row["start_s"])
        assert (row["recording_id"], row["speaker"], row["etag"], row["error"]) == ("a.wav", "s", "e", None)
        assert 0.5 < row["speech_ratio"] <= 1
        assert row["reference"] is None  # it was of the whole
    *whole, rest = sorted(by_recording["b"], key=lambda row: row["start_s"])
    assert whole
    assert {row["error"] for row in whole} == {None}
    assert rest["error"].startswith(("truncated", "unreadable"))
    assert rest["end_s"] is None
    assert rest["utterance_id"] == f"b.flac#{round(rest['start_s'] * 1000)}-"
    assert [row["error"].partition(":")[0] for row in by_recording["c"] + by_recording["no"]] == ["silent", "missing"]
    assert summary["reasons"] == [row["error"].partition(":")[0] for row in rows if row["error"]]
    assert summary["audio_s"] == pytest.approx(40 + 5 + rest["start_s"], abs=0.1)


def test_a_piece_of_a_file_is_cut_at_times_of_the_file(corpus):
    rows, _ = segmented(corpus, planned(corpus, "a.wav", start_s=10.0, end_s=39.0, reference="all"), FIXED)
    assert rows[0]["start_s"] == 10.0
    assert rows[-1]["end_s"] == 39.0
    assert rows[0]["utterance_id"].startswith("a.wav#10000-")
    short, _ = segmented(corpus / "c.wav.d", planned(corpus, "a.wav", start_s=10.0, end_s=20.0, reference="all"), FIXED)
    assert [(row["start_s"], row["end_s"], row["reference"]) for row in short] == [(10.0, 20.0, "all")]


def test_recordings_inside_parquet_and_tar_are_found(corpus):
    data = (corpus / "a.wav").read_bytes()
    table = pa.table({"audio": pa.array([{"bytes": b"x", "path": ""}] * 5 + [{"bytes": data, "path": "a"}])})
    pa.parquet.write_table(table, corpus / "p.parquet", row_group_size=4)
    (corpus / "s.tar").write_bytes(bytes(512) + data + bytes(512))
    plain = [(row["start_s"], row["end_s"]) for row in segmented(corpus / "1", planned(corpus, "a.wav"))[0]]
    inside = planned(corpus, "p.parquet", row_index=5)
    assert [(row["start_s"], row["end_s"]) for row in segmented(corpus / "2", inside)[0]] == plain
    member = planned(corpus, "s.tar", byte_offset=512, byte_size=len(data))
    assert [(row["start_s"], row["end_s"]) for row in segmented(corpus / "3", member)[0]] == plain
