import json
import os
from typing import ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from fsspec.implementations.memory import MemoryFileSystem

from spire_ray import tables
from spire_ray.corpus import NOTE, read_corpus, read_text_corpus
from spire_ray.errors import MachineFault, UserError


def write_audio(path, seconds=1.0, rate=16_000, format=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    sf.write(path, 0.1 * rng.standard_normal(round(seconds * rate)), rate, format=format)
    return path


def write_lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def rows_of(corpus, **options):
    table = read_corpus(str(corpus), **options)
    assert table.schema.names == [name for name in tables.PLAN.names if name != "shard"]
    assert all(table.schema.field(name).type == tables.PLAN.field(name).type for name in table.schema.names)
    return table.to_pylist()


def only(corpus, **options):
    (row,) = rows_of(corpus, **options)
    return row


def refused(corpus, read=read_corpus, **options):
    with pytest.raises(UserError) as caught:
        read(str(corpus), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hugging_face(path, rows, row_group_size=None, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"audio": audio, **columns}), path, row_group_size=row_group_size)
    return path


# A folder of audio


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


# On object storage


class Tagged(MemoryFileSystem):
    """A file system with ETags, as object storage has."""

    protocol = ("tagged",)
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    asked: ClassVar[list] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("tagged:/"))

    def unstrip_protocol(self, name):
        return f"tagged:/{name}"

    def info(self, path, **kwargs):
        return self._tag(super().info(path, **kwargs))

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **kwargs):
        found = super().find(path, maxdepth, withdirs, detail=True, **kwargs)
        return {name: self._tag(info) for name, info in found.items()} if detail else list(found)

    def _tag(self, info):
        return info | (
            {"ETag": f'"tag-of-{len(self.store[info["name"]].getvalue())}"'} if info["type"] == "file" else {}
        )

    def _open(self, path, mode="rb", **kwargs):
        Tagged.asked.append(path)
        return super()._open(path, mode, **kwargs)


@pytest.fixture
def tagged():
    fsspec.register_implementation("tagged", Tagged, clobber=True)
    Tagged.store.clear()
    Tagged.asked.clear()
    return Tagged()


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


# Manifests


def test_nemo_manifests(tmp_path):
    path = write_lines(
        tmp_path / "train.json",
        {"audio_filepath": "wav/a.wav", "duration": 3.5, "text": "hello", "lang": "de"},
        {"audio_filepath": "/data/b.flac", "offset": 1.25, "duration": 2.5, "text": "world", "speaker": 17},
        {"audio_filepath": f"{tmp_path}/wav/c.wav", "offset": 0, "duration": 4},
    )
    a, b, c = rows_of(path)
    assert (a["utterance_id"], a["audio_uri"]) == ("wav/a.wav", f"{tmp_path}/wav/a.wav")
    assert (a["duration_s"], a["start_s"], a["end_s"]) == (3.5, None, None)
    assert (a["reference"], a["text"], a["source_language"]) == ("hello", None, "de")
    assert (b["utterance_id"], b["audio_uri"]) == ("/data/b.flac#1250-3750", "/data/b.flac")
    assert (b["start_s"], b["end_s"], b["duration_s"], b["speaker"]) == (1.25, 3.75, 2.5, "17")
    assert (c["utterance_id"], c["start_s"], c["end_s"]) == ("wav/c.wav#0-4000", 0.0, 4.0)
    assert b["source_language"] == "en"


@pytest.mark.parametrize(
    "name", ["audio", "audio_filepath", "audio_path", "path", "file", "filename", "audio_uri", "wav", "uri", "Path"]
)
def test_every_name_of_an_audio_column(tmp_path, name):
    assert only(write_lines(tmp_path / "m.jsonl", {name: "./x//a.wav"}))["utterance_id"] == "x/a.wav"
    (tmp_path / "m.csv").write_text(f"n,{name}\n1,a.wav\n")
    assert only(tmp_path / "m.csv")["utterance_id"] == "a.wav"


@pytest.mark.parametrize(
    ("row", "span", "tail"),
    [
        ({"start": 1, "end": 2.5}, (1.0, 2.5, 1.5), "#1000-2500"),
        ({"start": "1.5", "end": "2.25"}, (1.5, 2.25, 0.75), "#1500-2250"),
        ({"start": 1.5}, (1.5, None, None), "#1500-"),
        ({"end": 2}, (None, 2.0, 2.0), "#0-2000"),
        ({"offset": 1}, (1.0, None, None), "#1000-"),
        ({"offset": 1, "duration": 0.5}, (1.0, 1.5, 0.5), "#1000-1500"),
        ({"start": 1, "end": 2, "duration": 60}, (1.0, 2.0, 1.0), "#1000-2000"),
        ({"duration": 60}, (None, None, 60.0), ""),
        ({"start": None, "end": None, "offset": None}, (None, None, None), ""),
    ],
)
def test_spans(tmp_path, row, span, tail):
    planned = only(write_lines(tmp_path / "m.jsonl", {"audio": "a.wav", **row}))
    assert (planned["start_s"], planned["end_s"], planned["duration_s"]) == span
    assert planned["utterance_id"] == f"a.wav{tail}"


@pytest.mark.parametrize("name", ["id", "utterance_id", "utt_id"])
def test_an_id_of_the_manifest_wins(tmp_path, name):
    rows = rows_of(
        write_lines(tmp_path / "m.jsonl", {"audio": "a.wav", name: "e\u0301", "start": 1}, {"audio": "b", name: None},
                    {"audio": "c", name: 7})
    )  # fmt: skip
    assert [row["utterance_id"] for row in rows] == ["\u00e9", "b", "7"]


def test_references_and_the_rest(tmp_path):
    path = write_lines(
        tmp_path / "m.jsonl",
        {"audio": "a.wav", "references": [{"language": "de", "text": "Hallo"}], "speaker_id": "s", "dataset": "set"},
        {"audio": "b.wav", "reference_de": "Tag", "translation_fr": "Jour", "text_zh": "日", "text_id": "t-1"},
        {"audio": "c.wav", "sentence": "said", "recording_id": "r", "translation_de": ""},
    )
    a, b, c = rows_of(path)
    assert a["references"] == [{"language": "de", "text": "Hallo"}]
    assert (a["speaker"], a["corpus"]) == ("s", "set")
    assert {one["language"]: one["text"] for one in b["references"]} == {"de": "Tag", "fr": "Jour", "zh": "日"}
    assert (c["reference"], c["recording_id"], c["references"]) == ("said", "r", None)


BAD = [
    ('{"audio": "a.wav"', "no JSON"),
    ('["a.wav"]', "no JSON object"),
    ("[" * 100_000, "no JSON"),
    ({"audio": None}, "no value in audio"),
    ({"audio": ""}, "no value in audio"),
    ({"text": "no audio at all"}, "no audio column"),
    ({"audio": ["a.wav"]}, "not text"),
    ({"audio": "a\0.wav"}, "NUL"),
    ({"audio": "nosuch://bucket/a.wav"}, "nosuch://"),
    ({"audio": "a.wav", "start": 2, "end": 2}, "starts at 2 s"),
    ({"audio": "a.wav", "start": 3, "end": 2}, "starts at 3 s"),
    ({"audio": "a.wav", "start": -1, "end": 2}, "start is -1"),
    ({"audio": "a.wav", "offset": 1, "duration": 0}, "starts at 1 s"),
    ({"audio": "a.wav", "duration": "long"}, "'long'"),
    ({"audio": "a.wav", "duration": True}, "True"),
    ('{"audio": "a.wav", "end": NaN}', "nan"),
    ('{"audio": "a.wav", "end": 1e999}', "inf"),
    ({"audio": "a.wav", "end": {"s": 1}}, "not a number"),
    ({"audio": "a.wav", "id": "a\nb"}, "control character"),
    ({"audio": "a.wav", "id": "a\u0085b"}, "control character"),
    ({"audio": "a.wav", "id": "é" * 257}, "514 bytes"),
    ({"audio": "x" * 600}, "600 bytes"),
    ('{"audio": "a.wav", "id": "\\ud800"}', "UTF-8"),
    ({"audio": "a.wav", "references": ["Hallo"]}, "references"),
    ({"audio": "a.wav", "references": "Hallo"}, "references"),
]


@pytest.mark.parametrize(("bad", "said"), BAD)
def test_a_row_that_cannot_be_planned_is_a_row_with_an_error(tmp_path, bad, said):
    path = write_lines(tmp_path / "m.jsonl", {"audio": "first.wav"}, "", bad, {"audio": "last.wav"})
    first, row, last = rows_of(path)
    assert (first["utterance_id"], last["utterance_id"]) == ("first.wav", "last.wav")
    assert row["utterance_id"] == "row-1"
    assert row["error"].startswith("bad_manifest_row: line 3 (row 1 counted from 0): ")
    assert said in row["error"]
    assert row["audio_uri"] is None


def test_bytes_that_are_no_utf8(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"audio": "a.wav"}\r\n{"audio": "\xff.wav"}\n')
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfaudio\na.wav\n\xff.wav\n")
    for name in ("m.jsonl", "m.csv"):
        good, bad = rows_of(tmp_path / name)
        assert good["utterance_id"] == "a.wav"
        assert "UTF-8" in bad["error"] or "utf-8" in bad["error"]


def test_csv(tmp_path):
    (tmp_path / "m.csv").write_text(
        'id,path,transcript,reference_de,start,end\nx,a.wav,"one, ""two""\nthree",eins,,\n,b.wav,,,0.5,1\n\ntoo,few\n'
    )
    a, b, bad = rows_of(tmp_path / "m.csv")
    assert (a["utterance_id"], a["reference"], a["start_s"]) == ("x", 'one, "two"\nthree', None)
    assert a["references"] == [{"language": "de", "text": "eins"}]
    assert (b["utterance_id"], b["reference"], b["end_s"]) == ("b.wav#500-1000", None, 1.0)
    assert bad["error"] == "bad_manifest_row: line 6 (row 2 counted from 0): 2 fields, the header has 6"


def test_tsv_does_not_quote(tmp_path):
    (tmp_path / "m.tsv").write_text('path\tsentence\na.mp3\t"Stop, he said\nb.mp3\t"Go" on\n')
    rows = rows_of(tmp_path / "m.tsv")
    assert [(row["utterance_id"], row["reference"]) for row in rows] == [
        ("a.mp3", '"Stop, he said'),
        ("b.mp3", '"Go" on'),
    ]


def test_parquet_without_audio_bytes(tmp_path):
    table = pa.table(
        {
            "path": ["a.wav", None, "c.wav"],
            "start": pa.array([0.5, None, 3.0], pa.float32()),
            "end": pa.array([1.5, None, 2.0], pa.float32()),
            "references": pa.array([[{"language": "de", "text": "ja"}], None, []], tables.REFERENCES),
            "embedding": [[1.0], [2.0], [3.0]],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    a, b, c = rows_of(tmp_path / "m.parquet")
    assert (a["utterance_id"], a["audio_uri"]) == ("a.wav#500-1500", f"{tmp_path}/a.wav")
    assert a["references"] == [{"language": "de", "text": "ja"}]
    assert (b["utterance_id"], b["row_index"]) == ("row-1", None)
    assert b["error"].startswith("bad_manifest_row: row 1 (row 1 counted from 0)")
    assert c["error"] is not None


def test_a_folder_of_parquet_manifests_counts_its_rows_through(tmp_path):
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"audio": [f"{name}.wav", None]}), tmp_path / name / "part.parquet")
    rows = rows_of(tmp_path)
    assert [row["utterance_id"] for row in rows] == ["1.wav", "row-1", "2.wav", "row-3"]
    assert rows[2]["audio_uri"] == f"{tmp_path}/2/2.wav"


def test_manifests_that_are_refused(tmp_path):
    message = refused(write_lines(tmp_path / "m.jsonl", {"speech": "a.wav", "words": "x"}))
    assert "speech, words" in message
    assert "audio_filepath" in message
    assert "no audio column" in refused(write_lines(tmp_path / "n.jsonl", "no json", "at all"))
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    assert "a, b" in refused(tmp_path / "m.csv")
    pq.write_table(pa.table({"speech": ["a"], "other": [1]}), tmp_path / "m.parquet")
    assert "speech, other" in refused(tmp_path / "m.parquet")
    pq.write_table(pa.table({"audio": pa.array([], pa.string())}), tmp_path / "e.parquet")
    for name, content in (("e.jsonl", "\n\n"), ("e.csv", "audio,text\n"), ("e.tsv", "")):
        (tmp_path / name).write_text(content)
    for name in ("e.jsonl", "e.csv", "e.tsv", "e.parquet"):
        assert "is empty" in refused(tmp_path / name)
    for name, content in (("m.xml", b"<a/>"), ("m.txt", b"a.wav\n"), ("m.wav", b"RIFF")):
        (tmp_path / name).write_bytes(content)
        assert "neither a folder nor a manifest" in refused(tmp_path / name)
    (tmp_path / "no.parquet").write_bytes(b"PAR1 but no more PAR1")
    assert "not a Parquet file" in refused(tmp_path / "no.parquet")
    (tmp_path / "text.parquet").write_bytes(b"audio\na.wav\n")
    assert "not a Parquet file" in refused(tmp_path / "text.parquet")


def test_the_content_decides_over_the_name(tmp_path):
    assert only(write_lines(tmp_path / "train.manifest", {"audio": "a.wav"}))["utterance_id"] == "a.wav"
    pq.write_table(pa.table({"audio": ["b.wav"]}), tmp_path / "m.csv")
    assert only(tmp_path / "m.csv")["utterance_id"] == "b.wav"


def test_more_lines_than_one_batch_holds(tmp_path):
    lines = 65_536 + 100
    line = '{"audio_filepath": "wav/%08d.wav", "duration": 5.25, "offset": 1.5}\n'
    (tmp_path / "m.jsonl").write_text("".join(line % n for n in range(lines)))
    ids = read_corpus(str(tmp_path / "m.jsonl")).column("utterance_id").to_pylist()
    assert ids == [f"wav/{n:08}.wav#1500-6750" for n in range(lines)]


# Parquet with audio bytes


def test_the_hugging_face_layout(tmp_path):
    path = hugging_face(
        tmp_path / "data" / "train-0.parquet",
        [{"bytes": b"x", "path": "p.wav"}, {"bytes": None, "path": "q.wav"}],
        text=["said", None],
        duration=[2.5, None],
    )
    a, b = rows_of(tmp_path)
    assert (a["utterance_id"], b["utterance_id"]) == ("data/train-0.parquet#0", "data/train-0.parquet#1")
    assert (a["audio_uri"], a["row_index"], a["byte_size"]) == (str(path), 0, None)
    assert (a["reference"], a["duration_s"], b["row_index"]) == ("said", 2.5, 1)
    assert a["etag"] == f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    assert [row["utterance_id"] for row in rows_of(path)] == ["train-0.parquet#0", "train-0.parquet#1"]


def test_a_binary_audio_column_with_ids(tmp_path):
    table = pa.table({"audio": pa.array([b"x", b"y"], pa.binary()), "id": ["one", None], "start": [1.0, 2.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet")
    assert [row["utterance_id"] for row in rows] == ["one", "a.parquet#1#2000-"]


def test_planning_does_not_read_the_audio_bytes(tagged, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).bytes(1 << 20)
    path = hugging_face(tmp_path / "a.parquet", [{"bytes": noise, "path": None}] * 8, text=["x"] * 8)
    tagged.pipe_file("/bucket/a.parquet", path.read_bytes())
    read = []
    opened = Tagged._open

    def counting(self, path, mode="rb", **kwargs):
        file = opened(self, path, mode, **kwargs)
        inner = file.read
        monkeypatch.setattr(file, "read", lambda n=-1: (read.append(len(data := inner(n))), data)[1], raising=False)
        return file

    monkeypatch.setattr(Tagged, "_open", counting)
    assert len(rows_of("tagged://bucket/a.parquet")) == 8
    assert 0 < sum(read) < 1 << 20


def test_audio_files_beside_parquet(tmp_path):
    write_audio(tmp_path / "a.wav")
    pq.write_table(pa.table({"speaker": ["s"]}), tmp_path / "meta.parquet")
    assert only(tmp_path)["utterance_id"] == "a.wav"
    hugging_face(tmp_path / "data.parquet", [{"bytes": b"x", "path": None}])
    assert "both audio files and Parquet" in refused(tmp_path)


# Text


def texts_of(corpus, **options):
    return read_text_corpus(str(corpus), **{"source_language": "de"} | options).to_pylist()


def test_a_text_file_is_a_sentence_a_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffEins\r\nZwei\u2028drei\n\n  \nFünf".encode() + b"\n\xff\n")
    rows = texts_of(tmp_path / "a.txt")
    assert [row["utterance_id"] for row in rows] == [f"line-{n:06}" for n in range(5)] + ["row-5"]
    assert [row["text"] for row in rows] == ["Eins", "Zwei\u2028drei", None, "  ", "Fünf", None]
    assert [row["error"] and row["error"].partition(":")[0] for row in rows] == [
        None, None, "empty", "empty", None, "bad_manifest_row",
    ]  # fmt: skip
    assert {row["source_language"] for row in rows} == {"de"}


@pytest.mark.parametrize("name", ["text", "source", "sentence", "src"])
def test_text_columns(tmp_path, name):
    write_lines(tmp_path / "a.jsonl", {name: "Eins", "id": "x", "translation": "One"}, {name: "Zwei"}, "bad")
    rows = texts_of(tmp_path / "a.jsonl", target_language="en")
    assert [row["utterance_id"] for row in rows] == ["x", "line-000001", "row-2"]
    assert rows[0]["references"] == [{"language": "en", "text": "One"}]
    assert [row["text"] for row in rows] == ["Eins", "Zwei", None]
    pq.write_table(pa.table({name: ["Eins", None], "reference_fr": ["Un", None]}), tmp_path / "a.parquet")
    rows = texts_of(tmp_path / "a.parquet")
    assert rows[0]["references"] == [{"language": "fr", "text": "Un"}]
    assert rows[1]["error"] == "empty: row 1 has no text"


def test_text_corpora_that_are_refused(tmp_path):
    def message(path):
        return refused(path, read_text_corpus, source_language="de")

    assert "does not exist" in message(tmp_path / "nowhere.txt")
    assert "not a file of the types read" in message(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"")
    assert "is empty" in message(tmp_path / "a.txt")
    assert "words" in message(write_lines(tmp_path / "a.jsonl", {"words": "x"}))
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    assert "not a file of the types read" in message(tmp_path / "a.pdf")
