"""build-dataset on small runs made of rows: what is written, what is dropped and why, and what never leaks."""

import json
from pathlib import Path

import jiwer
import pytest
from datasets import load_dataset
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from bundle import make_tokenizer
from datasets_bundle import make_run
from training_runs import ROWS, build, many, rows_of, run

__all__ = ["run"]  # fixtures

UNITS = [chr(0xF0000 + unit) for unit in range(100)]


def test_pretraining_lines_are_the_papers(run: Path, tmp_path: Path) -> None:
    build(run, tmp_path / "set", "--format", "pretraining", "--jsonl")
    # "Speech:{u}\nEnglish: {T}": no space before the units, one before the transcript.
    expected = {
        f"Speech:{UNITS[5]}{UNITS[17]}{UNITS[3]}\nEnglish: We walk along the river.",
        f"Speech:{UNITS[1]}{UNITS[2]}\nEnglish: The house is small.",
    }
    assert {row["text"] for row in rows_of(tmp_path / "set", "train")} == expected
    lines = [line for part in (tmp_path / "set" / "train").glob("*.jsonl") for line in part.read_text().splitlines()]
    assert {json.loads(line)["text"] for line in lines} == expected
    assert all(list(json.loads(line)) == ["text"] for line in lines)


def test_conversations_are_the_papers(run: Path, tmp_path: Path) -> None:
    build(run, tmp_path / "set", "--tasks", "asr", "st", "multi-turn", "mt", "--jsonl")
    made = {(row["utterance_id"], row["task"]): row["conversations"] for row in rows_of(tmp_path / "set", "train")}
    speech = f"Speech: {UNITS[5]}{UNITS[17]}{UNITS[3]}\n"
    assert made["a", "asr"] == [
        {"from": "human", "value": f"{speech}English:"},
        {"from": "gpt", "value": "We walk along the river."},
    ]
    assert made["a", "st"] == [
        {"from": "human", "value": f"{speech}German:"},
        {"from": "gpt", "value": "Wir gehen am Fluss entlang."},
    ]
    assert made["a", "multi-turn"] == [
        {"from": "human", "value": f"{speech}English:"},
        {"from": "gpt", "value": "We walk along the river."},
        {"from": "human", "value": "German:"},
        {"from": "gpt", "value": "Wir gehen am Fluss entlang."},
    ]
    assert made["a", "mt"] == [
        {
            "from": "human",
            "value": "Translate the following text from English to German.\nEnglish: We walk along the river.\nGerman:",
        },
        {"from": "gpt", "value": "Wir gehen am Fluss entlang."},
    ]
    lines = [line for part in (tmp_path / "set" / "train").glob("*.jsonl") for line in part.read_text().splitlines()]
    assert {"conversations": made["a", "st"]} in [json.loads(line) for line in lines]


def test_hugging_face_reads_it_back(run: Path, tmp_path: Path) -> None:
    build(run, tmp_path / "set", "--tasks", "asr", "st", "--dev", "0.5", "--seed", "3")
    found = load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    for split in ("train", "dev"):
        expected = rows_of(tmp_path / "set", split)
        got = [] if split not in found else found[split].to_list()
        assert [row["conversations"] for row in got] == [row["conversations"] for row in expected]


def test_generated_text_and_what_each_loss_is_called(run: Path, tmp_path: Path) -> None:
    told = build(run, tmp_path / "set", "--transcripts", "generated", "--translations", "generated")
    kept = {(row["utterance_id"], row["language"]) for row in rows_of(tmp_path / "set", "train")}
    lost = {(row["utterance_id"], row["language"]): row["reason"] for row in rows_of(tmp_path / "set", "dropped")}
    assert kept == {("a", "en"), ("a", "de"), ("a", "fr")}
    assert lost == {
        ("b", "en"): "repetition",
        ("b", "de"): "repetition",
        ("b", "fr"): "no_translation",
        ("c", "en"): "error",
    }
    by_language = {row["language"]: row for row in told["funnel"]}
    assert by_language["fr"]["in"]["utterances"] == 2
    assert by_language["fr"]["lost"] == {
        "no_translation": {"utterances": 1, "hours": pytest.approx(1 / 3600, abs=1e-6)}
    }


def test_no_speaker_and_no_recording_is_on_both_sides(tmp_path: Path) -> None:
    rows = [row | {"speaker": f"s{n // 3}", "recording_id": f"r{n // 2}"} for n, row in enumerate(many())]
    # Brute force: whoever shares a speaker or a recording, directly or by others, is of one group.
    groups: list[set[str]] = []
    for row in rows:
        keys = {f"speaker {row['speaker']}", f"recording {row['recording_id']}"}
        touching = [group for group in groups if group & keys]
        groups = [group for group in groups if not group & keys] + [keys.union(*touching)]
    told = build(make_run(tmp_path / "run", rows, 8), tmp_path / "set", "--tasks", "asr", "--dev", "0.4")
    sides = {split: {row["utterance_id"] for row in rows_of(tmp_path / "set", split)} for split in ("train", "dev")}
    assert 5 < told["counts"]["dev"]["examples"] < 50
    assert told["counts"]["dev"]["examples"] + told["counts"]["train"]["examples"] == 60
    for group in groups:
        members = {row["id"] for row in rows if f"speaker {row['speaker']}" in group}
        assert members <= sides["train"] or members <= sides["dev"]


def test_drawing_is_by_id_and_weights_by_corpus(tmp_path: Path) -> None:
    rows = many()
    draw = ["--per-language", "15", "--seed", "4"]
    told = build(make_run(tmp_path / "run", rows, 9), tmp_path / "set", *draw)
    drawn = {(row["utterance_id"], row["language"]) for row in rows_of(tmp_path / "set", "train")}
    assert [row["kept"]["utterances"] for row in told["funnel"]] == [15, 15, 15]
    # Other shards, the same rows: neither place nor order decides.
    build(make_run(tmp_path / "again", rows[::-1], 60), tmp_path / "other", *draw)
    assert {(row["utterance_id"], row["language"]) for row in rows_of(tmp_path / "other", "train")} == drawn
    build(tmp_path / "run", tmp_path / "third", "--per-language", "15", "--seed", "5")
    assert {(row["utterance_id"], row["language"]) for row in rows_of(tmp_path / "third", "train")} != drawn
    build(tmp_path / "run", tmp_path / "weighed", "--weights", "read=0", "--tasks", "asr")
    assert {row["corpus"] for row in rows_of(tmp_path / "weighed", "train")} == {"talk"}
    assert {row["reason"] for row in rows_of(tmp_path / "weighed", "dropped")} == {"weight"}


def test_a_duplicate_in_a_corpus_without_weight_is_none(tmp_path: Path) -> None:
    same = {"units": [1, 2, 3], "reference": "The same sentence.", "references": {}}
    rows = [{"id": "a", "corpus": "read", **same}, {"id": "b", "corpus": "talk", **same}]
    build(
        make_run(tmp_path / "run", rows), tmp_path / "set", "--tasks", "asr", "--weights", "read=0", "--dedupe", "text"
    )
    assert [row["utterance_id"] for row in rows_of(tmp_path / "set", "train")] == ["b"]


def test_the_best_by_a_score_of_a_callable(run: Path, tmp_path: Path) -> None:
    rows = many(20)
    options = ["--tasks", "st", "--scorer", "datasets_bundle:longer_numbers", "--keep", "qe>=2"]
    told = build(
        make_run(tmp_path / "many", rows, 9), tmp_path / "set", *options, "--per-language", "4", "--top-k", "qe"
    )
    kept = rows_of(tmp_path / "set", "train")
    assert {row["qe"] for row in kept} == {19.0, 18.0, 17.0, 16.0}  # what the callable gives is the number in the text
    reasons = [row["reason"] for row in rows_of(tmp_path / "set", "dropped") if row["language"] == "de"]
    assert sorted(reasons) == ["not_drawn"] * 14 + ["qe"] * 2
    assert told["settings"]["scorer"].startswith("datasets_bundle:longer_numbers ")


def test_duplicates_are_named_and_the_first_stays(tmp_path: Path) -> None:
    long = (
        "The old man walks along the river every morning before the sun comes up over the hills and the town wakes up"
    )
    rows = [
        {"id": "a", "units": [1, 2, 3], "reference": long},
        {"id": "b", "units": [1, 2, 3], "reference": "Something else was said here."},
        {"id": "c", "units": [4], "reference": f"{long.upper()}!"},
        {"id": "d", "units": [5], "reference": long.replace("wakes up", "wakes")},
        {"id": "e", "units": [6], "reference": "The house on the hill has seven windows and one door of old oak."},
    ]
    rows = [row | {"duration_s": 10.0} for row in rows]  # nobody says so much in a second
    build(make_run(tmp_path / "run", rows, 2), tmp_path / "set", "--tasks", "asr", "--dedupe", "units", "text", "near")
    lost = {row["utterance_id"]: row["reason"] for row in rows_of(tmp_path / "set", "dropped")}
    assert lost == {"b": "duplicate_units", "c": "duplicate_text", "d": "near_duplicate"}
    build(tmp_path / "run", tmp_path / "all", "--tasks", "asr", "--dedupe")
    assert len(rows_of(tmp_path / "all", "train")) == 5


def test_translations_of_another_run_join_by_id_and_by_text(tmp_path: Path, run: Path) -> None:
    made = [
        {"id": "a", "text": "What it says here does not count.", "translations": {"it": "Camminiamo lungo il fiume."}},
        {"id": "line-000001", "text": "The house is small.", "translations": {"it": "La casa è piccola."}},
        {"id": "line-000002", "text": "Nobody said this.", "translations": {"it": "Nessuno lo ha detto."}},
    ]
    other = make_run(tmp_path / "other", made, shard_rows=1)
    build(run, tmp_path / "set", "--tasks", "st", "--translations", str(other), "--jsonl")
    answers = {row["utterance_id"]: row["conversations"][1]["value"] for row in rows_of(tmp_path / "set", "train")}
    assert answers == {"a": "Camminiamo lungo il fiume.", "b": "La casa è piccola."}


def test_a_translation_into_the_language_spoken_is_no_example(tmp_path: Path) -> None:
    row = ROWS[0] | {"references": {"en": "We stroll along the river.", "de": "Wir gehen am Fluss entlang."}}
    build(make_run(tmp_path / "run", [row]), tmp_path / "set", "--dedupe")
    made = [(row["task"], row["conversations"][1]["value"]) for row in rows_of(tmp_path / "set", "train")]
    assert sorted(made) == [("asr", "We walk along the river."), ("st", "Wir gehen am Fluss entlang.")]


def test_lines_of_text_alone_that_were_dropped_can_be_read(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "text.txt").write_text("word " * 300 + "\n")
    options = ["--format", "pretraining", "--text", str(tmp_path / "text.txt"), "--max-tokens", "200"]
    run = make_run(tmp_path / "run", ROWS[:1])
    told = build(run, tmp_path / "set", *options, "--tokenizer", str(tmp_path / "tokenizer"))
    assert told["text"]["too_long"] == 1
    found = load_dataset(str(tmp_path / "set"), "dropped", cache_dir=str(tmp_path / "cache"))
    assert [row["reason"] for row in found["train"]] == ["tokens"]


def test_text_is_mixed_in_by_ratio_without_repeating(run: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Zeile {number}\n" for number in range(50)) + "\n")
    options = ["--format", "pretraining", "--text", str(text), "--text-ratio", "5"]
    told = build(run, tmp_path / "set", *options)
    lines = [row["text"] for row in rows_of(tmp_path / "set", "train") if row["task"] == "text"]
    assert len(lines) == len(set(lines)) == 10  # five to each of two lines of speech
    assert set(lines) <= set(text.read_text().splitlines())
    assert told["text"] == {"lines": 50, "without_text": 1, "asked": 10, "drawn": 10, "too_long": 0}


def test_values_are_those_of_others(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "units": [1], "reference": "We need seventeen rooms, please.", "transcript": "we need four rooms"},
        {"id": "b", "units": [2], "reference": "Das ist nicht, was hier stehen sollte.", "transcript": "It is not so."},
        {"id": "c", "units": [3], "reference": "…", "transcript": "no words to compare with"},
    ]
    run = make_run(tmp_path / "run", [{**row, "duration_s": 3.0} for row in rows])
    build(run, tmp_path / "set", "--tasks", "asr", "--keep", "lid>0.3", "wer<=0.5")
    kept, lost = rows_of(tmp_path / "set", "train"), rows_of(tmp_path / "set", "dropped")
    assert kept[0]["wer"] == pytest.approx(jiwer.wer("we need seventeen rooms please", "we need four rooms"))
    lost.sort(key=lambda row: str(row["utterance_id"]))
    assert [(row["utterance_id"], row["reason"], row["detected"]) for row in lost[:1]] == [
        ("b", "wrong_language", "de")
    ]
    assert lost[1]["wer"] is None  # a reference without words
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(["en", "de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh"])
    assert kept[0]["lid"] == pytest.approx(dict(identifier.rank("We need seventeen rooms, please."))["en"], rel=1e-6)
    assert lost[0]["lid"] == pytest.approx(
        dict(identifier.rank("Das ist nicht, was hier stehen sollte."))["en"], rel=1e-6
    )


def test_tokens_are_counted_as_the_template_writes_them(run: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    tasks = ["--tasks", "asr", "st", "multi-turn", "mt"]
    build(run, tmp_path / "set", *tasks, "--tokenizer", str(tmp_path / "tokenizer"))
    for row in rows_of(tmp_path / "set", "train"):
        sides = {"human": "user", "gpt": "assistant"}
        messages = [{"role": sides[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        written = tokenizer.apply_chat_template(messages, tokenize=False).removesuffix("\n")  # ends with <|im_end|>
        assert row["tokens"] == len(tokenizer(written)["input_ids"])
    most = max(row["tokens"] for row in rows_of(tmp_path / "set", "train") if row["task"] == "asr")
    limit = ["--tokenizer", str(tmp_path / "tokenizer"), "--max-tokens", str(most - 1)]
    build(run, tmp_path / "short", "--tasks", "asr", *limit)
    assert [row["reason"] for row in rows_of(tmp_path / "short", "dropped")].count("tokens") == 1
