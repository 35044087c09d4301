import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import only, refused, rows_of, write_lines
from spire_ray import tables
from spire_ray.corpus import read_corpus


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
    lines = 8192 + 100
    line = '{"audio_filepath": "wav/%08d.wav", "duration": 5.25, "offset": 1.5}\n'
    (tmp_path / "m.jsonl").write_text("".join(line % n for n in range(lines)))
    ids = read_corpus(str(tmp_path / "m.jsonl")).column("utterance_id").to_pylist()
    assert ids == [f"wav/{n:08}.wav#1500-6750" for n in range(lines)]
