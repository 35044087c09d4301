"""Train spire-tiny's speech encoder: a narrow HuBERT whose layer LAYER tells what sound a frame is and what is written.

    OMP_NUM_THREADS=1 nice -n 19 .venv/bin/python jobs/tiny/encoder.py /tmp/tiny --steps 6000
    .venv/bin/python jobs/tiny/encoder.py /tmp/tiny --save spire_ray/tiny/encoder

The first command reads the corpora of corpus.py (as far as they are), saves /tmp/tiny/encoder.pt every SAVE_EVERY
steps, goes on from there when it is started again, and prints the character error rate of the dev voices. What it
learns from, all at once, and where:
    layer LAYER, without the final norm: CTC on letters, and the sound of each frame where the synthesiser told it;
    the last layer, with it: CTC on letters;
    the convolutions: the logarithmic mel spectrum of each frame, which they would else take thousands of steps to find.
The heads are thrown away. About 0.5 s of one core for a step of 32 s of speech.
"""

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import jiwer
import torch
from encoder_batches import Batch, ahead, batches, clean_batches
from encoder_network import LAYER, Network
from letters import LETTERS
from torch.nn import functional
from transformers import Wav2Vec2FeatureExtractor

SEED = 20
PEAK_RATE, WARM_UP = 1.5e-3, 300
WEIGHT_DECAY = 0.01
CLIP = 2.0
SAVE_EVERY, REPORT_EVERY = 100, 50
WEIGHTS = {"letters": 1.0, "letters_at_layer": 1.0, "sounds": 1.0, "mel": 0.5}


def train(folder: Path, steps: int) -> None:
    """Steps up to `steps`, from the last checkpoint on."""
    torch.manual_seed(SEED)
    network = Network()
    optimizer = torch.optim.AdamW(network.groups(WEIGHT_DECAY), lr=PEAK_RATE, betas=(0.9, 0.98))
    done = draws = 0
    checkpoint = folder / "encoder.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done, draws = state["step"], state["draws"] + 1
        torch.manual_seed(SEED + done)
    began, sums, seconds = time.monotonic(), dict.fromkeys(WEIGHTS, 0.0), 0.0
    for step, batch in enumerate(islice(ahead(batches(folder, SEED + draws, 0)), steps - done), done + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        losses = learn(network, optimizer, batch)
        seconds += batch.samples.numel() / 16_000
        sums = {name: sums[name] + losses[name] / REPORT_EVERY for name in sums}
        if step % REPORT_EVERY == 0:
            told = " ".join(f"{name} {value:.3f}" for name, value in sums.items())
            minutes = (time.monotonic() - began) / 60
            print(f"step {step} {told} | {minutes:.1f} min, {seconds / minutes / 60:.0f}x", flush=True)
            sums = dict.fromkeys(WEIGHTS, 0.0)
        if step % SAVE_EVERY == 0 or step == steps:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "draws": draws}
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)
            print(f"step {step} saved; {report(network, folder / 'dev' / 'manifest.jsonl', 64)}", flush=True)


def rate(step: int, steps: int) -> float:
    """The learning rate: a short way up, then down in a line."""
    return PEAK_RATE * min(step / WARM_UP, max(1 - (step - WARM_UP) / (steps - WARM_UP), 0.02))


def learn(network: Network, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    """One step. Returns the losses."""
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        said = network(batch.samples, batch.frames)
    losses = {
        "letters": ctc(said.letters, batch),
        "letters_at_layer": ctc(said.letters_at_layer, batch),
        "sounds": functional.cross_entropy(said.sounds.flatten(0, 1), batch.sounds.flatten(), label_smoothing=0.1),
        "mel": said.mel_error,
    }
    if not bool((batch.sounds >= 0).any()):
        losses["sounds"] = torch.zeros(())
    total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if torch.isfinite(torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)):
        optimizer.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def ctc(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """CTC loss per letter of scores [B, T, letters]."""
    log_probs = functional.log_softmax(scores.float(), dim=-1).transpose(0, 1)
    summed = functional.ctc_loss(
        log_probs, batch.letters, batch.frames, batch.counts, reduction="sum", zero_infinity=True
    )
    return summed / batch.counts.sum()


@torch.inference_mode()
def report(network: Network, manifest: Path, longest: int | None = None) -> str:
    """Character and word error rates of the greedy letters at both heads, and the share of frames with their sound."""
    network.eval()
    references: list[str] = []
    found: dict[str, list[str]] = {"last": [], "layer": []}
    right = known = 0
    for batch in clean_batches(manifest, longest):
        said = network(batch.samples, batch.frames)
        references += batch.texts
        found["last"] += greedy(said.letters, batch.frames)
        found["layer"] += greedy(said.letters_at_layer, batch.frames)
        labelled = batch.sounds >= 0
        right += int((said.sounds.argmax(-1) == batch.sounds)[labelled].sum())
        known += int(labelled.sum())
    rates = [f"{n} CER {jiwer.cer(references, t):.3f} WER {jiwer.wer(references, t):.3f}" for n, t in found.items()]
    return ", ".join([*rates, f"sounds {right / max(known, 1):.3f}", f"e.g. {found['layer'][0]!r}"])


def greedy(scores: torch.Tensor, frames: torch.Tensor) -> list[str]:
    """The best letter of each frame [B, T, letters], repeats and blanks left out."""
    texts = []
    for row, length in zip(scores.argmax(-1), frames, strict=True):
        letters = torch.unique_consecutive(row[:length]).tolist()
        texts.append(" ".join("".join(LETTERS[letter] for letter in letters if letter).split()))
    return texts


def save(checkpoint: Path, folder: Path) -> None:
    """Write the encoder as transformers loads it, in half precision: config, preprocessor config, safetensors."""
    network = Network()
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["network"])
    hubert = network.hubert.eval()
    hubert.half().save_pretrained(folder)
    config = hubert.config
    config.dtype = "float32"  # what it is loaded as
    config.save_pretrained(folder)
    extractor: Any = Wav2Vec2FeatureExtractor
    extractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    print(f"{folder}: layer {LAYER} of {config.num_hidden_layers}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the corpora and the checkpoint are")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the encoder as far as it is, learn nothing")
    parser.add_argument("--report", type=Path, metavar="MANIFEST", help="error rates of a manifest, learn nothing")
    arguments = parser.parse_args()
    if arguments.save:
        save(arguments.folder / "encoder.pt", arguments.save)
    elif arguments.report:
        network = Network()
        network.load_state_dict(torch.load(arguments.folder / "encoder.pt", weights_only=True)["network"])
        print(report(network, arguments.report))
    else:
        train(arguments.folder, arguments.steps)


if __name__ == "__main__":
    main()
