"""Hostile artefacts: nothing of a corpus, a codebook or a run is ever executed."""

import pickle
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # noqa: F401  (it registers Arrow types whose values are pickles)
import soundfile
import torch

from canaries import Canary, bomb, canary, ends_safely, in_process
from conftest import sound
from spire_ray.outputs import part_key

__all__ = ["bomb", "canary", "in_process"]  # fixtures

PICKLED = "ray.data.arrow_pickled_object"
# The Arrow types that Ray registers, the one behind CVE-2023-47248, and one that nobody knows.
EXTENSIONS = [
    PICKLED,
    "ray.data.arrow_tensor",
    "ray.data.arrow_tensor_v2",
    "ray.data.arrow_variable_shaped_tensor",
    "arrow.py_extension_type",
    "nobody.knows.it",
]


def extended(kind: str, metadata: bytes) -> dict[str, bytes]:
    return {"ARROW:extension:name": kind.encode(), "ARROW:extension:metadata": metadata}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("kind", EXTENSIONS)
@pytest.mark.parametrize("column", ["text", "audio", "references", "speaker"])
def test_a_manifest_with_arrow_extension_types(
    kind: str, column: str, bomb: bytes, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", sound(1.0, 0), 16_000)
    metadata = bomb if kind != PICKLED else b""
    item = pa.field("text", pa.large_binary(), metadata=extended(kind, metadata))
    fields = {
        "text": pa.field("text", pa.large_binary(), metadata=extended(kind, metadata)),
        "speaker": pa.field("speaker", pa.list_(item)),
        "audio": pa.field("audio", pa.struct([item.with_name("bytes"), ("path", pa.string())])),
        "references": pa.field("references", pa.list_(pa.struct([("language", pa.string()), item]))),
    }
    values = {
        "text": [bomb],
        "speaker": [[bomb]],
        "audio": [{"bytes": bomb, "path": "a.wav"}],
        "references": [[{"language": "de", "text": bomb}]],
    }
    schema = pa.schema([fields[column]] + ([] if column == "audio" else [pa.field("audio", pa.string())]))
    given = {column: values[column]} | ({} if column == "audio" else {"audio": ["a.wav"]})
    pq.write_table(pa.table(given, schema=schema), tmp_path / "m.parquet")
    command = ["tokenize", tmp_path / "m.parquet", tmp_path / "out", "--checkpoint", "any"]
    if ends_safely(capsys, canary, *command) == 2:
        assert not (tmp_path / "out").exists()
    command = ["translate", tmp_path / "m.parquet", tmp_path / "out2", "--checkpoint", "any", "--from", "de"]
    ends_safely(capsys, canary, *command, "--languages", "en")


@pytest.mark.usefixtures("in_process")
def test_a_run_with_pickles_in_its_parts(
    bomb: bytes, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OUT may be somebody else's: what shows, exports or goes on from it executes nothing of it."""
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus" / "a.wav", sound(1.0, 0), 16_000)
    out = tmp_path / "out"
    command = ["speech-to-text", tmp_path / "corpus", out, "--checkpoint", "any", "--languages", "de"]
    assert ends_safely(capsys, canary, *command) == 0
    for key, column in [
        (part_key("units", 0), "error"),
        (part_key("transcripts", 0), "text"),
        (part_key("translations", 0), "target_language"),
        ("plan/part-00000.parquet", "reference"),
    ]:
        table = pq.read_table(out / key)
        at = table.schema.get_field_index(column)
        hostile = pa.field(column, pa.large_binary(), metadata=extended(PICKLED, b""))
        table = table.set_column(at, hostile, pa.array([bomb] * table.num_rows, pa.large_binary()))
        before = (out / key).read_bytes()
        pq.write_table(table, out / key)
        for command in (
            ["show", out],
            ["export", out, tmp_path / "joined.parquet"],
            ["report", out, "--html", tmp_path / "joined.parquet"],
            ["retry", out],
            ["generate", out, "--to", tmp_path / "out2", "--checkpoint", "any"],
        ):
            ends_safely(capsys, canary, *command)
            (tmp_path / "joined.parquet").unlink(missing_ok=True)
        (out / key).write_bytes(before)


def pickles(folder: Path, bomb: bytes, canary: Path) -> dict[str, Path]:
    """The ways to hide code in a codebook."""
    nested = np.empty(1, object)
    nested[0] = Canary(canary)
    joblib.dump(Canary(canary), folder / "direct.joblib")
    joblib.dump({"cluster_centers_": nested}, folder / "nested.joblib")
    joblib.dump(Canary(canary), folder / "compressed.joblib", compress=("zlib", 3))
    torch.save({"centroids": Canary(canary)}, folder / "torch.bin")
    (folder / "codebook.pkl").write_bytes(bomb)
    (folder / "protocol-0.pkl").write_bytes(pickle.dumps(Canary(canary), protocol=0))
    np.save(folder / "object.npy", nested, allow_pickle=True)
    (folder / "codebook.skops").write_bytes(b"PK\x03\x04" + bomb)
    (folder / "codebook.safetensors").write_bytes(bomb)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.usefixtures("in_process")
def test_codebooks_with_code_in_them(
    bomb: bytes, canary: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hostile").mkdir()
    encoder = tmp_path / "checkpoint" / "encoder"
    found = pickles(tmp_path / "hostile", bomb, canary)
    assert len(found) == 9
    for codebook in found.values():
        command = ["tokenize", corpus, tmp_path / "out", "--encoder", encoder, "--layer", 1, "--codebook", codebook]
        assert ends_safely(capsys, canary, *command) == 2
        assert not (tmp_path / "out").exists()
        if codebook.suffix != ".safetensors":
            converted = tmp_path / "converted.safetensors"
            assert ends_safely(capsys, canary, "convert-codebook", codebook, converted) == 2
            assert not converted.exists()
