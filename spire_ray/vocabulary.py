"""The check, at start, that a checkpoint's tokenizer has the units its model was trained with."""

from pathlib import Path
from typing import Any

from spire_ray.checkpoints import NAMED, SPIRE_UNITS, Checkpoint, read_json
from spire_ray.errors import UserError
from spire_ray.units import FIRST_CODE_POINT


def check_vocabulary(checkpoint: Checkpoint, clusters: int | None) -> None:
    """UserError unless the checkpoint's tokenizer has a token for each unit of a codebook of `clusters`."""
    from transformers import AutoTokenizer

    folder = _llm_folder(checkpoint)
    try:
        # Explicitly: else transformers asks whoever sits at the terminal whether to run a tokenizer's own code.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as fault:
        raise UserError(f"the tokenizer of {checkpoint.name} cannot be read: {fault}") from None
    check_tokenizer(checkpoint, tokenizer, clusters)


def check_tokenizer(checkpoint: Checkpoint, tokenizer: Any, num_units: int | None = None) -> int:
    """How many units `tokenizer` has (0 for a text checkpoint), once it fits the checkpoint and its codebook.

    Unit i must be the character chr(0xF0000 + i) and the token `unit_offset + i`, for every i below `num_units` (by
    default as many as there are), and the LLM must have a row for every token. UserError otherwise.
    """
    where = f"the tokenizer of {checkpoint.name}"
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    rows = int(read_json(_llm_folder(checkpoint) / "config.json")["vocab_size"])
    if max(vocabulary.values()) >= rows:
        raise UserError(f"{where} has token {max(vocabulary.values())}, but the model only {rows} rows (vocab_size)")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{where} has no end-of-text token (eos_token)")
    if not checkpoint.speech or checkpoint.unit_offset is None:
        return 0
    offset, found = checkpoint.unit_offset, _count_units(vocabulary)
    if checkpoint.name in NAMED:
        num_units = num_units or SPIRE_UNITS
    if found == 0 or found < (num_units or 1):
        raise UserError(f"{where} has {found} units from U+F0000 on, but {num_units or 'some'} are needed")
    for unit in range(num_units or found):
        token = vocabulary[chr(FIRST_CODE_POINT + unit)]
        if token != offset + unit:
            raise UserError(f"{where} has unit {unit} as token {token}, not {offset + unit} (unit_offset {offset})")
    first = chr(FIRST_CODE_POINT)
    if tokenizer(first, add_special_tokens=False)["input_ids"][-1] != offset or tokenizer.decode([offset]) != first:
        raise UserError(f"{where} does not keep the character U+F0000 as the one token {offset}")
    return num_units or found


def _count_units(vocabulary: dict[str, int]) -> int:
    count = 0
    while chr(FIRST_CODE_POINT + count) in vocabulary:
        count += 1
    return count


def _llm_folder(checkpoint: Checkpoint) -> Path:
    if checkpoint.llm is None:
        raise ValueError("the checkpoint was resolved without its llm")
    return checkpoint.llm
