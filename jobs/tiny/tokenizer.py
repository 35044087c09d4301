"""The tokenizer of spire-tiny: Llama's kind of BPE over the domain's words, then SPIRE's specials and units.

Its layout is SPIRE's: base pieces with byte fallback, five specials, a private-use character for each unit,
`<|im_end|>`, `<|im_start|>`. Pieces are learnt from the words that numbers, dates and sentences are made of, each as
often as the others, and not from whole numbers: "siebenhunderteinundzwanzig" has the pieces of 7, 100, 1 and 20.
"""

import json
import re
from collections.abc import Iterator, Sequence

from frames import CITIES, LANDMARKS
from grammar import english
from grammar.meaning import Clock, Currency, Date, Grammar, Part, Price, Value
from sentences import LANGUAGES, SLOT
from tokenizers import AddedToken, Tokenizer, models, trainers
from transformers import LlamaTokenizer

from spire_ray.prompts import LANGUAGE_NAMES
from spire_ray.units import FIRST_CODE_POINT

SPECIALS = ("<CLS>", "<EOD>", "<MASK>", "<PAD>", "<SEP>")
PROMPT_WORDS = f"user assistant Speech: Translate the following text from to {' '.join(LANGUAGE_NAMES.values())}"
PROMPT_WORDS += " " + " ".join(f"{name}: {name}." for name in LANGUAGE_NAMES.values())
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BASE_PIECES = 4096
SPACE = "▁"  # how Llama's pieces write one
NUMBERS = [*range(23), *range(30, 100, 10), *range(100, 1000, 100), *range(1000, 10_000, 1000)]
PARTS: list[Part] = ["morning", "afternoon", "evening"]
CURRENCIES: list[Currency] = ["dollar", "euro"]
# What the slots are filled with to learn the pieces: each word once, not each combination.
SLOTS: dict[str, Sequence[Value]] = {
    "k": NUMBERS,
    "n": [number for number in NUMBERS if 1 < number < 1000],
    "o": [number for number in NUMBERS if 0 < number <= 100],
    "d": [Date(1, month, 2000) for month in range(1, 13)],
    "t": [Clock(2, minute, quarters=True, part=part) for minute in (15, 30, 45) for part in PARTS],
    "p": [Price(amount, amount, currency) for amount in (1, 2, 5) for currency in CURRENCIES],
    "c": CITIES,
    "l": LANDMARKS,
    "x": CITIES + LANDMARKS,
}


def make_tokenizer(units: int) -> LlamaTokenizer:
    """SPIRE's layout with BASE_PIECES pieces and `units` units; the chat template and `<|im_end|>` as the end."""
    trained = Tokenizer(models.BPE(byte_fallback=True))
    reserved = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=BASE_PIECES, special_tokens=reserved, show_progress=False)
    trained.train_from_iterator(_words(), trainer)
    model = json.loads(trained.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    if len(vocab) != BASE_PIECES:
        raise ValueError(f"the domain's words make only {len(vocab)} pieces, not {BASE_PIECES}")
    # Llama's own class: loading a checkpoint builds exactly this one again from the saved pieces.
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]], add_bos_token=True)
    tokenizer.add_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIALS])
    tokenizer.add_tokens([AddedToken(chr(FIRST_CODE_POINT + unit), normalized=False) for unit in range(units)])
    ends = ("<|im_end|>", "<|im_start|>")
    tokenizer.add_tokens([AddedToken(piece, special=True, normalized=False) for piece in ends])
    tokenizer.pad_token = "<PAD>"
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _words() -> Iterator[str]:
    for word in PROMPT_WORDS.split():
        yield from (word, SPACE + word) * 100  # one piece each: every example has them
    for grammar in (english.GRAMMAR, *LANGUAGES.values()):
        yield from _said(grammar)
        for template in grammar.frames.values():
            for number, text in enumerate(SLOT.split(template)[::3]):
                yield from _pieces(text)
                if number == 0:
                    yield from _pieces(f" {text}")


def _said(grammar: Grammar) -> Iterator[str]:
    """What fills the slots: alone, after a space, and with a capital."""
    slots = sorted({slot for template in grammar.frames.values() for slot in SLOT.findall(template)})
    for text in sorted({grammar.say(value, form) for name, form in slots for value in SLOTS[name]}):
        # Three times: they are met more often than the words of one sentence.
        for _ in range(3):
            yield from _pieces(text)
            yield from _pieces(f" {text}")
        yield from _pieces(grammar.begin(text))


def _pieces(text: str) -> list[str]:
    return [piece for piece in re.split(f"(?={SPACE})", text.replace(" ", SPACE)) if piece]
