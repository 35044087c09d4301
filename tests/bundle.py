"""A tiny bundle folder with random weights and the real layout: `python tests/bundle.py DIR`.

    spire.json              prompt style, languages, layer, unit offset
    encoder/                HuBERT, pre-LN, 50 frames a second
    codebook.safetensors    `centroids`, float32 [K, D], taken from the encoder's own features
    llm/                    Llama with SPIRE's token layout and chat template

Equal arguments give equal weights. The sizes are arguments: a benchmark can ask for larger models of the same shape.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    HubertConfig,
    HubertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    Wav2Vec2FeatureExtractor,
)
from transformers.utils import logging

LANGUAGES = ("en", "de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")
FIRST_UNIT = 0xF0000
SPECIALS = ("<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>")
WORDS = """
Speech: English: German: French: Dutch: Italian: Spanish: Portuguese: Korean: Russian: Chinese: user assistant
Translate the following text from to . , ! ? a an and are as at be but by can could day did do for from good had has
have he her his how I if in into is it its just know like little long made make many may more my night no not now of
on one only or other our out over said see she should so some such tell than that their them then there they thing
this time two under up very was water we went were what when where which who will with word work would year you your
the house street morning evening speaks listens walks river mountain der die das und ist nicht ein eine mit auf le la
les et est une pas avec el los que una con por il gli che non het een van niet o os uma com no dom nach weg gut heute
maison rue matin casa noche tarde huis straat
""".split()  # noqa: SIM905
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_bundle(
    folder: Path,
    *,
    seed: int = 0,
    encoder_layers: int = 4,
    encoder_width: int = 64,
    layer: int | None = None,
    units: int = 100,
    llm_layers: int = 2,
    llm_width: int = 128,
    head_dim: int = 32,
    context: int = 4096,
    base_pieces: int = 512,
    prompt_style: str = "chat",
    end_bias: float = 40.0,
    text_only: bool = False,
) -> Path:
    """Write the bundle into `folder` and return it. Random weights from `seed`.

    layer: whose output is quantised, 1-based; by default the last but one, or the only one.
    units: K. `text_only` leaves out units, encoder and codebook, as in TowerFull.
    llm_width: a multiple of `head_dim`, for which vLLM's CPU attention takes 32, 64, 80, 96, 112, 128 and more.
    end_bias: how easily an answer ends: 1000 at once, 60 after some 15 tokens, 40 within 64 or not, -10000 never.
    """
    logging.disable_progress_bar()  # for a few megabytes
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layer = layer or max(1, encoder_layers - 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not text_only:
            encoder = _save_encoder(folder / "encoder", encoder_layers, encoder_width)
            save_file({"centroids": _centroids(encoder, layer, units, seed)}, folder / "codebook.safetensors")
        tokenizer = make_tokenizer(base_pieces, 0 if text_only else units, chat=prompt_style == "chat")
        tokenizer.save_pretrained(folder / "llm")
        _save_llm(folder / "llm", tokenizer, llm_layers, llm_width, head_dim, context, end_bias)
    settings: dict[str, object] = {"prompt_style": prompt_style, "languages": LANGUAGES}
    if not text_only:
        settings |= {"layer": layer, "unit_offset": base_pieces + len(SPECIALS)}
    (folder / "spire.json").write_text(json.dumps(settings, indent=2) + "\n")
    return folder


def make_tokenizer(base_pieces: int = 512, units: int = 100, *, chat: bool = True) -> LlamaTokenizer:
    """Llama-2-like BPE with byte fallback, five specials, the units, `<|im_end|>` (ends a text), `<|im_start|>`."""
    trained = Tokenizer(models.BPE(byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    reserved = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=min(base_pieces, 512), special_tokens=reserved, show_progress=False)
    trained.train_from_iterator([" ".join(WORDS), *WORDS], trainer)
    model = json.loads(trained.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    for filler in range(len(vocab), base_pieces):
        vocab[f"<filler_{filler}>"] = filler
    # Llama's own class, because loading a checkpoint builds exactly this one again from the saved pieces.
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]], add_bos_token=True)
    tokenizer.add_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIALS])
    tokenizer.add_tokens([AddedToken(chr(FIRST_UNIT + unit), normalized=False) for unit in range(units)])
    ends = ("<|im_end|>", "<|im_start|>")
    tokenizer.add_tokens([AddedToken(piece, special=True, normalized=False) for piece in ends])
    tokenizer.pad_token = "<PAD>"
    tokenizer.eos_token = "<|im_end|>" if chat else "</s>"
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _save_encoder(folder: Path, layers: int, width: int) -> HubertModel:
    """HuBERT-Large's kind of model (layer norms in the convolutions, pre-LN layers), narrow."""
    channels = min(width, 64)
    config = HubertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        intermediate_size=4 * width,
        conv_dim=(channels,) * 7,
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
        apply_spec_augment=False,
        initializer_range=0.1,
    )
    encoder = HubertModel(config).eval()
    _smooth(encoder)
    encoder.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return encoder


@torch.no_grad()
def _smooth(encoder: HubertModel) -> None:
    """Let the positional convolution average over some 80 ms: neighbouring frames often share a unit, as in speech."""
    conv = encoder.encoder.pos_conv_embed.conv.parametrizations.weight
    taps = conv.original0.shape[-1]
    conv.original1.copy_(conv.original1[..., :1].expand_as(conv.original1))
    conv.original0.copy_(20 * torch.exp(-(((torch.arange(taps) - taps / 2) / 2) ** 2)))


def _centroids(encoder: HubertModel, layer: int, units: int, seed: int) -> torch.Tensor:
    """K of the encoder's frames over noise and tones that change every 60 ms, so that other audio varies its units."""
    random = np.random.default_rng(seed)
    seconds = 2 + units // 25
    pieces = []
    for _ in range(int(seconds / 0.06)):
        time = np.arange(960) / 16_000
        tones = sum(np.sin(2 * np.pi * hertz * time + random.uniform(0, 6)) for hertz in random.uniform(80, 4000, 3))
        pieces.append(random.uniform(0, 1) * tones + random.uniform(0, 1) * random.standard_normal(960))
    waveform = np.concatenate(pieces)
    waveform = (waveform - waveform.mean()) / waveform.std()
    kept: list[torch.Tensor] = []
    # A hook, not output_hidden_states: of the last layer those hold the output after the final norm.
    hook = encoder.encoder.layers[layer - 1].register_forward_hook(
        lambda module, inputs, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.inference_mode():
        encoder(torch.from_numpy(waveform).float()[None])
    hook.remove()
    frames = kept[0].reshape(-1, encoder.config.hidden_size)
    chosen = random.choice(len(frames), units, replace=False)
    return frames[torch.from_numpy(chosen)].float().contiguous().clone()


def _save_llm(
    folder: Path, tokenizer: LlamaTokenizer, layers: int, width: int, head_dim: int, context: int, end_bias: float
) -> None:
    vocabulary = -(-len(tokenizer) // 64) * 64
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // head_dim,
        num_key_value_heads=width // head_dim,
        head_dim=head_dim,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=2.3 / width**0.5,  # answers that wander; smaller ones repeat one piece
        dtype="float32",
    )
    llm = LlamaForCausalLM(config).eval()
    _bias_logits(llm, tokenizer, end_bias)
    llm.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    llm.save_pretrained(folder)


@torch.no_grad()
def _bias_logits(llm: LlamaForCausalLM, tokenizer: LlamaTokenizer, end_bias: float) -> None:
    """Let dimension 0 of the residual stream be a constant, so that column 0 of the head is a bias per token.

    Tokens that are not text (bytes, units, specials, padding) are never generated; the ends by `end_bias`.
    """
    llm.model.embed_tokens.weight[:, 0] = 1.0
    for layer in llm.model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    bias = torch.full((llm.config.vocab_size,), -1e4)
    for index, piece in enumerate(pieces):
        if not piece.startswith("<") and ord(piece[0]) < FIRST_UNIT:
            bias[index] = 0.0
    bias[[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<0x0A>")]] = end_bias
    llm.lm_head.weight[:, 0] = bias


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    sizes = {
        "seed": 0,
        "encoder-layers": 4,
        "encoder-width": 64,
        "layer": None,
        "units": 100,
        "llm-layers": 2,
        "llm-width": 128,
        "head-dim": 32,
        "context": 4096,
        "base-pieces": 512,
    }
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prompt-style", choices=("chat", "raw"), default="chat")
    parser.add_argument("--end-bias", type=float, default=40.0)
    parser.add_argument("--text-only", action="store_true")
    arguments = vars(parser.parse_args())
    print(make_bundle(arguments.pop("folder"), **arguments))


if __name__ == "__main__":
    main()
