"""`evaluate` against the command lines of jiwer and sacrebleu, on texts that the package's clips bring."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import pytest
import sentencepiece
from sacrebleu.tokenizers import tokenizer_spm
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from evaluated_run import Said, evaluated, finished_run, made, part, run, said, task
from spire_ray import scores
from spire_ray.cli import main

__all__ = ["run", "said"]  # fixtures

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def found(said: Said, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All languages, words compared as they are."""
    folder = tmp_path_factory.mktemp("found")
    return evaluated(said.run(folder / "out"), folder, "--normalizer", "none")


def command(tmp_path: Path, program: str, references: Sequence[str], hypotheses: Sequence[str], *options: str) -> str:
    """What jiwer or sacrebleu print of two files."""
    files = []
    for name, texts in (("ref", references), ("hyp", hypotheses)):
        path = tmp_path / f"{program}-{name}-{len(list(tmp_path.iterdir()))}.txt"
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        files.append(str(path))
    words = {"jiwer": ["-r", files[0], "-h", files[1]], "sacrebleu": [files[0], "-i", files[1]]}[program]
    done = subprocess.run([str(BIN / program), *words, *options], capture_output=True, text=True, check=True)
    return done.stdout


def test_wer_and_cer_are_those_of_jiwers_command(said: Said, found: dict[str, Any], tmp_path: Path) -> None:
    mine = task(found, "transcripts", "en")
    chosen = {
        ("all", None): said.rows,
        ("corpus", "odd"): [row for row in said.rows if row["corpus"] == "odd"],
        ("duration", "5-10 s"): [row for row in said.rows if 5 <= row["duration_s"] < 10],
    }
    for (by, name), rows in chosen.items():
        assert len(rows) > 5
        own = part(mine, by, name)
        assert own["utterances"] == len(rows)
        assert own["hours"] == pytest.approx(sum(row["duration_s"] for row in rows) / 3600)
        texts = [row["reference"] for row in rows], [said.heard[row["utterance_id"]] for row in rows]
        assert own["scores"]["WER"]["score"] == pytest.approx(100 * float(command(tmp_path, "jiwer", *texts)))
    texts = [row["reference"] for row in said.rows], list(said.heard.values())
    assert part(mine)["scores"]["CER"]["score"] == pytest.approx(100 * float(command(tmp_path, "jiwer", *texts, "-c")))


def test_both_sides_are_normalised_before(said: Said, run: str, tmp_path: Path) -> None:
    mine = task(evaluated(run, tmp_path, "--normalizer", "basic"), "transcripts", "en")
    apply = BasicTextNormalizer()
    texts = [apply(row["reference"]) for row in said.rows], [apply(text) for text in said.heard.values()]
    theirs = 100 * float(command(tmp_path, "jiwer", *texts))
    assert part(mine)["scores"]["WER"]["score"] == pytest.approx(theirs)
    assert "BasicTextNormalizer" in mine["signatures"]["WER"]


@pytest.mark.parametrize(("language", "tokenizer"), [("de", "13a"), ("ko", "char"), ("zh", "zh")])
def test_bleu_chrf_their_intervals_and_signatures_are_those_of_sacrebleus_command(
    language: str, tokenizer: str, said: Said, found: dict[str, Any], tmp_path: Path
) -> None:
    into = task(found, "translations", language)
    references = [one["text"] for row in said.rows for one in row["references"] if one["language"] == language]
    hypotheses = [said.translated[row["utterance_id"], language] for row in said.rows]
    options = ["-m", "bleu", "chrf", "-w", "10", "--force", "-tok", tokenizer, "--confidence", "-f", "json"]
    theirs = json.loads(command(tmp_path, "sacrebleu", references, hypotheses, *options))
    mine = part(into)["scores"]
    for name, their in zip(("BLEU", "chrF"), theirs, strict=True):
        assert into["signatures"][name] == their["signature"]
        assert mine[name]["score"] == pytest.approx(their["score"])
        # Theirs is in single precision.
        assert (mine[name]["high"] - mine[name]["low"]) / 2 == pytest.approx(their["confidence_var"], abs=1e-4)
    assert 5 < mine["BLEU"]["score"] < 95


def test_spbleu_is_that_of_sacrebleus_command_where_the_tokenizer_is_there(
    said: Said, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sacrebleu" / "models"
    folder.mkdir(parents=True)
    texts = [one["text"] for row in said.rows for one in row["references"]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "m"),
        vocab_size=500,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "m.model").rename(folder / "flores200sacrebleuspm")
    monkeypatch.setenv("SACREBLEU", str(folder.parent))
    monkeypatch.setattr(scores, "SACREBLEU_DIR", str(folder.parent))
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(folder.parent))
    found = evaluated(run, tmp_path)
    references = [one["text"] for row in said.rows for one in row["references"] if one["language"] == "de"]
    hypotheses = [said.translated[row["utterance_id"], "de"] for row in said.rows]
    options = ["-tok", "flores200", "-w", "10", "--confidence", "-f", "json"]
    theirs = json.loads(command(tmp_path, "sacrebleu", references, hypotheses, *options))
    mine = task(found, "translations", "de")
    assert part(mine)["scores"]["spBLEU"]["score"] == pytest.approx(theirs["score"])
    assert mine["signatures"]["spBLEU"] == theirs["signature"]
    assert not any("spBLEU" in remark for remark in found["remarks"])


def test_without_the_tokenizer_and_without_comet_that_is_said(
    run: str,
    found: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert any("BLEU in ko is of characters" in remark for remark in found["remarks"])
    monkeypatch.setattr(scores, "SACREBLEU_DIR", str(tmp_path / "nothing"))
    evaluated(run, tmp_path)
    printed = capsys.readouterr().out
    assert "spBLEU was not measured: its tokenizer is not there" in printed
    assert str(tmp_path / "nothing" / "models" / "flores200sacrebleuspm") in printed.replace("\n", "")
    assert "COMET-22 was not measured: it needs --comet PYTHON" in printed


@pytest.fixture
def holes(said: Said, tmp_path: Path) -> str:
    """Five utterances, of which one has no reference, one an error and one's shard is not made yet."""
    rows = said.rows[:5]
    rows[4] = rows[4] | {"reference": " ", "references": None}
    ids = [row["utterance_id"] for row in rows]
    heard = [made(each, said.heard[each]) for each in ids]
    heard[1] = made(ids[1], None, error="context_overflow: 5000 prompt tokens")
    return finished_run(tmp_path / "holes", [[*rows[:3], rows[4]], [rows[3]]], {0: [*heard[:3], heard[4]]}, {}, ["de"])


def test_missing_hypotheses_count_as_empty_and_are_said(
    said: Said, holes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(holes, tmp_path, "--normalizer", "none")
    mine = task(found, "transcripts", "en")
    rows = said.rows[:4]
    heard = [said.heard[rows[0]["utterance_id"]], "", said.heard[rows[2]["utterance_id"]], ""]
    assert part(mine)["scores"]["WER"]["score"] == pytest.approx(
        100 * jiwer.wer([row["reference"] for row in rows], heard)
    )
    assert part(mine)["missing"] == {"context_overflow": 1, "not made yet": 1}
    assert part(task(found, "translations", "de"))["scores"]["BLEU"]["score"] == 0
    assert {each["id"] for each in mine["worst"]} == {rows[0]["utterance_id"], rows[2]["utterance_id"]}
    printed = capsys.readouterr().out
    assert "transcripts: 2 are missing and count as empty: 1 context_overflow, 1 not made yet" in printed
    assert "transcripts: 1 utterances have no reference and are not counted" in printed


def test_without_any_reference_or_any_text_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = finished_run(tmp_path / "none", [[{"utterance_id": "a"}]], {0: [made("a", "one")]}, {}, ["de"])
    assert main(["evaluate", out]) == 2
    assert "no utterance of" in (said := capsys.readouterr().err)
    assert "plan CORPUS again" in said
    (tmp_path / "none" / "text.json").unlink()
    assert main(["evaluate", out]) == 2
    assert "run speech-to-text or generate first" in capsys.readouterr().err


def test_text_runs_take_the_column_of_references_for_their_one_language(said: Said, tmp_path: Path) -> None:
    rows = [
        {
            "utterance_id": row["utterance_id"],
            "text": row["reference"],
            "references": [{"language": None, "text": row["references"][0]["text"]}],
        }
        for row in said.rows
    ]
    answers = [made(row["utterance_id"], said.translated[row["utterance_id"], "de"], "de") for row in said.rows]
    found = evaluated(finished_run(tmp_path / "text", [rows], {}, {0: answers}, ["de"]), tmp_path)
    assert [each["task"] for each in found["tasks"]] == ["translations"]
    mine = part(task(found, "translations", "de"))
    assert mine["utterances"] == len(rows)
    assert 5 < mine["scores"]["BLEU"]["score"] < 95


def test_the_worst_come_first_and_cannot_harm_terminal_or_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {
        "fine": "one two three",
        "half": "one [red]two[/red]",
        "bad": "\x1b[31m<script>alert(1)</script> | a b c d",
    }
    rows = [{"utterance_id": name, "reference": "one two three"} for name in texts]
    out = finished_run(tmp_path / "out", [rows], {0: [made(*each) for each in texts.items()]}, {})
    page = tmp_path / "page.md"
    assert main(["evaluate", out, "--worst", "2", "--markdown", str(page), "--normalizer", "none"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("bad") < printed.index("half")
    assert "one [red]two[/red]" in printed
    assert "\x1b[31m" not in printed
    written = page.read_text()
    assert "<script" not in written.replace("\\<", "")
    lines = [line for line in written.splitlines() if line.startswith("| bad") or line.startswith("| half")]
    assert [line.replace("\\|", "").count("|") for line in lines] == [6, 6]
    assert main(["evaluate", out, "--markdown", str(page)]) == 2
    assert "exists" in capsys.readouterr().err


def test_where_nothing_was_said_and_nothing_heard_is_not_the_worst(tmp_path: Path) -> None:
    texts = {"half": "one two", "silent": "(laughs)", "made up": "never said"}
    rows = [{"utterance_id": name, "reference": "one two three" if name == "half" else "[noise]"} for name in texts]
    out = finished_run(tmp_path / "out", [rows], {0: [made(*each) for each in texts.items()]}, {})
    worst = task(evaluated(out, tmp_path), "transcripts", "en")["worst"]
    assert [each["id"] for each in worst] == ["made up", "half", "silent"]


def test_a_file_is_written_whole_or_not_at_all(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", lambda file, text, **_: [file.write_bytes(b"half"), file.open("x")])
    assert main(["evaluate", run, "--json", str(tmp_path / "a.json")]) != 0
    assert list(tmp_path.iterdir()) == []
