"""The whole job with real Ray and real vLLM: what lies in OUT afterwards, and that a second run adds nothing to it."""

import hashlib
import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from conftest import SECONDS, sound
from spire_ray import parity
from spire_ray.cli import main

pytestmark = pytest.mark.usefixtures("local_ray")
LANGUAGES = ["de", "fr"]
TEXT = ["--languages", *LANGUAGES, "--max-tokens", "8"]


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return [row for path in sorted((out / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and modification time of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def reference_units(audio: Path, bundle: Path) -> list[int]:
    """Units as SPIRE defines them, by transformers, one utterance at a time: layer, nearest centroid, collapsed."""
    samples, rate = soundfile.read(audio, dtype="float32")
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(bundle / "encoder")
    values = extractor(samples, sampling_rate=rate, return_tensors="pt").input_values
    model = HubertModel.from_pretrained(bundle / "encoder").eval()
    with torch.inference_mode():
        features = model(values, output_hidden_states=True).hidden_states[3][0].double()
    centroids = load_file(bundle / "codebook.safetensors")["centroids"].double()
    return [int(unit) for unit, _ in groupby(torch.cdist(features, centroids).argmin(dim=1).tolist())]


@pytest.fixture(scope="module")
def done(corpus: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A finished run over the corpus, three shards of it."""
    out = tmp_path_factory.mktemp("done") / "out"
    options = ["--checkpoint", str(bundle), *TEXT, "--shard-minutes", "0.06"]
    assert main(["speech-to-text", str(corpus), str(out), *options]) == 0
    return out


def test_every_planned_item_has_exactly_one_row_in_every_table(done: Path, corpus: Path) -> None:
    files = sorted(path.relative_to(corpus).as_posix() for path in corpus.rglob("*.wav"))
    assert len(list((done / "units").glob("part-*"))) > 1
    for table in ("plan", "units", "transcripts"):
        assert [row["utterance_id"] for row in rows(done, table)] == files
        assert table == "plan" or (done / table / "_SUCCESS").is_file()
    pairs = [(row["utterance_id"], row["target_language"]) for row in rows(done, "translations")]
    assert pairs == [(file, language) for file in files for language in LANGUAGES]


def test_units_are_those_of_transformers_one_utterance_at_a_time(done: Path, corpus: Path, bundle: Path) -> None:
    compared = 0
    for row in rows(done, "units"):
        if row["error"] is None:
            assert row["units"] == reference_units(corpus / row["utterance_id"], bundle)
            assert sum(row["run_lengths"]) == row["num_frames"]
            compared += 1
    assert compared == len(SECONDS)


def test_the_broken_file_is_named_and_costs_nobody_else_a_row(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {table: [row for row in rows(done, table) if row["error"]] for table in ("units", "transcripts")}
    assert [row["utterance_id"] for row in failed["units"]] == ["speaker1/broken.wav"]
    assert failed["units"][0]["error"].startswith("unreadable: ")
    assert failed["transcripts"][0]["error"].startswith("no_units: unreadable: ")
    assert main(["show", str(done)]) == 0
    shown = capsys.readouterr().out
    assert "1 unreadable" in shown
    assert "speaker1/broken.wav: unreadable" in shown
    assert "100.00%" in shown
    assert "units again in float32, one utterance at a time: 0 of " in shown


def test_text_rows_say_how_they_ended(done: Path) -> None:
    for row in [*rows(done, "transcripts"), *rows(done, "translations")]:
        if row["error"] is None:
            assert row["finish_reason"] in ("stop", "length")
            assert 1 <= row["generated_tokens"] <= 8
            assert row["avg_logprob"] < 0


def test_a_second_run_computes_and_writes_nothing(done: Path, corpus: Path, bundle: Path) -> None:
    before = contents(done)
    assert main(["speech-to-text", str(corpus), str(done), "--checkpoint", str(bundle), *TEXT]) == 0
    assert contents(done) == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (["--languages", "de", "fr", "it"], "languages"),
        (["--translate", "multi-turn"], "method"),
        (["--max-tokens", "9"], "max_tokens"),
        (["--beam", "2"], "beam"),
        (["--deterministic"], "deterministic"),
        (["--prompt-variant", "space"], "prompt_variant"),
        (["--max-seconds", "2"], "max_seconds"),
        (["--dtype", "bfloat16"], "dtype"),
        (["--shard-minutes", "5"], "shard_minutes"),
    ],
)
def test_other_settings_on_the_same_out_are_refused_by_name(
    done: Path, corpus: Path, bundle: Path, change: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(done)
    command = ["speech-to-text", str(corpus), str(done), "--checkpoint", str(bundle), *TEXT, *change]
    assert main(command) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{field} = " in message
    assert contents(done) == before


def test_the_card_serves_datasets_and_duckdb(done: Path) -> None:
    for table in ("plan", "units", "transcripts", "translations"):
        loaded = datasets.load_dataset(str(done), table, split="train")
        counted = duckdb.sql(f"SELECT count(*) FROM read_parquet('{done}/{table}/*.parquet')").fetchall()
        assert counted == [(len(rows(done, table)),)] == [(loaded.num_rows,)]


def test_run_json_counts_what_lies_there(done: Path) -> None:
    run = json.loads((done / "run.json").read_text())
    assert run["plan"]["utterances"] == len(SECONDS) + 1
    assert run["tables"]["units"]["errors"] == {"unreadable": 1}
    assert run["tables"]["units"]["audio_hours"] == pytest.approx(sum(SECONDS) / 3600, rel=1e-3)
    assert run["tables"]["translations"]["languages"] == {"de": 7, "fr": 7}
    text = run["text"]
    assert text["cached_tokens"] > 0
    assert text["cache_hit_rate"] == round(text["cached_tokens"] / text["prompt_tokens"], 4)
    assert text["cache_hit_ideal"] == round(text["shareable_tokens"] / text["prompt_tokens"], 4)
    assert run["units"]["rtfx"] > 0
    same = run["units"]["parity"]
    frames = sum(row["num_frames"] for row in rows(done, "units") if row["error"] is None)
    assert 0 < same["frames"] < frames  # the first of its shards, and whom the hash draws of the others
    assert same["other_units"] == 0
    assert same["feature_error"] < 1e-5
    assert [actor["rtfx"] > 0 for actor in run["units"]["actors"].values()] == [True]
    (told,) = (json.loads(path.read_text())["stages"] for path in (done / "runs").glob("*.json"))
    assert [actor["rtfx"] > 0 for actor in told["text"]["actors"].values()] == [True]
    assert "parity" in told["units"]
    assert "parity" not in told["text"]


def test_another_checkpoint_shares_the_units_from_another_out(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bundle import make_bundle

    other = make_bundle(tmp_path / "other", seed=1, end_bias=5.0)
    before = contents(done)
    assert main(["generate", str(done), "--to", str(tmp_path / "out2"), "--checkpoint", str(other)]) == 0
    assert contents(done) == before
    assert not (tmp_path / "out2" / "units").exists()
    made = rows(tmp_path / "out2", "transcripts")
    assert [row["utterance_id"] for row in made] == [row["utterance_id"] for row in rows(done, "units")]
    assert {row["finish_reason"] for row in made if row["error"] is None} == {"stop"}

    joined = tmp_path / "joined.parquet"
    assert main(["export", str(tmp_path / "out2"), str(joined)]) == 0
    assert datasets.load_dataset(str(tmp_path / "out2"), "transcripts", split="train").num_rows == len(made)
    assert main(["generate", str(tmp_path / "out2"), "--to", str(done), "--checkpoint", str(other)]) == 2
    assert main(["generate", str(done), "--to", str(done.parent / "out"), "--checkpoint", str(other)]) == 2
    exported = {row["id"]: row for row in pq.read_table(joined).to_pylist()}
    for unit, text in zip(rows(done, "units"), made, strict=True):
        row = exported[unit["utterance_id"]]
        assert (row["units"], row["transcript"]) == (unit["units"], text["text"])
    assert main(["export", str(tmp_path / "out2"), str(joined)]) == 2
    assert "exists" in capsys.readouterr().err


def test_units_unlike_those_of_float32_stop_the_run_before_they_are_committed(
    corpus: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(parity.BOUNDS, "bfloat16", 0.0)
    command = ["tokenize", str(corpus), str(tmp_path / "out"), "--checkpoint", str(bundle), "--dtype", "bfloat16"]
    assert main(command) == 1
    assert re.search(r"\d\.\d\d% of \d+ frames .* features are off by \d", capsys.readouterr().err)
    assert not list((tmp_path / "out" / "units").glob("part-*"))


def test_retry_mends_what_was_mended_and_touches_no_old_part(mended: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (mended / "never.wav").write_bytes(b"")
    command = ["speech-to-text", str(mended), str(out), "--checkpoint", str(bundle), "--languages", "de"]
    assert main([*command, "--max-tokens", "4"]) == 0
    before = contents(out)
    soundfile.write(mended / "speaker1" / "broken.wav", sound(1.0, 9), 16_000)
    assert main(["retry", str(out)]) == 0

    after = contents(out)
    assert all(after[path] == was for path, was in before.items() if path.endswith(".parquet"))
    added = sorted(
        name
        for name in (Path(path).relative_to(out).as_posix() for path in after.keys() - before.keys())
        if not name.startswith(("runs/", "heartbeat/"))
    )
    assert added == [f"{table}/part-00000.r1.parquet" for table in ("transcripts", "translations", "units")]
    for table in ("units", "transcripts", "translations"):
        fine = [row["utterance_id"] for row in rows(out, table) if row["error"] is None]
        assert "never.wav" not in fine
        assert sorted(fine) == sorted(set(fine))
        assert len(fine) == len(SECONDS) + 1
    mended_row = next(
        row for row in rows(out, "units") if row["utterance_id"] == "speaker1/broken.wav" and row["units"]
    )
    assert mended_row["units"] == reference_units(mended / "speaker1" / "broken.wav", bundle)

    # What nobody mended is read again, and costs the engine nothing.
    assert main(["retry", str(out)]) == 0
    again = {Path(path).relative_to(out).as_posix() for path in contents(out).keys() - after.keys()}
    assert {name for name in again if not name.startswith(("runs/", "heartbeat/"))} == {"units/part-00000.r2.parquet"}


def test_text_is_translated_to_a_row_per_line_and_language(tmp_path: Path) -> None:
    from bundle import make_bundle

    lines = ["Guten Morgen.", "", "Wo ist der Bahnhof?"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    checkpoint = make_bundle(tmp_path / "text-only", text_only=True)
    command = ["translate", str(tmp_path / "lines.txt"), str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    assert main([*command, "--from", "de", "--languages", "en", "fr", "--max-tokens", "4"]) == 0
    made = rows(tmp_path / "out", "translations")
    assert len(made) == 6
    assert {row["method"] for row in made} == {"text"}
    assert [row["error"] is None for row in made] == [True, True, False, False, True, True]
    assert np.all([row["prompt_tokens"] > 10 for row in made if row["error"] is None])
    assert not (tmp_path / "out" / "units").exists()
    assert not (tmp_path / "out" / "transcripts").exists()


@pytest.mark.parametrize(("option", "value"), [("--quantization", "fp8"), ("--tensor-parallel", "2")])
def test_what_needs_gpus_is_refused_without_them(
    corpus: Path, bundle: Path, tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["speech-to-text", str(corpus), str(tmp_path / "out"), "--checkpoint", str(bundle), option, value]
    assert main(command) == 2
    assert f"{option} {value} needs" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
