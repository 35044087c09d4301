import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from bundle import make_bundle, make_tokenizer
from spire_ray.checkpoints import (
    Checkpoint,
    check_languages,
    context_length,
    on_this_machine,
    resolve,
    revision_of,
)
from spire_ray.errors import MachineFault, UserError
from spire_ray.vocabulary import check_tokenizer

ALL = ("en", "de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(made, tmp_path / "bundle")


def one_line(fault: pytest.ExceptionInfo[Exception]) -> str:
    message = str(fault.value)
    assert "\n" not in message
    return message


def test_a_bundle_gives_its_parts(made: Path) -> None:
    checkpoint = resolve(str(made))
    assert checkpoint == Checkpoint(
        name=str(made),
        llm=made / "llm",
        encoder=made / "encoder",
        codebook=made / "codebook.safetensors",
        layer=3,
        prompt_style="chat",
        languages=ALL,
        unit_offset=517,
        revision=checkpoint.revision,
        speech=True,
    )
    assert len(checkpoint.revision) == 64


def test_only_what_is_needed_must_be_there(bundle: Path) -> None:
    shutil.rmtree(bundle / "encoder")
    (bundle / "codebook.safetensors").unlink()
    text_side = resolve(str(bundle), need=("llm",))
    assert (text_side.encoder, text_side.codebook, text_side.llm) == (None, None, bundle / "llm")
    with pytest.raises(UserError, match="encoder has no config\\.json"):
        resolve(str(bundle))
    with pytest.raises(UserError, match=r"codebook\.safetensors is missing"):
        resolve(str(bundle), need=("codebook",))


def test_tokenizing_does_not_need_the_llm(bundle: Path) -> None:
    shutil.rmtree(bundle / "llm")
    units_side = resolve(str(bundle), need=("encoder", "codebook"))
    assert (units_side.llm, units_side.revision, units_side.layer) == (None, "", 3)


def test_a_text_bundle_has_no_speech(tmp_path: Path) -> None:
    checkpoint = resolve(str(make_bundle(tmp_path / "tower", text_only=True)))
    assert (checkpoint.speech, checkpoint.encoder, checkpoint.unit_offset) == (False, None, None)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.llm)
    assert check_tokenizer(checkpoint, tokenizer) == 0


def test_a_plain_llama_folder(made: Path, bundle: Path) -> None:
    checkpoint = resolve(str(made / "llm"), need=("llm",))
    assert (checkpoint.prompt_style, checkpoint.layer, checkpoint.unit_offset) == ("chat", 22, 517)
    assert (checkpoint.speech, checkpoint.languages, checkpoint.llm) == (True, ALL, made / "llm")
    (bundle / "llm" / "chat_template.jinja").unlink()
    assert resolve(str(bundle / "llm"), need=("llm",)).prompt_style == "raw"


def test_faulty_folders_are_one_line_each(bundle: Path, tmp_path: Path) -> None:
    def fault_of(name: str) -> str:
        with pytest.raises(UserError) as fault:
            resolve(name, need=("llm",))
        return one_line(fault)

    assert "SpireBase, SpireFull, SpireNoBlocks, SpireNoPseudo, TowerFull" in fault_of("SpireHuge")
    (tmp_path / "empty").mkdir()
    assert "neither spire.json" in fault_of(str(tmp_path / "empty"))
    shutil.copy(bundle / "llm" / "tokenizer.json", bundle / "encoder")
    assert "['HubertModel'], not LlamaForCausalLM" in fault_of(str(bundle / "encoder"))

    settings = json.loads((bundle / "spire.json").read_text())
    for name, value in (("prompt_style", "chatty"), ("languages", "en"), ("layer", 0), ("unit_offset", "517")):
        (bundle / "spire.json").write_text(json.dumps(settings | {name: value}))
        assert name in fault_of(str(bundle))
    (bundle / "spire.json").write_text("{")
    assert "not JSON" in fault_of(str(bundle))
    (bundle / "spire.json").write_text(json.dumps(settings))

    weights = bundle / "llm" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert "not a whole safetensors file" in fault_of(str(bundle))
    weights.write_bytes(whole[:5])
    assert "not a whole safetensors file" in fault_of(str(bundle))
    weights.unlink()
    assert "no .safetensors weights" in fault_of(str(bundle))
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (bundle / "llm" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors is missing" in fault_of(str(bundle))
    (bundle / "llm" / "config.json").unlink()
    assert "has no config.json" in fault_of(str(bundle))


def test_the_revision_is_of_the_content(made: Path, bundle: Path) -> None:
    assert revision_of(bundle / "llm") == revision_of(made / "llm")
    assert resolve(str(bundle)).revision == revision_of(made / "llm")
    tensors = load_file(bundle / "llm" / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, bundle / "llm" / "model.safetensors", metadata={"format": "pt"})
    assert revision_of(bundle / "llm") != revision_of(made / "llm")


def test_workers_find_the_checkpoint_on_their_own_disk(bundle: Path) -> None:
    checkpoint = resolve(str(bundle))
    assert on_this_machine(checkpoint) == checkpoint
    elsewhere = replace(checkpoint, llm=Path("/not/on/this/machine"))
    assert on_this_machine(elsewhere).llm == bundle / "llm"
    with pytest.raises(MachineFault, match="revision"):
        on_this_machine(replace(elsewhere, revision="0" * 64))
    shutil.rmtree(bundle)
    with pytest.raises(MachineFault, match="does not have the checkpoint"):
        on_this_machine(checkpoint)


def test_languages_are_those_of_the_checkpoint(made: Path) -> None:
    checkpoint = resolve(str(made))
    check_languages(checkpoint, ["de", "zh"])
    with pytest.raises(UserError, match="'jp'") as fault:
        check_languages(checkpoint, ["de", "jp"])
    assert one_line(fault)


def test_the_context_is_the_models(tmp_path: Path) -> None:
    assert context_length(make_bundle(tmp_path, context=2048) / "llm") == 2048


def test_the_tokenizer_is_checked(made: Path, bundle: Path) -> None:
    checkpoint = resolve(str(bundle))
    tokenizer = AutoTokenizer.from_pretrained(bundle / "llm")
    assert check_tokenizer(checkpoint, tokenizer) == 100
    assert check_tokenizer(checkpoint, tokenizer, 90) == 90  # a codebook may be smaller than the vocabulary
    cases = [
        (checkpoint, tokenizer, 101, "has 100 units .* but 101 are needed"),
        (replace(checkpoint, unit_offset=518), tokenizer, None, "unit 0 as token 517, not 518"),
        (checkpoint, make_tokenizer(510), None, "unit 0 as token 515, not 517"),
        (checkpoint, make_tokenizer(units=0), None, "has 0 units"),
        (checkpoint, make_tokenizer(units=200), None, r"has token 718, but the model only 640 rows"),
        (replace(checkpoint, name="SpireFull", unit_offset=32005), tokenizer, None, "has 100 units .* but 5000"),
    ]
    for given, with_tokenizer, num_units, message in cases:
        with pytest.raises(UserError, match=message) as fault:
            check_tokenizer(given, with_tokenizer, num_units)
        assert one_line(fault)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token"):
        check_tokenizer(checkpoint, tokenizer)


def test_a_named_checkpoints_tokenizer_has_its_units_at_32005(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 37056}))
    named = Checkpoint("SpireFull", tmp_path, None, None, 22, "chat", ALL, 32005, "", True)
    assert check_tokenizer(named, make_tokenizer(32000, 5000)) == 5000
    with pytest.raises(UserError, match="unit 0 as token 32006, not 32005"):
        check_tokenizer(named, make_tokenizer(32001, 5000))
