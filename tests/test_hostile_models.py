"""Hostile models: nothing of an encoder or a language model is ever executed."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from bundle import make_bundle
from canaries import Canary, canary, ends_safely
from in_process import run_in_process
from spire_ray import pipeline
from spire_ray.encode import EncodeUnits
from spire_ray.prompts import Prompts

__all__ = ["canary"]  # a fixture


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
