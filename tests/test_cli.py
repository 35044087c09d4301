"""What a user sees of the commands: help, and for each mistake one line, exit code 2 and nothing written."""

import json
import signal
from pathlib import Path

import joblib
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from sklearn.cluster import MiniBatchKMeans

from bundle import make_bundle
from conftest import sound
from spire_ray import resources
from spire_ray.cli import main
from spire_ray.driver import Driver
from spire_ray.resources import Cluster

COMMANDS = ["speech-to-text", "tokenize", "plan", "generate", "translate", "retry", "show", "export", "report"]
COMMANDS += ["fit-codebook", "codebook-report", "convert-codebook"]


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake is found before Ray is started."""

    def connect(address: str | None) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("spire_ray.resources.connect", connect)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # by another test of the session


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """Run a command that must be refused. Returns its one line."""
    assert main([str(word) for word in command]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert command in capsys.readouterr().out


def write_manifest(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_corpus(folder: Path, mistake: str) -> Path:
    audio = folder / "a.wav"
    soundfile.write(audio, sound(1.0, 0), 16_000)
    if mistake == "missing":
        return folder / "nowhere"
    if mistake == "empty":
        (folder / "empty").mkdir()
        return folder / "empty"
    if mistake == "no audio column":
        return write_manifest(folder / "m.jsonl", {"text": "hello", "speaker": "x"})
    return write_manifest(folder / "m.jsonl", {"audio": "a.wav", "id": "twin"}, {"audio": "a.wav", "id": "twin"})


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tokenize", "corpus"], "the following arguments are required: OUT"),
        (["tokenise", "corpus", "out"], "invalid choice: 'tokenise'"),
        (["speech-to-text", "corpus", "out", "--checkpoint", "tiny", "--beam", "none"], "--beam"),
    ],
)
def test_a_mistake_in_the_words_is_told_in_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("missing", "nowhere does not exist"),
        ("empty", "holds no"),
        ("no audio column", "its columns are text, speaker"),
        ("duplicate id", "duplicate ids: 2 rows share 1 id (twin)"),
    ],
)
def test_a_corpus_that_cannot_be_planned(
    mistake: str, says: str, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = make_corpus(tmp_path, mistake), tmp_path / "out"
    options = ["--checkpoint", bundle, "--shard-minutes", 1]
    assert says in refused(capsys, "speech-to-text", corpus, out, *options)
    assert not out.exists()


@pytest.mark.usefixtures("no_ray")
def test_a_checkpoint_that_is_not_there_or_not_whole(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = refused(capsys, "speech-to-text", corpus, out, "--checkpoint", "SpireFul")
    assert "SpireFul" in line
    assert "SpireFull, SpireNoBlocks, SpireNoPseudo, TowerFull" in line
    (tmp_path / "hollow").mkdir()
    assert "config.json" in refused(capsys, "speech-to-text", corpus, out, "--checkpoint", tmp_path / "hollow")
    hollow = make_bundle(tmp_path / "bundle")
    (hollow / "llm" / "config.json").unlink()
    capsys.readouterr()  # what saving the models printed
    assert "config.json" in refused(capsys, "speech-to-text", corpus, out, "--checkpoint", hollow)
    assert not out.exists()


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("option", ["--gpus", "--cpus"])
def test_this_machine_alone_is_asked_for_no_more_than_it_has(
    option: str, tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    line = refused(capsys, "speech-to-text", corpus, tmp_path / "out", "--checkpoint", "tiny", option, 8)
    assert "give its --address" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_ray")
def test_a_language_the_checkpoint_does_not_know(
    tmp_path: Path, corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["speech-to-text", corpus, out, "--checkpoint", bundle, "--languages"]
    assert "'tlh'" in refused(capsys, *command, "de", "tlh")
    assert "twice" in refused(capsys, *command, "de", "de")
    assert not out.exists()


@pytest.mark.usefixtures("no_ray")
def test_a_codebook_of_another_dimension(
    tmp_path: Path, corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codebook, out = tmp_path / "wide.safetensors", tmp_path / "out"
    save_file({"centroids": torch.randn(10, 1024)}, codebook)
    command = ["tokenize", corpus, out, "--encoder", bundle / "encoder", "--layer", 3, "--codebook", codebook]
    line = refused(capsys, *command)
    assert "dimension 1024" in line
    assert "have 64" in line
    assert not out.exists()


@pytest.mark.usefixtures("no_ray")
def test_an_out_that_cannot_be_written(
    tmp_path: Path, corpus: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    command = ["tokenize", corpus, tmp_path / "file" / "out", "--checkpoint", bundle]
    assert "cannot be written" in refused(capsys, *command)
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("command", ["show", "retry", "generate", "export", "report"])
def test_a_folder_that_is_no_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    more = {"generate": ["--checkpoint", bundle], "export": [tmp_path / "joined.parquet"]}.get(command, [])
    more = ["--html", tmp_path / "report.html"] if command == "report" else more
    assert "plan.json" in refused(capsys, command, tmp_path / "nothing", *more)
    assert list(tmp_path.iterdir()) == []


def test_a_published_kmeans_pickle_becomes_a_codebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = MiniBatchKMeans(8, n_init=1, random_state=0).fit(np.random.default_rng(0).normal(size=(400, 16)))
    joblib.dump(fitted, tmp_path / "kmeans_model")
    target = tmp_path / "codebook.safetensors"
    assert main(["convert-codebook", str(tmp_path / "kmeans_model"), str(target)]) == 0
    assert "sha256" in capsys.readouterr().out
    centroids = load_file(target)["centroids"].numpy()
    assert np.array_equal(centroids, fitted.cluster_centers_.astype(np.float32))
    assert "already there" in refused(capsys, "convert-codebook", tmp_path / "kmeans_model", target)


def test_a_cluster_that_has_nothing_and_is_asked_for_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "connect", lambda address: Cluster(cpus=0, gpus=0, node_cpus=1))
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    soundfile.write(corpus / "a.wav", sound(0.5, 0), 16_000)
    command = ["plan", corpus, out, "--address", "head:6379"]
    assert "Ray has no CPU and no GPU there" in refused(capsys, *command)
    assert not out.exists()
    assert main([str(word) for word in [*command, "--gpus", "8"]]) == 0
    assert json.loads((out / "plan.json").read_text())["settings"]["shard_minutes"] == 60


def test_the_handlers_of_signals_are_the_callers_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_the_caller(number: int, frame: object) -> None:
        raise AssertionError

    def connect(address: str | None) -> Cluster:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray puts one of its own there
        return Cluster(cpus=2, gpus=0, node_cpus=2)

    monkeypatch.setattr(resources, "connect", connect)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    soundfile.write(tmp_path / "a.wav", sound(0.5, 0), 16_000)
    before = signal.signal(signal.SIGTERM, of_the_caller)
    try:
        with Driver("test") as driver:
            assert driver.cluster.cpus == 2
            assert signal.getsignal(signal.SIGTERM) is of_the_caller
        for corpus, code in ((tmp_path, 0), (tmp_path / "nowhere", 2)):
            assert main(["plan", str(corpus), str(tmp_path / "out")]) == code
            assert signal.getsignal(signal.SIGTERM) is of_the_caller
    finally:
        signal.signal(signal.SIGTERM, before)
