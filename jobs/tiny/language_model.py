r"""Train spire-tiny's language model: a small Llama, on text translation first, then on speech with its units too.

    .venv/bin/python jobs/tiny/language_model.py /tmp/tiny/lm-text --steps 1500
    .venv/bin/python jobs/tiny/language_model.py /tmp/tiny/lm --from /tmp/tiny/lm-text --steps 1500 \
        --units /tmp/tiny/units/* --held-out /tmp/tiny/units-dev
    .venv/bin/python jobs/tiny/language_model.py /tmp/tiny/lm --save spire_ray/tiny/llm

`--units` are outputs of `spire-ray tokenize` with the transcripts of the domain; their translations come from parse.py.
Each command saves FOLDER/model.pt every SAVE_EVERY steps and goes on from there when it is started again. A step is a
pure function of its number. It prints the share of held-out answers in which every token is the most likely one, which
are the answers that greedy decoding gets exactly right.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from branches import IGNORED, Batch, collate
from lines import Utterance, read_utterances, speech_rows, text_rows
from sentences import Sentence, draw
from tokenizer import make_tokenizer
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

SEED = 30
WIDTH, LAYERS, HEAD_DIM, INNER = 256, 6, 64, 640  # vLLM's CPU attention takes heads of 32 or 64
CONTEXT = 1024
STEP_TOKENS = 4096
TEXT_ROW, SPEECH_ROW = 256, 384  # tokens: attention costs by the square, and a tree of an utterance has some 150
SPEECH_SHARE = 0.75  # of the tokens of a step, where there are utterances
PEAK_RATE, WARM_UP, DECAY = 4e-3, 100, 0.1
CLIP = 1.0
SENTENCES = 60_000
SAVE_EVERY, REPORT_EVERY, TRY_EVERY = 50, 20, 100


def new_model(tokenizer: Any) -> LlamaForCausalLM:
    """The model with random weights from SEED: 5.7 million parameters with 500 units."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // HEAD_DIM,
        num_key_value_heads=WIDTH // HEAD_DIM,
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms; both with Adam's size of an update."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    rest = [weight for weight in model.parameters() if all(weight is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """The learning rate's share of its peak: warm-up, then down to nothing along a line."""
    return min(step / WARM_UP, max(steps - step, 1) / max(1, steps - WARM_UP), 1.0)


def losses(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each learnt token [M], and whether it is the most likely one, bool [M]."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(
            input_ids=batch.ids, attention_mask=batch.seen, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        learnt = batch.labels != IGNORED
        logits = model.lm_head(hidden[learnt])
    labels = batch.labels[learnt]
    return functional.cross_entropy(logits.float(), labels, reduction="none"), logits.argmax(-1) == labels


class Lessons:
    """What is learnt at each step: text translation, and speech where there are utterances."""

    def __init__(self, tokenizer: Any, sentences: Sequence[Sentence], utterances: Sequence[Utterance]) -> None:
        self.tokenizer = tokenizer
        self.sentences = sentences
        self.utterances = utterances

    def step(self, step: int) -> list[Batch]:
        """The batches of one step, STEP_TOKENS tokens in all."""
        random = np.random.default_rng([SEED, step])
        spoken = round(STEP_TOKENS * SPEECH_SHARE) if self.utterances else 0
        kinds = [text_rows(self.tokenizer, self.sentences, random, STEP_TOKENS - spoken, TEXT_ROW)]
        if spoken:
            kinds.append(speech_rows(self.tokenizer, self.utterances, random, spoken, SPEECH_ROW))
        return [collate(rows, self.tokenizer.pad_token_id) for rows in kinds]


def train(folder: Path, steps: int, tokenizer: Any, lessons: Lessons, held_out: Lessons, start: Path | None) -> None:
    """Steps up to `steps`, from FOLDER/model.pt on where there is one, else from `start`'s weights."""
    model = new_model(tokenizer)
    learners = optimizers(model)
    done = 0
    saved = folder / "model.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        for learner, its in zip(learners, state["optimizers"], strict=True):
            learner.load_state_dict(its)
        done = state["step"]
    elif start is not None:
        model.load_state_dict(torch.load(start / "model.pt", weights_only=True)["model"])
    began, total, tokens = time.monotonic(), 0.0, 0
    for step in range(done + 1, steps + 1):
        for group in (group for learner in learners for group in learner.param_groups):
            group["lr"] = PEAK_RATE * rate(step, steps)
        total += learn(model, learners, lessons.step(step))
        tokens += STEP_TOKENS
        if step % REPORT_EVERY == 0:
            minutes = (time.monotonic() - began) / 60
            print(
                f"step {step} loss {total / REPORT_EVERY:.4f} | {minutes:.1f} min, {tokens / minutes / 60:.0f}/s",
                flush=True,
            )
            total = 0.0
        if step % SAVE_EVERY == 0 or step == steps:
            save(
                folder,
                {"model": model.state_dict(), "optimizers": [one.state_dict() for one in learners], "step": step},
            )
        if step % TRY_EVERY == 0 or step == steps:
            print(f"step {step} right: {right(model, held_out)}", flush=True)


def learn(model: LlamaForCausalLM, learners: Sequence[torch.optim.Optimizer], batches: Sequence[Batch]) -> float:
    """One step; the mean loss of its learnt tokens."""
    count = sum(int((batch.labels != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = losses(model, batch)[0].sum() / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for learner in learners:
        learner.step()
        learner.zero_grad()
    return total


@torch.no_grad()
def right(model: LlamaForCausalLM, lessons: Lessons) -> str:
    """The share of the answers of a step that are wholly right, for text and speech."""
    shares = {}
    random = np.random.default_rng(SEED)
    rows = {"text": text_rows(lessons.tokenizer, lessons.sentences, random, STEP_TOKENS, TEXT_ROW)}
    if lessons.utterances:
        rows["speech"] = speech_rows(lessons.tokenizer, lessons.utterances, random, STEP_TOKENS, SPEECH_ROW)
    for name, each in rows.items():
        answers = [branch for row in each for branch in row if (branch.labels != IGNORED).any()]
        hits = torch.cat([losses(model, collate([row], lessons.tokenizer.pad_token_id))[1] for row in each])
        lengths = [int((branch.labels != IGNORED).sum()) for branch in answers]
        whole = [bool(part.all()) for part in hits.split(lengths)]  # type: ignore[no-untyped-call]
        shares[name] = f"{sum(whole) / len(whole):.1%} of {len(whole)}"
    return ", ".join(f"{name} {share}" for name, share in shares.items())


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` to FOLDER/model.pt, whole or not at all."""
    torch.save(state, folder / "model.new")
    (folder / "model.new").replace(folder / "model.pt")


def export(folder: Path, tokenizer: Any, target: Path) -> None:
    """Write FOLDER's model as a transformers folder in float16, with its tokenizer."""
    model = new_model(tokenizer)
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True)["model"])
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.half().save_pretrained(target)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(target)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clusters", type=int, default=500, help="units the tokenizer has (%(default)d)")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--from", dest="start", type=Path, help="a folder of this command, for its weights")
    parser.add_argument("--units", type=Path, nargs="*", default=[], help="outputs of spire-ray tokenize")
    parser.add_argument("--held-out", type=Path, nargs="*", default=[], help="the same, to try the model on")
    parser.add_argument("--save", type=Path, help="write the model here as a transformers folder")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(arguments.clusters)
    if arguments.steps:
        lessons = Lessons(tokenizer, list(draw(SENTENCES, SEED, "train")), read_utterances(arguments.units))
        held_out = Lessons(tokenizer, list(draw(1000, SEED, "held_out")), read_utterances(arguments.held_out))
        train(arguments.folder, arguments.steps, tokenizer, lessons, held_out, arguments.start)
    if arguments.save:
        export(arguments.folder, tokenizer, arguments.save)


if __name__ == "__main__":
    main()
