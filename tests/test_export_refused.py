"""Exports that are refused, broken off or have nothing: one line, and nothing is left behind."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from exported_run import away, corpus, export, in_memory, out, refused, texts
from spire_ray import export_audio
from spire_ray.cli import main
from spire_ray.errors import UserError
from spire_ray.export_target import new_file, new_folder

__all__ = ["corpus", "in_memory", "out"]  # fixtures


def test_what_is_refused(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = {"nemo": "m.jsonl", "lhotse": "c.jsonl.gz", "webdataset": "w", "huggingface": "h", "parquet": "j.parquet"}
    for form, name in taken.items():
        (tmp_path / name).write_text("mine")
        assert f"{name} exists" in refused(capsys, out, tmp_path / name, "--format", form)
        assert (tmp_path / name).read_text() == "mine"
    before = sorted(tmp_path.iterdir())
    assert "no folder" in refused(capsys, out, tmp_path / "no" / "x.jsonl", "--format", "nemo")
    assert ".jsonl.gz" in refused(capsys, out, tmp_path / "cuts.json", "--format", "lhotse")
    assert "no translations to ja" in refused(
        capsys, out, tmp_path / "x.jsonl", "--format", "nemo", "--languages", "ja"
    )
    assert "leave out --text" in refused(capsys, out, tmp_path / "x", "--text", "reference")
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_without_transcripts_or_whose_audio_lies_in_tar_files(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(out, tmp_path / "shards", "--format", "webdataset") == 0
    units = tmp_path / "units"
    assert main(["tokenize", f"{tmp_path}/shards/*.tar", str(units), "--checkpoint", "any"]) == 0
    assert "--text reference" in refused(capsys, units, tmp_path / "hf", "--format", "huggingface")
    chosen = ("--text", "reference")
    assert "lies inside" in refused(capsys, units, tmp_path / "m.jsonl", "--format", "nemo", *chosen)
    assert export(units, tmp_path / "hf", "--format", "huggingface", *chosen) == 0
    told = pq.read_table(tmp_path / "hf" / "data").column("text").to_pylist()
    assert sorted(told) == sorted(said["en"] for said in texts(out).values())


def test_nothing_is_there_of_an_export_that_broke_off_or_had_nothing(
    out: Path,
    corpus: Path,
    tmp_path: Path,
    in_memory: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(export_audio, "_put_card", lambda *given: (_ for _ in ()).throw(OSError("no room")))
        assert export(out, tmp_path / "x", "--format", "huggingface") == 1
    assert sorted(tmp_path.iterdir()) == before
    with away(*corpus.glob("*.wav"), corpus / "b.flac"):
        for place in (tmp_path / "x", "memory://bucket/x"):
            assert "no utterance of" in refused(capsys, out, place, "--format", "webdataset")
    assert sorted(tmp_path.iterdir()) == before
    assert in_memory.find("/bucket") == []


def test_what_came_there_meanwhile_stays(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    mine = new_file(str(file), {})
    mine.__enter__().write_text("mine")
    file.write_text("theirs")
    with pytest.raises(UserError, match="file exists"):
        mine.__exit__(None, None, None)
    parts = new_folder(str(folder), {})
    parts.__enter__()
    folder.mkdir()
    with pytest.raises(UserError, match="folder exists"):
        parts.__exit__(None, None, None)
    assert file.read_text() == "theirs"
    assert sorted(tmp_path.iterdir()) == [file, folder]
    assert list(folder.iterdir()) == []
