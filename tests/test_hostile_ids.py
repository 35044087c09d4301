"""Hostile ids and places: they stay text, and nothing outside OUT is written."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

import checker
from canaries import canary, ends_safely, in_process
from conftest import sound
from spire_ray.cli import main

__all__ = ["canary", "in_process"]  # fixtures

IDS = {
    "../../x": "../../x",
    "../../../../../../etc/passwd": "../../../../../../etc/passwd",
    "/etc/passwd": "/etc/passwd",
    "C:\\Windows\\x": "C:\\Windows\\x",
    "CON": "CON",
    "nul.txt": "nul.txt",
    "-rf": "-rf",
    "--out=/tmp/x": "--out=/tmp/x",
    "~/.ssh/id": "~/.ssh/id",
    "$(touch x)": "$(touch x)",
    "`x`;|&>x": "`x`;|&>x",
    "%2e%2e%2fx": "%2e%2e%2fx",
    "%s%n{0}{x}": "%s%n{0}{x}",
    "a b\u00a0c": "a b\u00a0c",
    "\u202ecod.exe": "\u202ecod.exe",
    "\u05d0\u05d1\u05d2": "\u05d0\u05d1\u05d2",
    "\U0001f600\U0001f468\u200d\U0001f469": "\U0001f600\U0001f468\u200d\U0001f469",
    "\ufeffbom": "\ufeffbom",
    "e\u0301": "\u00e9",  # NFC, as promised
    "A.wav": "A.wav",
    "a.wav": "a.wav",  # its twin on disks that know no case
    "part-00000.parquet": "part-00000.parquet",
    "_SUCCESS": "_SUCCESS",
    "plan.json": "plan.json",
    "[bold]x[/bold]": "[bold]x[/bold]",
    "'; DROP TABLE units; --": "'; DROP TABLE units; --",
    "=1+1": "=1+1",
    ".": ".",
    "..": "..",
    "x" * 512: "x" * 512,
}
REFUSED_IDS = ["a\0b", "a\nb", "a\rb", "a\tb", "\x1b[31mred", "\x9b31m", "x" * 10_000, "\u00e9" * 257, "\ud800", "\x7f"]


@pytest.mark.usefixtures("in_process")
def test_hostile_ids_stay_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They come back as they were given, or as error rows that say why not; and nothing but OUT is written to."""
    soundfile.write(tmp_path / "sound.wav", sound(0.5, 0), 16_000)
    given = [*IDS, *REFUSED_IDS]
    rows = [{"id": id_, "audio": "sound.wav", "text": id_.replace("\ud800", "")} for id_ in given]
    rows += [{"id": f"at {number}", "audio": id_} for number, id_ in enumerate(given)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    before = {path for path in tmp_path.parent.rglob("*") if out not in path.parents}
    command = ["speech-to-text", tmp_path / "m.jsonl", out, "--checkpoint", "any", "--languages", "de"]
    assert main([str(word) for word in command]) == 0
    assert main(["show", str(out)]) == 0
    assert main(["export", str(out), str(tmp_path / "joined.parquet")]) == 0
    assert {path for path in tmp_path.parent.rglob("*") if out not in path.parents} - before == {
        out,
        tmp_path / "joined.parquet",
    }
    names = {path.relative_to(out).as_posix().partition("/")[0] for path in out.rglob("*")}
    assert names <= {"plan", "plan.json", "units", "units.json", "transcripts", "translations", "text.json"} | {
        "runs",
        "heartbeat",
        "run.json",
        "README.md",
    }
    wanted = {*IDS.values(), *(f"row-{len(IDS) + at}" for at in range(len(REFUSED_IDS)))}
    for table in ("plan", "units", "transcripts", "translations"):
        kept = pq.read_table(out / table).column("utterance_id").to_pylist()
        assert wanted <= set(kept)
        assert len(kept) == len(rows)
    assert not checker.main([str(out)])
    exported = pq.read_table(tmp_path / "joined.parquet").column("id").to_pylist()
    assert sorted(exported) == sorted(kept)
    said = capsys.readouterr()
    assert_no_controls(said.out + said.err)
    assert_no_controls((out / "run.json").read_text() + (out / "README.md").read_text())


@pytest.mark.usefixtures("in_process")
def test_what_a_manifest_names_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes a manifest may name files that he may not read himself."""
    (tmp_path / "token").write_text("s3cr3t-" * 20)
    soundfile.write(tmp_path / "a.wav", sound(0.5, 0), 16_000)
    rows = [{"audio": "a.wav"}, {"audio": str(tmp_path / "token")}, {"audio": (tmp_path / "token").as_uri()}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    assert main(["tokenize", str(tmp_path / "m.jsonl"), str(out), "--checkpoint", "any"]) == 0
    said = capsys.readouterr()
    told = repr(pq.read_table(out / "units").to_pylist()) + (out / "run.json").read_text() + said.out + said.err
    assert told.count("unreadable") >= 2
    assert "s3cr3t" not in told


@pytest.mark.usefixtures("in_process")
def test_ids_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", sound(0.5, 0), 16_000)
    ids = [":smile:", "[red]x[/red]", "http://127.0.0.1/"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"audio": "a.wav", "id": id_}) + "\n" for id_ in ids))
    assert main(["tokenize", str(tmp_path / "m.jsonl"), str(tmp_path / "out"), "--checkpoint", "any"]) == 0
    assert main(["show", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(id_ in said for id_ in ids), said


def assert_no_controls(said: str) -> None:
    """What a terminal would take for a command is not passed on to it."""
    found = {character for character in said if ord(character) < 32 or 0x7F <= ord(character) < 0xA0} - {"\n"}
    assert not found, {ascii(character) for character in found}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("uri", ["reference://a.wav::{refs}", "filecache://{refs}::reference://x", "git://{refs}"])
def test_places_that_are_programs(uri: str, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest may name any URL; fsspec has file systems that are templates, caches and repositories."""
    (tmp_path / "refs.json").write_text(
        json.dumps(
            {
                "version": 1,
                "templates": {"u": f"{{{{ cycler.__init__.__globals__.os.mkdir({str(canary)!r}) }}}}"},
                "gen": [],
                "refs": {"a.wav": ["{{u()}}"], "b": "base64:aGk="},
            }
        )
    )
    soundfile.write(tmp_path / "a.wav", sound(0.5, 0), 16_000)
    rows = [{"audio": "a.wav"}, {"audio": uri.format(refs=tmp_path / "refs.json")}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["tokenize", tmp_path / "m.jsonl", tmp_path / "out", "--checkpoint", "any"]
    assert ends_safely(capsys, canary, *command) == 0
    fine, hostile = pq.read_table(tmp_path / "out" / "plan").to_pylist()
    assert fine["error"] is None
    assert hostile["error"].startswith("bad_manifest_row"), "to fetch it is another way to run or write something"
