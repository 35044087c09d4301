"""Hostile artefacts and identifiers: nothing of a corpus, a codebook, a model or a run is ever executed."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # noqa: F401  (it registers Arrow types whose values are pickles)
import soundfile
import torch
from transformers import AutoTokenizer

import checker
from bundle import make_bundle
from conftest import sound
from in_process import run_in_process, small_checkpoint
from spire_ray.cli import main
from spire_ray.outputs import part_key
from spire_ray.prompts import Prompts

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


class Canary:
    """Unpickled for real, it makes a folder: the proof that something ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def bomb(canary: Path) -> bytes:
    """A pickle that makes the canary."""
    data = pickle.dumps(Canary(canary))
    pickle.loads(data)
    canary.rmdir()  # it works
    return data


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPIRE_RAY_CACHE", str(tmp_path / "cache"))
    run_in_process(monkeypatch, small_checkpoint(tmp_path / "checkpoint"))


def extended(kind: str, metadata: bytes) -> dict[str, bytes]:
    return {"ARROW:extension:name": kind.encode(), "ARROW:extension:metadata": metadata}


def ends_safely(capsys: pytest.CaptureFixture[str], canary: Path, *command: object) -> int:
    """The exit code of a command that must run nothing of what it reads, and end in tables or in one line."""
    code = main([str(word) for word in command])
    said = capsys.readouterr().err.strip().splitlines()
    print(code, said)
    assert not canary.exists(), "code in the data was executed"
    assert code in (0, 2), said
    assert "Traceback" not in "".join(said)
    if code:
        assert said[-1].startswith("spire-ray: error: ")
        assert all(line.startswith(("units ", "text ")) for line in said[:-1]), said  # how far it came
    return code


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


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("honest") / "bundle", context=512)


def hide(folder: Path, canary: Path) -> None:
    """Code under every name that a model folder may bring code under."""
    code = f"import os\nos.path.isdir({str(canary)!r}) or os.mkdir({str(canary)!r})\n"
    code += "class Evil:\n    def __init__(self, *words, **named): pass\n    from_pretrained = classmethod(Evil)\n"
    for name in ("evil.py", "modeling_llama.py", "tokenization_evil.py", "configuration_evil.py", "__init__.py"):
        (folder / name).write_text(code)


def with_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


AUTO_MAP = {
    "AutoConfig": "configuration_evil.Evil",
    "AutoModel": "evil.Evil",
    "AutoModelForCausalLM": "modeling_llama.Evil",
    "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
}


def pickled_weights(llm: Path, canary: Path) -> None:
    for weights in llm.glob("*.safetensors"):
        weights.unlink()
    torch.save({"lm_head.weight": Canary(canary)}, llm / "pytorch_model.bin")


def pickle_as_safetensors(llm: Path, canary: Path) -> None:
    (llm / "model.safetensors").write_bytes(pickle.dumps(Canary(canary)))


def auto_map(llm: Path, canary: Path) -> None:
    with_json(llm / "config.json", auto_map=AUTO_MAP)
    with_json(llm / "tokenizer_config.json", auto_map=AUTO_MAP)


def unknown_classes(llm: Path, canary: Path) -> None:
    """Such that transformers has no class of its own to take instead."""
    with_json(llm / "config.json", auto_map=AUTO_MAP, model_type="evil")
    with_json(llm / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="Evil")


def unknown_tokenizer(llm: Path, canary: Path) -> None:
    with_json(llm / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="Evil")


@pytest.mark.parametrize(
    "hostile", [pickled_weights, pickle_as_safetensors, auto_map, unknown_classes, unknown_tokenizer]
)
def test_models_with_code_in_them(
    hostile: Callable[[Path, Path], None],
    honest: Path,
    corpus: Path,
    canary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    bundle = Path(shutil.copytree(honest, tmp_path / "bundle"))
    hide(bundle / "llm", canary)
    hostile(bundle / "llm", canary)
    run_in_process(monkeypatch)
    # Whoever sits at a terminal is not asked whether to run it either.
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    capsys.readouterr()
    command = ["speech-to-text", corpus, tmp_path / "out", "--checkpoint", bundle, "--languages", "de"]
    if ends_safely(capsys, canary, *command) == 2:
        assert not (tmp_path / "out").exists()


def test_a_chat_template_cannot_leave_its_sandbox(honest: Path, canary: Path) -> None:
    """It is a program of Jinja's, and every prompt goes through it."""
    tokenizer = AutoTokenizer.from_pretrained(honest / "llm", trust_remote_code=False)
    for inside in ("cycler.__init__.__globals__.os", "messages.__class__.__mro__", "namespace.__init__.__globals__"):
        tokenizer.chat_template = f"{{{{ {inside}.mkdir({str(canary)!r}) }}}}"
        with pytest.raises(jinja2.exceptions.TemplateError):
            Prompts(tokenizer, "chat", unit_offset=517, num_units=100).transcribe(np.array([1, 2], np.int16))
    assert not canary.exists()


@pytest.mark.parametrize("hostile", ["pickle alone", "a pickle by that name", "auto_map"])
def test_encoders_with_code_in_them(
    hostile: str,
    honest: Path,
    corpus: Path,
    canary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    from spire_ray import pipeline
    from spire_ray.encode import EncodeUnits

    encoder = Path(shutil.copytree(honest / "encoder", tmp_path / "encoder"))
    hide(encoder, canary)
    if hostile == "auto_map":
        with_json(encoder / "config.json", auto_map=AUTO_MAP)
    else:
        (encoder / "model.safetensors").unlink()
        torch.save({"weight": Canary(canary)}, encoder / "pytorch_model.bin")
    if hostile == "a pickle by that name":
        (encoder / "pytorch_model.bin").rename(encoder / "model.safetensors")
    run_in_process(monkeypatch)
    monkeypatch.setattr(pipeline, "EncodeUnits", lambda **settings: EncodeUnits(**settings))
    codebook = honest / "codebook.safetensors"
    command = ["tokenize", corpus, tmp_path / "out", "--encoder", encoder, "--layer", 3, "--codebook", codebook]
    code = ends_safely(capsys, canary, *command)
    assert code == (0 if hostile == "auto_map" else 2)
    if code:
        assert not (tmp_path / "out").exists()


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
