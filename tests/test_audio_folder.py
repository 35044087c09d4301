import json
import os

import fsspec
import pytest

from corpora import Tagged, empty_tagged, only, refused, rows_of, write_audio
from spire_ray.corpus import NOTE, read_corpus
from spire_ray.errors import MachineFault


@pytest.fixture
def tagged():
    return empty_tagged()


def test_a_folder_is_read_recursively_with_its_headers(tmp_path):
    write_audio(tmp_path / "b.flac", 2.5, 44_100)
    write_audio(tmp_path / "deep" / "er" / "a.WAV", 1.0, 8_000, "WAV")
    for name, format in (("c.ogg", "OGG"), ("d.oga", "OGG"), ("f.mp3", "MP3")):
        write_audio(tmp_path / name, 1.5, format=format)
    write_audio(tmp_path / "e.opus", 1.5, 48_000, "OGG")
    (tmp_path / "notes.txt").write_text("no audio")
    rows = {row["utterance_id"]: row for row in rows_of(tmp_path, source_language="nl")}
    assert set(rows) == {"b.flac", "deep/er/a.WAV", "c.ogg", "d.oga", "e.opus", "f.mp3"}
    row = rows["deep/er/a.WAV"]
    path = tmp_path / "deep" / "er" / "a.WAV"
    assert row["audio_uri"] == str(path)
    assert row["byte_size"] == path.stat().st_size
    assert row["etag"] == f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    assert row["source_language"] == "nl"
    assert row["error"] is None
    assert {name: round(row["duration_s"], 3) for name, row in rows.items()} == {
        "b.flac": 2.5, "deep/er/a.WAV": 1.0, "c.ogg": 1.5, "d.oga": 1.5, "e.opus": 1.5, "f.mp3": 1.5,
    }  # fmt: skip


def test_a_broken_file_is_planned_without_a_duration(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF but not really")
    (tmp_path / "empty.flac").write_bytes(b"")
    rows = rows_of(tmp_path)
    assert [(row["utterance_id"], row["duration_s"], row["error"]) for row in rows] == [
        ("broken.wav", None, None),
        ("empty.flac", None, None),
    ]


def test_what_is_not_read_is_told_and_hidden_files_are_not(tmp_path):
    write_audio(tmp_path / "a.wav")
    for name in ("b.m4a", "c.m4a", "d.wma", "e.g722", "._a.wav", ".cache/x.wav", "speakers.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    table = read_corpus(str(tmp_path))
    assert table.column("utterance_id").to_pylist() == ["a.wav"]
    assert table.schema.metadata[NOTE].decode().endswith("1 .g722, 2 .m4a, 1 .wma")


def test_folder_ids_are_nfc_and_uris_are_the_names_on_disk(tmp_path):
    write_audio(tmp_path / "cafe\u0301.wav")
    row = only(tmp_path)
    assert row["utterance_id"] == "caf\u00e9.wav"
    assert os.path.exists(row["audio_uri"])


def test_a_file_name_that_can_be_no_id_is_a_row_with_an_error(tmp_path):
    write_audio(tmp_path / "a.wav")
    write_audio(tmp_path / "new\nline.wav")
    os.rename(write_audio(tmp_path / "x.wav"), os.fsencode(tmp_path) + b"/\xff.wav")
    rows = rows_of(tmp_path)
    assert [row["utterance_id"] for row in rows] == ["a.wav", "row-1", "row-2"]
    assert all(row["error"].startswith("bad_manifest_row: ") for row in rows[1:])


def test_odd_names_are_paths_and_nothing_else(tmp_path):
    for name in ("a::b.wav", "~root.wav", "s p.wav", "[1]*.wav", "100%25.wav"):
        write_audio(tmp_path / name)
    for row in rows_of(tmp_path):
        assert row["audio_uri"] == str(tmp_path / row["utterance_id"])


def test_folders_that_hold_no_audio(tmp_path):
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    assert ".flac" in refused(tmp_path)
    (tmp_path / "b.m4a").write_bytes(b"x")
    assert "1 .m4a" in refused(tmp_path)


def test_a_folder_on_any_file_system(tagged, tmp_path):
    data = write_audio(tmp_path / "a.flac", 2.0).read_bytes()
    tagged.pipe_file("/bucket/corpus/x/a.flac", data)
    row = only("tagged://bucket/corpus")
    assert row["utterance_id"] == "x/a.flac"
    assert fsspec.open(row["audio_uri"]).open().read() == data
    assert (row["etag"], row["byte_size"], row["duration_s"]) == (f"tag-of-{len(data)}", len(data), 2.0)


def test_a_manifest_on_object_storage_resolves_against_its_folder(tagged):
    lines = [{"audio": "clips/a.wav"}, {"audio": "tagged://bucket/set/b.wav"}, {"audio": "tagged://other/c.wav"}]
    tagged.pipe_file("/bucket/set/m.jsonl", "\n".join(map(json.dumps, lines)).encode())
    Tagged.asked.clear()
    rows = rows_of("tagged://bucket/set/m.jsonl")
    assert [row["utterance_id"] for row in rows] == ["clips/a.wav", "b.wav", "tagged://other/c.wav"]
    assert rows[0]["audio_uri"].endswith("bucket/set/clips/a.wav")
    assert rows[0]["audio_uri"].startswith("tagged://")
    assert set(Tagged.asked) == {"/bucket/set/m.jsonl"}  # no file is looked at for a plan


def test_a_corpus_behind_refused_access_stops_the_run(tagged, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "no")

    monkeypatch.setattr(Tagged, "info", refuse)
    with pytest.raises(MachineFault, match="tagged://bucket/corpus"):
        read_corpus("tagged://bucket/corpus")
