"""Named checkpoints, bundle folders and plain Llama folders: where their parts lie, and what is checked at start.

A part is fetched only when it is needed: units are made on machines without the LLM, text on machines without the
encoder.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from spire_ray.errors import MachineFault, UserError
from spire_ray.hub import fetch_codebook, fetch_encoder, fetch_llm
from spire_ray.units import FIRST_CODE_POINT

Part = Literal["llm", "encoder", "codebook"]
PromptStyle = Literal["chat", "raw"]
PARTS: tuple[Part, ...] = ("llm", "encoder", "codebook")
LLM: tuple[Part, ...] = ("llm",)
LANGUAGES = ("en", "de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")

# SPIRE, arXiv 2503.10620: HuBERT-Large LL60k, layer 22 of 24 counted from one, 5000 units after Llama-2's 32000 pieces
# and five specials.
SPIRE_LAYER = 22
SPIRE_UNITS = 5000
SPIRE_UNIT_OFFSET = 32005
_WHOLE_FILE_BYTES = 32 << 20  # revision_of hashes smaller files whole: configurations and tokenizers, not weights


class _Published(NamedTuple):
    prompt_style: PromptStyle
    speech: bool


NAMED = {
    "SpireBase": _Published("raw", speech=True),
    "SpireFull": _Published("chat", speech=True),
    "SpireNoBlocks": _Published("chat", speech=True),
    "SpireNoPseudo": _Published("chat", speech=True),
    "TowerFull": _Published("chat", speech=False),
}


# The miniature that lies in the package: a bundle folder with trained weights, made by jobs/tiny.
TINY = "tiny"
TINY_FOLDER = Path(__file__).parent / "tiny"
NAMES = (*NAMED, TINY)


@dataclass(frozen=True)
class Checkpoint:
    """What generates and what it needs; see `resolve`."""

    name: str  # as the user gave it: one of NAMES or a folder
    llm: Path | None  # transformers folder; None when not asked for
    encoder: Path | None  # transformers folder; None when not asked for or without speech
    codebook: Path | None  # safetensors; None when not asked for or without speech
    layer: int  # counted from one; 0 without speech
    prompt_style: PromptStyle
    languages: tuple[str, ...]  # ISO 639-1
    unit_offset: int | None  # token id of unit 0; None without speech
    revision: str  # of the LLM: the hub's commit or a SHA-256 of the folder; "" when it was not asked for
    speech: bool  # takes units, not only text


def resolve(name_or_folder: str, *, need: Collection[Part] = PARTS, revision: str | None = None) -> Checkpoint:
    """The checkpoint of that name, bundle folder or Llama folder, with the parts of `need` on the local disk.

    `revision`: the hub commit of a named checkpoint's LLM, by default the newest. UserError for an unknown name or an
    incomplete folder; MachineFault when the hub does not give what is not cached.
    """
    if name_or_folder in NAMED:
        return _named(name_or_folder, need, revision)
    if name_or_folder == TINY:
        return _bundle(TINY, TINY_FOLDER, need)
    folder = Path(name_or_folder).expanduser().absolute()  # workers have folders of their own
    if not folder.is_dir():
        raise UserError(f"{name_or_folder!r} is neither a folder nor one of the checkpoints {', '.join(NAMES)}")
    if (folder / "spire.json").is_file():
        return _bundle(str(folder), folder, need)
    if (folder / "config.json").is_file():
        return _plain_llama(str(folder), folder, need)
    raise UserError(f"{folder} has neither spire.json (a bundle) nor config.json (a Llama checkpoint)")


def on_this_machine(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint` with its LLM on this machine's disk, for workers that do not share the driver's.

    MachineFault when it is not the same revision.
    """
    if checkpoint.llm is not None and checkpoint.llm.is_dir():
        return checkpoint
    revision = checkpoint.revision if checkpoint.name in NAMED else None
    try:
        found = resolve(checkpoint.name, need=LLM, revision=revision)
    except UserError as fault:
        raise MachineFault(f"this machine does not have the checkpoint the run was started with: {fault}") from fault
    if found.revision != checkpoint.revision:
        raise MachineFault(f"{checkpoint.name} on this machine is revision {found.revision}, not {checkpoint.revision}")
    return replace(checkpoint, llm=found.llm)


def check_languages(checkpoint: Checkpoint, languages: Iterable[str]) -> None:
    """UserError naming the first language the checkpoint does not know."""
    for language in languages:
        if language not in checkpoint.languages:
            raise UserError(
                f"{checkpoint.name} does not know the language {language!r}; it knows {', '.join(checkpoint.languages)}"
            )


def context_length(llm: Path) -> int:
    """How many tokens prompt and answer may have together. UserError when the model's config does not say."""
    positions = read_json(llm / "config.json").get("max_position_embeddings")
    if not isinstance(positions, int):
        raise UserError(f"{llm / 'config.json'} has no max_position_embeddings")
    return positions


def revision_of(folder: Path) -> str:
    """The hub's commit for a snapshot; else a SHA-256 over the folder's small files and the large ones' headers."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    # Without hidden files: the hub's client and git keep their own there, which a copy may lack.
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder)):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_FILE_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(8 + _header_bytes(path)))
    return digest.hexdigest()


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _named(name: str, need: Collection[Part], revision: str | None) -> Checkpoint:
    published = NAMED[name]
    llm = fetch_llm(f"utter-project/{name}", revision) if "llm" in need else None
    if llm is not None:
        _check_llm(llm)
    return Checkpoint(
        name=name,
        llm=llm,
        encoder=fetch_encoder() if published.speech and "encoder" in need else None,
        codebook=fetch_codebook() if published.speech and "codebook" in need else None,
        layer=SPIRE_LAYER if published.speech else 0,
        prompt_style=published.prompt_style,
        languages=LANGUAGES,
        unit_offset=SPIRE_UNIT_OFFSET if published.speech else None,
        revision=revision_of(llm) if llm else "",
        speech=published.speech,
    )


def _bundle(name: str, folder: Path, need: Collection[Part]) -> Checkpoint:
    settings = read_json(folder / "spire.json")
    style, languages = settings.get("prompt_style"), settings.get("languages")
    offset, layer = settings.get("unit_offset"), settings.get("layer", 0)
    if style not in ("chat", "raw"):
        raise UserError(f"{folder / 'spire.json'}: prompt_style is {style!r}, not 'chat' or 'raw'")
    if not isinstance(languages, list) or not all(isinstance(language, str) for language in languages):
        raise UserError(f"{folder / 'spire.json'}: languages is not a list of ISO 639-1 codes")
    speech = offset is not None
    if speech and not (isinstance(offset, int) and isinstance(layer, int) and layer > 0):
        raise UserError(f"{folder / 'spire.json'}: layer and unit_offset must be whole numbers, layer at least 1")
    llm, encoder, codebook = folder / "llm", folder / "encoder", folder / "codebook.safetensors"
    if "llm" in need:
        _check_llm(llm)
    if speech and "encoder" in need and not (encoder / "config.json").is_file():
        raise UserError(f"{encoder} has no config.json: a bundle needs its encoder there")
    if speech and "codebook" in need and not codebook.is_file():
        raise UserError(f"{codebook} is missing")
    return Checkpoint(
        name=name,
        llm=llm if "llm" in need else None,
        encoder=encoder if speech and "encoder" in need else None,
        codebook=codebook if speech and "codebook" in need else None,
        layer=layer if speech else 0,
        prompt_style="chat" if style == "chat" else "raw",
        languages=tuple(languages),
        unit_offset=offset,
        revision=revision_of(llm) if "llm" in need else "",
        speech=speech,
    )


def _plain_llama(name: str, folder: Path, need: Collection[Part]) -> Checkpoint:
    """A Llama fine-tuned on SPIRE's units, or on text alone when its tokenizer has none."""
    _check_llm(folder)
    offset = _vocabulary(folder).get(chr(FIRST_CODE_POINT))
    chat = (folder / "chat_template.jinja").is_file()
    if not chat and (folder / "tokenizer_config.json").is_file():
        chat = bool(read_json(folder / "tokenizer_config.json").get("chat_template"))
    return Checkpoint(
        name=name,
        llm=folder if "llm" in need else None,
        encoder=fetch_encoder() if offset is not None and "encoder" in need else None,
        codebook=fetch_codebook() if offset is not None and "codebook" in need else None,
        layer=SPIRE_LAYER if offset is not None else 0,
        prompt_style="chat" if chat else "raw",
        languages=LANGUAGES,
        unit_offset=offset,
        revision=revision_of(folder) if "llm" in need else "",
        speech=offset is not None,
    )


def _vocabulary(folder: Path) -> dict[str, int]:
    if not (folder / "tokenizer.json").is_file():  # a sentencepiece model alone
        from transformers import AutoTokenizer

        return dict(AutoTokenizer.from_pretrained(folder, trust_remote_code=False).get_vocab())
    tokens = read_json(folder / "tokenizer.json")
    # Units are pieces of the model's vocabulary or added tokens, as whoever extended the tokenizer liked.
    return dict(tokens["model"]["vocab"]) | {token["content"]: token["id"] for token in tokens["added_tokens"]}


def _check_llm(folder: Path) -> None:
    """UserError unless `folder` holds a whole Llama: its config, its tokenizer, every byte of its safetensors."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json: a checkpoint folder needs one")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise UserError(f"{folder} has neither tokenizer.json nor tokenizer.model: a checkpoint folder needs one")
    architectures = read_json(folder / "config.json").get("architectures")
    if architectures != ["LlamaForCausalLM"]:
        raise UserError(f"{folder / 'config.json'} is of {architectures}, not LlamaForCausalLM")
    index = folder / "model.safetensors.index.json"
    weights = (
        {folder / name for name in read_json(index)["weight_map"].values()}
        if index.is_file()
        else set(folder.glob("*.safetensors"))
    )
    if not weights:
        raise UserError(f"{folder} has no .safetensors weights")
    for path in sorted(weights):
        if not path.is_file():
            raise UserError(f"{path} is missing")
        _header_bytes(path)


def _header_bytes(path: Path) -> int:
    """The length of a safetensors file's header; 0 for other files. UserError when the file is cut short."""
    if path.suffix != ".safetensors":
        return 0
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if 0 < length <= _WHOLE_FILE_BYTES else {}
        except ValueError:
            header = {}
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    if not ends or path.stat().st_size != 8 + length + max(ends):
        raise UserError(f"{path} is not a whole safetensors file: fetch or copy it again")
    return length


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's file. UserError when it is missing or something else."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as fault:
        raise UserError(f"{path} is missing") from fault
    except ValueError as fault:
        raise UserError(f"{path} is not JSON: {fault}") from fault
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value
