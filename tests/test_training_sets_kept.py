"""build-dataset broken off, repeated, refused, and through Ray: whole and byte-equal, or nothing, and one line."""

import json
import tempfile
from pathlib import Path

import pytest

from bundle import make_tokenizer
from datasets_bundle import make_run
from spire_ray import mt_join, training_sets
from spire_ray.cli import main
from spire_ray.store import Store
from training_runs import build, contents, many, run

__all__ = ["run"]  # fixtures


def test_a_build_that_was_interrupted_ends_byte_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", many(), 12)
    options = ["--dev", "0.2", "--dedupe", "units", "text", "near", "--per-language", "20", "--jsonl"]
    build(run, tmp_path / "whole", *options)
    puts = 0
    create = Store.create

    def dying(store: Store, key: str, data: bytes) -> bool:
        nonlocal puts
        puts += not (tmp_path / "set" / key).exists()  # what is there already is asked for again
        if puts == 6:
            raise KeyboardInterrupt
        return create(store, key, data)

    monkeypatch.setattr(Store, "create", dying)
    deaths = 0
    # Every 6th new put dies: five more are there each time.
    while main(["build-dataset", str(run), str(tmp_path / "set"), *options]) == 75:
        deaths, puts = deaths + 1, 0
    monkeypatch.setattr(Store, "create", create)
    assert deaths > 3
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_another_setting_is_refused_by_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(run, tmp_path / "set", "--seed", "1")
    before = contents(tmp_path / "set")
    assert main(["build-dataset", str(run), str(tmp_path / "set"), "--seed", "2"]) == 2
    assert "recipe.seed = 1, this run asks for recipe.seed = 2" in capsys.readouterr().err
    build(run, tmp_path / "set", "--seed", "1")
    assert contents(tmp_path / "set") == before


def test_another_run_with_other_settings_is_another_set(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(tmp_path / "other", [{"id": "a", "text": "One.", "translations": {"it": "Uno."}}])
    options = ["--tasks", "st", "--translations", str(other)]
    build(run, tmp_path / "set", *options)
    told = json.loads((other / "text.json").read_text())
    (other / "text.json").write_text(json.dumps(told | {"fingerprint": "0" * 64}))
    assert main(["build-dataset", str(run), str(tmp_path / "set"), *options]) == 2
    assert "translations_run = " in capsys.readouterr().err


def test_a_full_disk_is_told_by_its_folder(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [{"id": f"{n}", "text": "One. " * 99, "translations": {"it": f"Uno {n}. " * 99}} for n in range(99)]
    other = make_run(tmp_path / "other", made)
    monkeypatch.setattr(mt_join, "_SCHEMA", f"PRAGMA max_page_count = 4;{mt_join._SCHEMA}")
    assert main(["build-dataset", str(run), str(tmp_path / "set"), "--tasks", "st", "--translations", str(other)]) == 1
    said = capsys.readouterr().err
    assert f"{tempfile.gettempdir()}: database or disk is full" in said
    assert "TMPDIR" in said


def test_what_is_refused_leaves_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    text = tmp_path / "text.txt"
    text.write_text("eins\n")
    mixed = ["--format", "pretraining", "--text", str(text), "--text-ratio"]
    for options, says in (
        (["--per-language", "0"], "--per-language 0"),
        ([*mixed, "nan"], "--text-ratio nan"),
        ([*mixed, "inf"], "--text-ratio inf"),
        ([*mixed, "-1"], "--text-ratio -1"),
        (["--keep", "tokens<=9"], "--tokenizer"),
        (["--max-tokens", "9"], "--tokenizer"),
        (["--tokenizer", str(tmp_path / "base")], "no chat template"),
    ):
        assert main(["build-dataset", str(run), str(tmp_path / "set"), *options]) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "set").exists()


def test_a_folder_of_something_else_is_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_run(tmp_path / "made", [{"id": "a", "text": "One.", "translations": {"it": "Uno."}}])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    before = contents(tmp_path)
    for place, says in ((run, "is a run"), (made, "is a run"), (tmp_path / "mine", "has a README.md")):
        options = ["--tasks", "st", "--translations", str(made)]
        assert main(["build-dataset", str(run), str(place), *options]) == 2
        assert says in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_what_had_no_effect_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(run, tmp_path / "set", "--preset", "spire", "--weights", "raed=0.5", "read=1")
    printed = capsys.readouterr()
    assert "qe>=0.85 lost nothing" in printed.out
    assert "qe>=0.85 lost nothing" in (tmp_path / "set" / "README.md").read_text()
    assert "--weights raed: no utterance is of such a corpus" in printed.err
    assert "--weights read:" not in printed.err


def test_many_shards_go_through_ray(tmp_path: Path, local_ray: None) -> None:
    run = make_run(tmp_path / "run", many(), 6)  # ten shards
    options = ["--dev", "0.2", "--tasks", "asr", "st"]
    told = build(run, tmp_path / "by-ray", *options)
    assert told["counts"]["train"]["examples"] + told["counts"]["dev"]["examples"] == 180
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_sets, "SHARDS_HERE", 10)
        build(run, tmp_path / "here", *options)
    assert contents(tmp_path / "by-ray") == contents(tmp_path / "here")
