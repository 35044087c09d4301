import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import refused, write_lines
from spire_ray.corpus import read_text_corpus


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
