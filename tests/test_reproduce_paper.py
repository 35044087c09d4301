"""The paper's tables: every set in its published layout and every command, without models; and one table for real."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from in_process import run_in_process, small_checkpoint
from spire_ray.checkpoints import NAMED, TINY_FOLDER, Checkpoint

sys.path.append(str(Path(__file__).parents[1] / "jobs"))
import paper_sets
import reproduce_paper

LINES = [f"This is sentence {n}." for n in range(6)]
CODES = [codes[-1] for codes in paper_sets.FLORES.values()]


def sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000, format=path.suffix[1:].upper())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Every set but VoxPopuli, LibriSpeech test-other and most of WMT23, as their makers publish them."""
    data = tmp_path / "data"
    chapter = data / "LibriSpeech" / "test-clean" / "1" / "2"
    sound(chapter / "1-2-0000.flac")
    (chapter / "1-2.trans.txt").write_text("1-2-0000 SO IT IS\n")
    fleurs = data / "fleurs" / "data" / "en_us"
    rows = [
        ["7", "a.wav", LINES[2], "said", "s a i d", "16000", "MALE"],
        ["8", "b.wav", "Not in FLORES.", "", "", "", ""],
    ]
    for row in rows:
        sound(fleurs / "audio" / "test" / row[1])
    (fleurs / "test.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    for split in ("dev", "devtest"):
        (data / "flores" / split).mkdir(parents=True)
        for code in CODES:
            texts = LINES if code == "eng_Latn" else [f"{code} {split} {n}" for n in range(6)]
            (data / "flores" / split / f"{code}.{split}").write_text("\n".join(texts) + "\n")
    voice = data / "cv-corpus-4-2019-12-10" / "en"
    sound(voice / "clips" / "c.wav")
    for code in ("de", "zh-CN"):
        (voice / f"covost_v2.en_{code}.test.tsv").write_text(
            f"path\tsentence\ttranslation\tclient_id\nc.wav\tSo it is\tin {code}\tx\n"
        )
    (data / "wmt23").mkdir()
    for code in ("en", "de"):
        (data / "wmt23" / f"en-de.{code}").write_text(f"{code} one\n{code} two\n")
    return data


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """What every checkpoint is while the job runs without Ray and without models."""
    small = small_checkpoint(tmp_path / "small")
    run_in_process(monkeypatch, small)

    def named(name: str, **_: object) -> Checkpoint:
        published = NAMED[name]
        return replace(small, name=name, prompt_style=published.prompt_style, speech=published.speech)

    monkeypatch.setattr(reproduce_paper, "resolve", named)
    return small


def cells(printed: str) -> list[list[str]]:
    """The rows of the table."""
    return [
        line.split() for line in printed.splitlines() if line.startswith(("LibriSpeech", "FLEURS", "CoVoST", "WMT"))
    ]


@pytest.mark.usefixtures("checkpoint")
def test_the_table_of_transcription(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce_paper.main(["asr", "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    hears = ["SpireBase", "SpireFull", "SpireNoBlocks", "SpireNoPseudo"]
    assert [row[:3] for row in cells(printed)] == [
        *(["LibriSpeech-test-clean", name, "1"] for name in hears),
        *(["FLEURS", name, "2"] for name in hears),
    ]
    assert printed.count("$ spire-ray tokenize") == 8
    assert len(list((tmp_path / "out" / "units").iterdir())) == 2  # made once a set, the rest finds them
    assert "not measured: LibriSpeech-test-other:" in printed
    assert "not measured: VoxPopuli:" in printed
    assert "not measured: TowerFull: it translates text, not speech" in printed


@pytest.mark.usefixtures("checkpoint")
def test_the_table_of_speech_translation(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["st", "--data", str(data), "--out", str(tmp_path / "out"), "--checkpoints", "SpireFull", "SpireBase"]
    assert reproduce_paper.main(words) == 0
    printed = capsys.readouterr().out
    rows = cells(printed)
    assert [row[:4] for row in rows if row[0] == "CoVoST-2"] == [
        ["CoVoST-2", "SpireFull", "direct", "de"],
        ["CoVoST-2", "SpireFull", "direct", "zh"],
        ["CoVoST-2", "SpireFull", "self-cascade", "de"],
        ["CoVoST-2", "SpireFull", "self-cascade", "zh"],
        ["CoVoST-2", "SpireBase", "direct", "de"],
        ["CoVoST-2", "SpireBase", "direct", "zh"],
    ]
    # Of FLEURS one sentence is in FLORES+, word for word.
    fleurs = [row for row in rows if row[0] == "FLEURS"]
    assert len(fleurs) == 3 * 9
    assert {row[4] for row in fleurs} == {"1"}
    wanted = json.loads((tmp_path / "out" / "sets" / "fleurs-flores.jsonl").read_text().splitlines()[0])
    assert {each["text"] for each in wanted["references"]} == {f"{code} devtest 2" for code in CODES[1:]}
    assert "(published 18.3)" in printed
    assert "SpireBase, self-cascade" in printed
    assert "not measured: COMET-22: it needs --comet" in printed
    told = json.loads((tmp_path / "out" / "st.json").read_text())
    assert "tok:zh" in told["runs"][-1]["tasks"][-1]["signatures"]["BLEU"]


@pytest.mark.usefixtures("checkpoint")
def test_the_table_of_text_translation(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mt", "--data", str(data), "--out", str(tmp_path / "out"), "--checkpoints", "TowerFull", "SpireBase"]
    assert reproduce_paper.main(words) == 0
    printed = capsys.readouterr().out
    assert "TowerFull   0-shot  de" in printed
    assert "SpireBase   5-shot  de" in printed
    assert printed.count("0-shot") == printed.count("5-shot") == 9 + 9 + 1
    assert printed.count("--shots 5 --examples") == 1 + 9 + 1
    assert "not measured: WMT23 de-en:" in printed


def test_nothing_to_measure_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert reproduce_paper.main(["asr", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().out.count("is not there") == 4


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """A test set of one's own: twelve clips of the package."""
    clips = TINY_FOLDER / "clips"
    folder = tmp_path / "twelve"
    folder.mkdir()
    rows = [json.loads(line) for line in (clips / "manifest.jsonl").read_text().splitlines()[:12]]
    (folder / "manifest.jsonl").write_text(
        "".join(json.dumps(row | {"audio": str(clips / row["audio"])}) + "\n" for row in rows)
    )
    return folder


@pytest.mark.torture
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("table", ["asr", "st", "mt"])
def test_all_of_it_with_tiny(table: str, twelve: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(twelve), "--out", str(tmp_path / "out"), "--checkpoints", "tiny"]
    assert reproduce_paper.main([table, *words]) == 0
    told = json.loads((tmp_path / "out" / f"{table}.json").read_text())
    scores = [part["scores"] for run in told["runs"] for each in run["tasks"] for part in each["parts"][:1]]
    if table == "asr":
        # What the whole chain is worth is tested where its clips are; here, that the job brings it out.
        assert 0 <= scores[0]["WER"]["score"] < 30
    else:
        assert len(told["runs"]) == {"st": 2, "mt": 1}[table]
        assert max(each["chrF"]["score"] for each in scores if "chrF" in each) > 50
