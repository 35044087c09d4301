"""Exports, each read back by the library it is for, against the sound files and the parts of the run."""

import io
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import webdataset
from lhotse import CutSet
from lhotse.qa import validate

from datasets_bundle import make_run
from exported_run import RATE, away, corpus, export, in_memory, out, texts
from sounds import pcm16
from spire_ray.cli import main

__all__ = ["corpus", "in_memory", "out"]  # fixtures

# A line of a manifest as NeMo documents it: what each key is, and whether a line must have it. Offset: Lhotse's loader
# and NeMo's own take it in seconds; source_lang, target_lang: Canary Flash and v2, which have no `taskname` any more.
NEMO: dict[str, tuple[type, bool]] = {
    "audio_filepath": (str, True),
    "duration": (float, True),
    "text": (str, True),
    "offset": (float, False),
    "source_lang": (str, True),
    "target_lang": (str, True),
}


@pytest.fixture
def heard(corpus: Path) -> dict[str, Any]:
    """The samples of each utterance by soundfile alone, int16; of the one that is resampled none."""
    whole, long = (soundfile.read(corpus / name, dtype="int16")[0] for name in ("a.wav", "long.wav"))
    return {"x/a.b": whole, "mute": whole, "p1": long[8000:49968], "p2": long[49968:]}


def test_a_manifest_of_nemo(
    out: Path, tmp_path: Path, heard: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "manifest.jsonl"
    assert export(out, file, "--format", "nemo") == 0
    assert "5 utterances in" in (told := capsys.readouterr().err)
    assert "left out: 1 unreadable" in told
    found: dict[str, dict[str, str]] = {}
    for line in file.read_bytes().decode().split("\n")[:-1]:
        row = json.loads(line)
        for key, (kind, needed) in NEMO.items():
            assert isinstance(row[key], kind) if needed else isinstance(row.get(key, kind()), kind)
        assert row["source_lang"] == "en"
        found.setdefault(row["utterance_id"], {})[row["target_lang"]] = row["text"]
        with soundfile.SoundFile(row["audio_filepath"]) as audio:
            audio.seek(round(row["offset"] * audio.samplerate))
            samples = audio.read(round(row["duration"] * audio.samplerate), dtype="int16")
        expected = heard.get(row["utterance_id"])
        assert len(samples) == 92_610 if expected is None else np.array_equal(samples, expected)
    assert found == texts(out)
    assert len(found) == 5


def test_the_references_can_be_the_text(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "manifest.json"
    assert export(out, file, "--format", "nemo", "--text", "reference", "--languages", "de", "ja") == 0
    assert "left out: 1 no reference, 1 unreadable" in capsys.readouterr().err
    rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    said = {(row["utterance_id"], row["target_lang"]): row["text"] for row in rows}
    expected = {"x/a.b": "eins \u2028 <zwei>", "b": "three", "p1": "five", "p2": "six"}
    assert said == {(name, "en"): text for name, text in expected.items()} | {("x/a.b", "de"): "ä"}


def test_cuts_of_lhotse(out: Path, corpus: Path, tmp_path: Path, heard: dict[str, Any]) -> None:
    file = tmp_path / "cuts.jsonl.gz"
    assert export(out, file, "--format", "lhotse") == 0
    cuts = CutSet.from_file(file)
    validate(cuts, read_data=True)
    found = texts(out)
    units = duckdb.sql(f"SELECT utterance_id, units, run_lengths FROM read_parquet('{out}/units/*.parquet')").fetchall()
    made = {name: (some, runs) for name, some, runs in units}
    assert {cut.id for cut in cuts} == found.keys() == made.keys() - {"broken"}
    for cut in cuts:
        (said,) = cut.supervisions
        assert (said.text, said.language) == (found[cut.id].pop("en"), "en")
        assert said.translations == found[cut.id]
        assert (said.units, said.run_lengths) == made[cut.id]
        samples = cut.load_audio()
        if cut.id in heard:
            assert np.array_equal(np.rint(samples[0] * 32_768).astype(np.int16), heard[cut.id])
        else:
            assert np.array_equal(samples.T, soundfile.read(corpus / "b.flac", dtype="float32")[0])
    assert {cut.recording.id for cut in cuts if cut.id in ("p1", "p2")} == {"long"}


def tars(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("*.tar")))


def test_tar_shards_of_webdataset(
    out: Path, tmp_path: Path, heard: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shards"
    assert export(out, folder, "--format", "webdataset") == 0
    assert len(tars(folder)) > 1
    found = texts(out)
    for sample in webdataset.WebDataset(tars(folder), shardshuffle=False):
        fields = json.loads(sample["json"])
        said = found.pop(fields["id"])
        assert sample["txt"].decode() == fields["text"] == said.pop("en")
        assert fields["translations"] == said
        samples, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
        assert (rate, samples.ndim, len(samples)) == (RATE, 1, round(fields["duration"] * RATE))
        if fields["id"] in heard:
            assert np.array_equal(samples, heard[fields["id"]])
    assert not found  # a shard of the run is a tar, and nothing of a sample lies apart from the rest of it:
    for tar in tars(folder):
        names = [sample["__key__"] for sample in webdataset.WebDataset([tar], shardshuffle=False)]
        assert [key for key, _ in groupby(names)] == sorted(set(names))
        assert {name.partition("-")[0] for name in names} == {Path(tar).stem.partition("-")[2]}
    capsys.readouterr()  # what was exported is a corpus again:
    assert main(["plan", f"{folder}/*.tar", str(tmp_path / "again")]) == 0
    again = pq.read_table(tmp_path / "again" / "plan")
    assert set(again.column("utterance_id").to_pylist()) == texts(out).keys()
    assert "5 utterances" in capsys.readouterr().out


def test_a_data_set_of_hugging_face(out: Path, tmp_path: Path, heard: dict[str, Any]) -> None:
    folder = tmp_path / "hf"
    assert export(out, folder, "--format", "huggingface") == 0
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=cache)
    assert loaded.features["audio"] == datasets.Audio(sampling_rate=RATE)
    assert loaded.features["units"] == datasets.List(datasets.Value("int16"))
    part = next((folder / "data").iterdir())  # by itself, without the card
    alone = datasets.Dataset.from_parquet(str(part), cache_dir=cache)
    assert alone.features == loaded.features
    found = texts(out)
    # Decoding is torchcodec's in `datasets`, which has no build for CPUs here; the bytes are what there is to decode.
    for row in loaded.cast_column("audio", datasets.Audio(decode=False)):
        said = found.pop(row["id"])
        assert (row["text"], row["translation_de"], row["translation_fr"]) == (said["en"], said["de"], said["fr"])
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        assert (rate, len(samples)) == (RATE, round(row["duration"] * RATE))
        assert sum(row["run_lengths"]) == len(samples) // 320  # the frames of the encoder that stands in
        if row["id"] in heard:
            assert np.array_equal(samples, heard[row["id"]])
    assert not found
    assert "left out, unreadable: 1" in (folder / "README.md").read_text()


def test_a_file_that_is_gone_or_other_by_now_is_left_out(
    out: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with away(corpus / "b.flac", corpus / "a.wav"):
        soundfile.write(corpus / "a.wav", pcm16(1.0, 9), RATE)
        assert export(out, tmp_path / "shards", "--format", "webdataset") == 0
        assert "2 utterances in" in (told := capsys.readouterr().err)
        assert "left out: 1 missing, 2 truncated, 1 unreadable" in told
        assert export(out, tmp_path / "c.jsonl.gz", "--format", "lhotse") == 0
        assert "left out: 1 missing, 1 unreadable" in capsys.readouterr().err


def test_parts_in_object_storage_are_those_of_a_disk(out: Path, tmp_path: Path, in_memory: Any) -> None:
    for form in ("webdataset", "huggingface"):
        here = tmp_path / form
        assert export(out, here, "--format", form) == 0
        assert export(out, f"memory://bucket/{form}", "--format", form) == 0
        files = [path for path in sorted(here.rglob("*")) if path.is_file()]
        assert {f"/bucket/{form}/{path.relative_to(here)}": path.read_bytes() for path in files} == {
            name: in_memory.cat_file(name) for name in in_memory.find(f"/bucket/{form}")
        }
        assert export(out, f"memory://bucket/{form}", "--format", form) == 2
    assert export(out, "memory://bucket/m.jsonl", "--format", "nemo") == 0
    assert len(in_memory.cat_file("/bucket/m.jsonl").splitlines()) == 15


def test_blank_references_are_none_and_one_of_what_is_said_is_no_translation(tmp_path: Path) -> None:
    references = {"de": "eins", "fr": "  ", "en": "won"}
    rows = [
        {"id": "a", "reference": "one", "references": references},
        {"id": "b", "reference": " ", "references": references},
    ]
    run = make_run(tmp_path / "run", [{**row, "units": [1], "duration_s": 1.0} for row in rows])
    file = tmp_path / "m.jsonl"
    assert export(run, file, "--format", "nemo", "--text", "reference", "--languages", "en", "de", "fr") == 0
    said = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["utterance_id"], row["target_lang"], row["text"]) for row in said] == [
        ("a", "en", "one"),
        ("a", "de", "eins"),
    ]


def test_a_cut_beyond_the_end_of_its_file_is_left_out(
    out: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with away(corpus / "long.wav"):
        soundfile.write(corpus / "long.wav", pcm16(2.0, 9), RATE)
        assert export(out, tmp_path / "c.jsonl.gz", "--format", "lhotse") == 0
    assert "left out: 1 truncated, 1 unreadable" in capsys.readouterr().err
    assert "p2" not in [cut.id for cut in CutSet.from_file(tmp_path / "c.jsonl.gz")]
