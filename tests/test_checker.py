"""The checker finds what it is there to find: a sound run passes, each thing that may be wrong is named."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import checker
from conftest import sound
from in_process import run_in_process, small_checkpoint

LANGUAGES = ["de", "fr"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: four shards of one utterance, the last of them in error."""
    import soundfile

    from spire_ray.cli import main

    folder = tmp_path_factory.mktemp("whole")
    (folder / "corpus").mkdir()
    for seed, name in enumerate("abc"):
        soundfile.write(folder / "corpus" / f"{name}.wav", sound(1.0, seed), 16_000)
    (folder / "corpus" / "d.wav").write_bytes(b"no sound" * 5000)
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch, small_checkpoint(folder / "checkpoint"))
        options = ["--checkpoint", "any", "--languages", *LANGUAGES, "--shard-minutes", "0.02"]
        assert main(["speech-to-text", str(folder / "corpus"), str(folder / "out"), *options]) == 0
    return folder / "out"


def checked(out: Path, *options: str) -> tuple[int, str]:
    """The checker as a program of its own. Its exit code and what it said."""
    command = [sys.executable, "-E", "-s", checker.__file__, str(out), *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_whole_run_is_counted(whole: Path, tmp_path: Path) -> None:
    code, said = checked(whole, "--tables", "units", "transcripts", "translations", "--languages", *LANGUAGES)
    assert code == 0, said
    assert said.splitlines() == [
        "plan: 4 rows",
        "units: 4 rows, 0 missing, 0 duplicate, errors: 1 unreadable",
        "transcripts: 4 rows, 0 missing, 0 duplicate, errors: 1 no_units",
        "translations: 8 rows, 0 missing, 0 duplicate, errors: 2 no_units",
    ]
    assert checked(tmp_path)[0] == 2


def test_it_knows_nothing_of_the_package() -> None:
    loaded = "import sys, checker; sys.exit(any(name.partition('.')[0] == 'spire_ray' for name in sys.modules))"
    folder = str(Path(checker.__file__).parent)
    assert subprocess.run([sys.executable, "-c", loaded], cwd=folder, check=False).returncode == 0


def edit(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """A part with its rows changed; schema and metadata stay."""
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), path)


PLAN, UNITS, TEXT = (f"{table}/part-00000.parquet" for table in ("plan", "units", "transcripts"))
GERMAN, FAILED, LAST = ("translations/part-00000.parquet", "units/part-00003.parquet", "transcripts/part-00003.parquet")


def rows(key: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], object]:
    return lambda out: edit(out / key, change)


def values(key: str, **given: object) -> Callable[[Path], object]:
    return rows(key, lambda old: [{**row, **given} for row in old])


def without(key: str) -> Callable[[Path], object]:
    return lambda out: (out / key).unlink()


def copied(key: str, to: str) -> Callable[[Path], object]:
    return lambda out: shutil.copy(out / key, out / to)


def table(key: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], object]:
    return lambda out: pq.write_table(change(pq.read_table(out / key)), out / key)


def half(out: Path) -> None:
    (out / UNITS).write_bytes((out / UNITS).read_bytes()[:-9])


def foreign(out: Path) -> None:
    (out / "units" / "part-0.parquet.crc").write_bytes(b"")


WRONG: list[tuple[str, Callable[[Path], object], str]] = [
    ("a part is missing", without(UNITS), "3 rows, 1 missing(.|\n)*shard 0 has no part"),
    ("a row is missing", rows(UNITS, lambda old: []), "1 planned items have no row"),
    ("a row is there twice", rows(TEXT, lambda old: old * 2), "is there 2 times"),
    ("a language is missing", rows(GERMAN, lambda old: old[:1]), "have no row, such as .*'fr'"),
    ("a row is not planned", values(UNITS, utterance_id="x"), "'x'.* is not planned"),
    ("two rows count", copied(UNITS, "units/part-00000.r1.parquet"), "without an error"),
    ("a part is not sorted", rows(GERMAN, lambda old: old[::-1]), "is not sorted"),
    ("a part is half", half, "not a whole Parquet"),
    ("an unknown reason", values(FAILED, error="bad luck"), "reason 'bad luck'"),
    ("neither value nor error", values(UNITS, units=None), "neither units nor an error"),
    ("an error and a value", values(UNITS, error="empty"), "an error and units"),
    ("a frame is lost", values(UNITS, num_frames=1), ", 1 frames"),
    ("not collapsed", values(UNITS, units=[1, 1], run_lengths=[1, 1], num_frames=2), "not collapsed"),
    ("no answer and no error", values(TEXT, text=None), "neither a whole answer"),
    ("cut off and not flagged", values(TEXT, finish_reason="length"), "not flagged truncated"),
    ("text without units", values(LAST, error=None, text="x", finish_reason="stop"), "its units .unreadable"),
    ("units without text", values(TEXT, error="no_units", text=None, finish_reason=None), "'no_units', its units None"),
    ("another schema", table(UNITS, lambda old: old.drop_columns(["num_frames"])), "has the schema"),
    ("other settings", table(UNITS, lambda old: old.replace_schema_metadata({})), "of 2 different settings"),
    ("a shard beyond the plan", copied(UNITS, "units/part-00009.parquet"), "not planned: .9"),
    ("a foreign file", foreign, "neither a part nor _SUCCESS"),
    ("done too early", without(FAILED), "_SUCCESS lies there"),
    ("twins in the plan", rows(PLAN, lambda old: [{**row, "utterance_id": "a.wav"} for row in old]), "twice, or not"),
    ("another shard in the plan", values(PLAN, shard=2), "says it is of shard 2"),
]


@pytest.mark.parametrize(("damage", "says"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_is_named(
    damage: Callable[[Path], object], says: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    damage(out)
    assert checker.main([str(out), "--languages", *LANGUAGES]) == 1
    said = capsys.readouterr().out
    assert re.search(says, said), said
