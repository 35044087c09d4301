import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bundle import make_tokenizer
from corpora import refused, write_lines
from spire_ray.cli import main
from spire_ray.corpus import read_text_corpus
from spire_ray.errors import UserError
from spire_ray.prompts import Prompts
from spire_ray.text_corpus import read_examples


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


def test_examples_of_a_file_are_in_a_base_models_prompt(tmp_path):
    lines = [{"text": f"one {n}\n more", "text_de": f"eins {n}", "text_fr": "un"} for n in range(5)]
    write_lines(tmp_path / "dev.jsonl", *lines, {"text": None, "text_de": "nichts"})
    examples = read_examples(str(tmp_path / "dev.jsonl"), "en", ["de"])
    assert examples == {("en", "de"): tuple((f"one {n} more", f"eins {n}") for n in range(5))}
    tokenizer = make_tokenizer(chat=False)
    asked = Prompts(tokenizer, "raw", examples=examples).translate_text("ten", "en", "de")
    # All five, in an order of their own.
    order = [int(line[-1]) for line in tokenizer.decode(asked).split("\n")[1:10:2]]
    assert sorted(order) == [0, 1, 2, 3, 4]
    literal = "".join(f"English: one {n} more\nGerman: eins {n}\n" for n in order) + "English: ten\nGerman:"
    assert asked == tokenizer(literal)["input_ids"]


def test_examples_of_plain_columns_and_too_few_of_them(tmp_path, capsys):
    write_lines(tmp_path / "dev.jsonl", *({"src": f"a{n}", "tgt": f"b{n}"} for n in range(5)))
    assert len(read_examples(str(tmp_path / "dev.jsonl"), "de", ["en"])["de", "en"]) == 5
    with pytest.raises(UserError, match="has 0 examples from de to en: 5 are needed"):
        read_examples(str(tmp_path / "dev.jsonl"), "de", ["en", "fr"])
    command = ["translate", "x.txt", str(tmp_path / "out"), "--from", "de", "--languages", "en", "--checkpoint", "tiny"]
    assert main([*command, "--shots", "5"]) == 2
    assert "belong together" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
