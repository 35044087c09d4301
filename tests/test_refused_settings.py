"""A run directory holds one plan, one way to make units and one to make text: whoever asks for another is refused."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import save_file

from conftest import sound
from in_process import run_in_process, small_checkpoint
from spire_ray import run
from spire_ray.checkpoints import Checkpoint
from spire_ray.cli import main

Given = dict[str, list[str] | str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora") / "corpus"
    folder.mkdir()
    soundfile.write(folder / "a.wav", sound(1.0, 0), 16_000)
    shutil.copytree(folder, folder.parent / "other")
    (folder.parent / "lines.txt").write_text("Guten Morgen.\n")
    (folder.parent / "others.txt").write_text("Guten Abend.\n")
    return folder


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every object below a folder, and the folders themselves: size, inode and time of the last change."""
    found = [folder, *folder.rglob("*")]
    return {str(path): ((at := path.stat()).st_size, at.st_ino, at.st_mtime_ns) for path in found}


def other_codebook(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    save_file({"centroids": torch.rand(7, 8)}, folder / "other.safetensors")
    return replace(checkpoint, codebook=folder / "other.safetensors")


def larger_codebook(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    save_file({"centroids": torch.rand(9, 8)}, folder / "other.safetensors")
    return replace(checkpoint, codebook=folder / "other.safetensors")


def other_encoder(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    assert checkpoint.encoder is not None
    shutil.copytree(checkpoint.encoder, folder / "encoder")
    save_file({"nothing": torch.ones(1)}, folder / "encoder" / "model.safetensors")
    return replace(checkpoint, encoder=folder / "encoder")


SPEECH = ["--languages", "de", "fr", "--shard-minutes", "1"]
OPTIONS = [
    (["--languages", "de"], "languages"),
    (["--languages", "de", "it"], "languages"),
    (["--translate", "multi-turn"], "method"),
    (["--translate", "self-cascade"], "method"),
    (["--max-tokens", "9"], "max_tokens"),
    (["--beam", "2"], "beam"),
    (["--deterministic"], "deterministic"),
    (["--prompt-variant", "space"], "prompt_variant"),
    (["--max-seconds", "2"], "max_seconds"),
    (["--dtype", "bfloat16"], "dtype"),
    (["--shard-minutes", "5"], "shard_minutes"),
]
CHECKPOINTS: list[tuple[Callable[[Checkpoint, Path], Checkpoint], str]] = [
    (lambda checkpoint, folder: replace(checkpoint, layer=2), "layer"),
    (other_codebook, "codebook"),
    (larger_codebook, "clusters"),
    (other_encoder, "encoder"),
    (lambda checkpoint, folder: replace(checkpoint, revision="trained longer"), "revision"),
    (lambda checkpoint, folder: replace(checkpoint, prompt_style="raw"), "prompt_style"),
]


def assert_refused(command: list[str], out: Path, field: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(out)
    capsys.readouterr()
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{field} = " in line
    assert "use another OUT" in line
    assert state(out) == before


@pytest.fixture
def done(corpus: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A finished run and the command that made it, which may be given again."""
    run_in_process(monkeypatch, checkpoint)
    command = ["speech-to-text", str(corpus), str(tmp_path / "out"), "--checkpoint", "any", *SPEECH]
    assert main(command) == 0
    before = state(tmp_path / "out")
    assert main(command) == 0
    assert state(tmp_path / "out") == before
    return command


@pytest.mark.parametrize(("change", "field"), OPTIONS, ids=[" ".join(change) for change, _ in OPTIONS])
def test_another_option(
    change: list[str], field: str, done: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused([*done, *change], tmp_path / "out", field, capsys)


@pytest.mark.parametrize(("change", "field"), CHECKPOINTS, ids=[field for _, field in CHECKPOINTS])
def test_another_checkpoint(
    change: Callable[[Checkpoint, Path], Checkpoint],
    field: str,
    done: list[str],
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = change(checkpoint, tmp_path)
    monkeypatch.setattr(run, "resolve", lambda *named, **needed: other)
    assert_refused(done, tmp_path / "out", field, capsys)


def test_another_corpus(done: list[str], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done[1] = str(corpus.parent / "other")
    assert_refused(done, tmp_path / "out", "corpus", capsys)


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize(
    ("words", "field"),
    [(["others.txt", "--from", "de"], "text_corpus"), (["lines.txt", "--from", "nl"], "source_language")],
)
def test_another_text_corpus(
    words: list[str], field: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "text"

    def translate(name: str, *options: str) -> list[str]:
        return ["translate", str(corpus.parent / name), str(out), "--checkpoint", "any", "--languages", "en", *options]

    assert main(translate("lines.txt", "--from", "de")) == 0
    assert_refused(translate(*words), out, field, capsys)


def test_moved_weights_are_the_same_weights(
    done: list[str], checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared is content: the same encoder and codebook from another place go on."""
    assert checkpoint.encoder is not None
    assert checkpoint.codebook is not None
    shutil.copytree(checkpoint.encoder, tmp_path / "moved")
    shutil.copy(checkpoint.codebook, tmp_path / "moved.safetensors")
    moved = replace(checkpoint, encoder=tmp_path / "moved", codebook=tmp_path / "moved.safetensors")
    monkeypatch.setattr(run, "resolve", lambda *named, **needed: moved)
    before = state(tmp_path / "out")
    assert main(done) == 0
    assert state(tmp_path / "out") == before
    assert os.listdir(tmp_path / "out" / "units")
