import pytest

from corpora import heard, only, refused, rows_of, sound, write_sound


@pytest.fixture
def data(tmp_path):
    write_sound(tmp_path / "wav" / "rec1.flac", 1, 3.0)
    write_sound(tmp_path / "wav" / "rec 2.wav", 2, 2.0)
    (tmp_path / "wav.scp").write_text(f"rec1 wav/rec1.flac\nrec2\t{tmp_path}/wav/rec 2.wav\n")
    return tmp_path


def test_recordings_are_utterances_without_segments(data):
    (data / "text").write_text("rec1 GOOD  MORNING\nrec2 ÜBER\nrec3 not there\n")
    (data / "utt2spk").write_text("rec1 anna\nrec2 bo\n")
    (data / "utt2dur").write_text("rec1 3.0\n")
    one, two = rows_of(data)
    assert (one["utterance_id"], one["reference"], one["speaker"], one["duration_s"]) == (
        "rec1",
        "GOOD  MORNING",
        "anna",
        3.0,
    )
    assert (two["utterance_id"], two["reference"], two["speaker"], two["duration_s"]) == ("rec2", "ÜBER", "bo", None)
    assert (one["start_s"], one["end_s"], one["recording_id"]) == (None, None, None)
    assert (heard(one) == sound(1, 3.0)).all()
    assert (heard(two) == sound(2, 2.0)).all()


def test_segments(data):
    (data / "segments").write_text("rec1-0005 rec1 0.5 1.25\nrec1-0015 rec1 1.5 -1\nrec2-0000 rec2 0.0 1.0 A\n")
    (data / "text").write_text("rec1-0005 half\nrec2-0000 one\n")
    a, b, c = rows_of(data)
    assert [row["utterance_id"] for row in (a, b, c)] == ["rec1-0005", "rec1-0015", "rec2-0000"]
    assert [row["recording_id"] for row in (a, b, c)] == ["rec1", "rec1", "rec2"]
    assert [(row["start_s"], row["end_s"], row["duration_s"]) for row in (a, b)] == [
        (0.5, 1.25, 0.75),
        (1.5, None, None),
    ]
    assert [row["reference"] for row in (a, b, c)] == ["half", None, "one"]
    assert (heard(a) == sound(1, 3.0)[8000:20_000]).all()
    assert (heard(b) == sound(1, 3.0)[24_000:]).all()
    assert (heard(c) == sound(2, 2.0)[:16_000]).all()


def test_lines_that_are_wrong_are_rows_with_errors(data):
    (data / "segments").write_text("a rec1 0.5 1\nb nowhere 0 1\nc rec1 1\nd rec1 2 1\ne rec1 x 1\n")
    a, *bad = rows_of(data)
    assert a["error"] is None
    assert [row["utterance_id"] for row in bad] == ["row-1", "row-2", "row-3", "row-4"]
    for line, (row, said) in enumerate(
        zip(bad, ("nowhere is not in wav.scp", "3 fields", "starts at 2 s", "'x'"), strict=True), 2
    ):
        assert row["error"].startswith(f"bad_manifest_row: segments line {line} ")
        assert said in row["error"]


@pytest.mark.parametrize(
    ("line", "said"), [("b sph2pipe -f wav b.sph |", "is a command"), ("b raw_mfcc.ark:1234", "is an archive")]
)
def test_what_is_no_file_is_refused_by_its_line(data, line, said):
    with (data / "wav.scp").open("a") as file:
        file.write(line + "\n")
    message = refused(data)
    assert f"{data}/wav.scp line 3 {said}" in message
    (data / "segments").write_text("a rec1 0.5 1\n")
    assert f"{data}/wav.scp line 3 {said}" in refused(data)


def test_a_line_without_a_path(tmp_path):
    (tmp_path / "wav.scp").write_text("rec1\n\n")
    assert "wav.scp line 1 (row 0 counted from 0): no path" in only(tmp_path)["error"]
