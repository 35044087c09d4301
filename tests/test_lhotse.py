import gzip
import json

import pytest
from lhotse import AudioSource, CutSet, MonoCut, MultiCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from corpora import heard, only, refused, rows_of, sound, write_sound


@pytest.fixture
def recordings(tmp_path):
    paths = [write_sound(tmp_path / f"rec{n}.flac", n, 4.0) for n in (1, 2)]
    return [Recording.from_file(path) for path in paths]


def supervision(name, recording, start, duration, text=None, **more):
    return SupervisionSegment(name, recording, start, duration, text=text, **more)


def test_recordings(tmp_path, recordings):
    RecordingSet.from_recordings(recordings).to_file(tmp_path / "all.jsonl.gz")
    rows = rows_of(tmp_path / "all.jsonl.gz")
    assert [(row["utterance_id"], row["duration_s"], row["recording_id"]) for row in rows] == [
        ("rec1", 4.0, "rec1"),
        ("rec2", 4.0, "rec2"),
    ]
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(None, None)] * 2
    assert (heard(rows[1]) == sound(2, 4.0)).all()


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize("given", ["recordings", "supervisions", "folder"])
def test_recordings_and_their_supervisions(tmp_path, recordings, suffix, given):
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    said = [
        supervision("a", "rec1", 0.5, 1.25, "half", speaker="anna", language="English"),
        supervision("b", "rec1", 2.0, 2.0, "two"),
        supervision("x", "nowhere", 0, 1),
    ]
    RecordingSet.from_recordings(recordings).to_file(manifests / f"x_recordings_dev.{suffix}")
    SupervisionSet.from_segments(said).to_file(manifests / f"x_supervisions_dev.{suffix}")
    rows = rows_of(manifests if given == "folder" else manifests / f"x_{given}_dev.{suffix}")
    a, b, bad, bare = rows
    assert (a["utterance_id"], a["recording_id"], a["reference"], a["speaker"]) == ("a", "rec1", "half", "anna")
    assert (a["start_s"], a["end_s"], a["duration_s"], a["source_language"]) == (0.5, 1.75, 1.25, "en")
    assert (b["start_s"], b["end_s"], b["reference"]) == (2.0, 4.0, "two")
    assert "recording nowhere is not in" in bad["error"]
    assert "line 3" in bad["error"]
    assert (bare["utterance_id"], bare["start_s"]) == ("rec2", None)
    assert (heard(a) == sound(1, 4.0)[8000:28_000]).all()


def test_supervisions_without_their_recordings(tmp_path):
    SupervisionSet.from_segments([supervision("a", "rec1", 0, 1)]).to_file(tmp_path / "supervisions.jsonl")
    assert "recordings must lie beside it" in refused(tmp_path / "supervisions.jsonl")


def test_cuts(tmp_path, recordings):
    one, two = recordings
    said = [supervision("s2", "rec2", 0.0, 1.0, "first"), supervision("s3", "rec2", 1.5, 1.0, "second")]
    cuts = [
        MonoCut("whole", 0, 4.0, 0, [supervision("s0", "rec1", 0, 4.0, "all of it")], recording=one),
        MonoCut("piece", 1.0, 1.5, 0, [supervision("s1", "rec1", 0.25, 1.0, "a piece", speaker="bo")], recording=one),
        MonoCut("bare", 0.5, 1.0, 0, recording=two),
        MonoCut("many", 1.0, 3.0, 0, said, recording=two),
        MonoCut("padded", 0, 2.0, 0, recording=two).pad(3.0),
        MonoCut("resampled", 0, 4.0, 0, recording=two.resample(8000)),
    ]  # fmt: skip
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    rows = {row["utterance_id"]: row for row in rows_of(tmp_path / "cuts.jsonl.gz")}
    assert all(row["error"] is None for row in rows.values())
    spans = {name: (row["start_s"], row["end_s"], row["reference"]) for name, row in rows.items()}
    padded = next(name for name in rows if name not in {"whole", "piece", "bare", "s2", "s3", "resampled"})
    assert spans == {
        "whole": (None, None, "all of it"),
        "piece": (1.0, 2.5, "a piece"),
        "bare": (0.5, 1.5, None),
        "s2": (1.0, 2.0, "first"),
        "s3": (2.5, 3.5, "second"),
        padded: (0.0, 2.0, None),
        "resampled": (None, None, None),
    }
    assert rows["piece"]["speaker"] == "bo"
    for cut in cuts[:3]:  # what lhotse itself reads
        assert (heard(rows[cut.id]) / 32_768 == cut.load_audio()[0]).all()
    assert [cut.id for cut in cuts][4] == padded


def test_channels(tmp_path, recordings):
    one, two = recordings
    both = Recording(
        "both", [AudioSource("file", [n], r.sources[0].source) for n, r in enumerate((one, two))], 16_000, 64_000, 4.0
    )
    stereo = Recording("stereo", [AudioSource("file", [0, 1], one.sources[0].source)], 16_000, 64_000, 4.0)
    cuts = [
        MonoCut("right", 0, 4.0, 1, recording=both),
        MultiCut("all", 0, 4.0, [0, 1], recording=stereo),
        MonoCut("left", 0, 4.0, 0, recording=stereo),
        MultiCut("apart", 0, 4.0, [0, 1], recording=both),
    ]  # fmt: skip
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    right, mixed, left, apart = rows_of(tmp_path / "cuts.jsonl")
    assert (right["utterance_id"], right["audio_uri"]) == ("right", two.sources[0].source)
    assert (mixed["utterance_id"], mixed["audio_uri"]) == ("all", one.sources[0].source)
    assert "cuts.jsonl line 3" in left["error"]
    assert "channel [0] of 2" in left["error"]
    assert "lies in 0 files" in apart["error"]


def test_cuts_that_no_file_holds(tmp_path, recordings):
    one, two = recordings
    mono = MonoCut("m", 0, 4.0, 0, recording=one)
    cuts = [mono.mix(MonoCut("n", 0, 4.0, 0, recording=two)), mono.perturb_speed(1.1)]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    mixed, fast = rows_of(tmp_path / "cuts.jsonl")
    assert "mixes 2 cuts" in mixed["error"]
    assert "Speed" in fast["error"]


def test_sources_that_are_no_files(tmp_path, recordings):
    sphere = Recording("sph", [AudioSource("command", [0], "sph2pipe a.sph")], 8000, 8000, 1.0)
    RecordingSet.from_recordings([recordings[0], sphere]).to_file(tmp_path / "recordings.jsonl")
    message = refused(tmp_path / "recordings.jsonl")
    assert "recordings.jsonl line 2" in message
    assert "is a command, not a file or URL" in message


def test_relative_sources_and_damaged_lines(tmp_path, recordings):
    fields = recordings[0].to_dict()
    fields["sources"][0]["source"] = "rec1.flac"
    lines = [json.dumps(fields), '{"id": "half', json.dumps({"id": "x", "sources": [], "sampling_rate": 1})]
    (tmp_path / "recordings.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    good, half, bare = rows_of(tmp_path / "recordings.jsonl.gz")
    assert (heard(good) == sound(1, 4.0)).all()
    assert "line 2" in half["error"]
    assert "not as lhotse writes it: KeyError 'duration'" in bare["error"]


def test_a_folder_of_cuts_and_recordings_is_named_by_one_file(tmp_path, recordings):
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    RecordingSet.from_recordings(recordings).to_file(manifests / "recordings.jsonl")
    CutSet.from_cuts([MonoCut("m", 0, 4.0, 0, recording=recordings[0])]).to_file(manifests / "cuts.jsonl")
    assert "both cuts and recordings" in refused(manifests)
    assert only(manifests / "cuts.jsonl")["utterance_id"] == "m"
