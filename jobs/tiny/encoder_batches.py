"""Batches for the encoder: manifests read again and again as they grow, perturbed speech, letters and sounds."""

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from letters import LETTERS, spoken
from numpy.typing import NDArray
from perturb import perturb
from phones import UNKNOWN, frame_labels

from spire_ray.hubert import normalise, num_frames

SHARES = {"kokoro": 45, "flite": 15, "hibari": 12, "festival": 10, "espeak": 10, "piper": 8}  # of the utterances
BATCH_S = 16.0
DRAWN_AT_ONCE = 800  # utterances that are sorted by length and cut into batches
LONGEST_S = 9.0
ENOUGH = 1000  # utterances of a folder that are worth its whole share


class Batch(NamedTuple):
    """Utterances side by side, padded at the end."""

    samples: torch.Tensor  # float32 [B, S], normalised
    frames: torch.Tensor  # int64 [B]
    letters: torch.Tensor  # int64 [sum of counts], indices of LETTERS
    counts: torch.Tensor  # int64 [B], letters of each
    sounds: torch.Tensor  # int64 [B, T], indices of phones.SOUNDS or UNKNOWN
    texts: list[str]


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a manifest that is perhaps still written to; `audio` becomes an absolute path."""
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [row | {"audio": path.parent / row["audio"]} for row in rows]


def batches(corpus: Path, seed: int, first: int) -> Iterator[Batch]:
    """Endless perturbed batches from the folders of SHARES under `corpus`, from draw number `first` on."""
    number = first
    while True:
        random = np.random.default_rng([seed, number])
        for rows in _draw(corpus, random):
            yield batch([_heard(row, random) for row in rows], [row["text"] for row in rows])
        number += 1


def ahead(source: Iterator[Batch], depth: int = 8) -> Iterator[Batch]:
    """The same batches, prepared by a thread while the ones before are learnt from."""
    waiting: queue.Queue[Batch] = queue.Queue(depth)

    def fill() -> None:
        for item in source:
            waiting.put(item)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield waiting.get()


def clean_batches(manifest: Path, longest: int | None = None) -> Iterator[Batch]:
    """The utterances of a manifest as they are, sorted by length."""
    rows = sorted(read_manifest(manifest)[:longest], key=lambda row: float(row["duration"]))
    for part in _cut(rows, 64.0):
        pcm = [soundfile.read(row["audio"], dtype="int16")[0] for row in part]
        labels = [frame_labels(row["phones"], num_frames(len(x))) for row, x in zip(part, pcm, strict=True)]
        yield batch(list(zip(pcm, labels, strict=True)), [row["text"] for row in part])


def batch(heard: Sequence[tuple[NDArray[np.int16], NDArray[np.int64]]], texts: Sequence[str]) -> Batch:
    """Waveforms [n_i] with their frames' labels [T_i], and transcripts, as one batch."""
    frames = torch.tensor([num_frames(len(pcm)) for pcm, _ in heard])
    samples = torch.zeros(len(heard), max(len(pcm) for pcm, _ in heard))
    sounds = torch.full((len(heard), int(frames.max())), UNKNOWN)
    for index, (pcm, labels) in enumerate(heard):
        samples[index, : len(pcm)] = torch.from_numpy(normalise(pcm))
        sounds[index, : len(labels)] = torch.from_numpy(labels)
    plain = [spoken(text) for text in texts]
    letters = torch.tensor([LETTERS.index(letter) for text in plain for letter in text])
    return Batch(samples, frames, letters, torch.tensor([len(text) for text in plain]), sounds, plain)


def _draw(corpus: Path, random: np.random.Generator) -> list[list[dict[str, Any]]]:
    found = {name: corpus / name / "manifest.jsonl" for name in SHARES}
    sources = {name: rows for name, path in found.items() if path.exists() and (rows := read_manifest(path))}
    weights = np.array([SHARES[name] * min(1, len(rows) / ENOUGH) for name, rows in sources.items()])
    names = random.choice(list(sources), DRAWN_AT_ONCE, p=weights / weights.sum())
    rows = [sources[name][random.integers(len(sources[name]))] for name in names]
    rows = sorted((row for row in rows if row["duration"] < LONGEST_S), key=lambda row: float(row["duration"]))
    parts = _cut(rows, BATCH_S)
    return [parts[index] for index in random.permutation(len(parts))]


def _cut(rows: list[dict[str, Any]], seconds: float) -> list[list[dict[str, Any]]]:
    """Consecutive parts of `rows` of about `seconds` each."""
    parts: list[list[dict[str, Any]]] = []
    room = 0.0
    for row in rows:
        if row["duration"] > room:
            parts.append([])
            room = seconds
        parts[-1].append(row)
        room -= row["duration"]
    return parts


def _heard(row: dict[str, Any], random: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    samples, _ = soundfile.read(row["audio"], dtype="float32")
    changed = perturb(samples, random)
    frames = num_frames(len(changed.samples))
    return changed.samples, frame_labels(row["phones"], frames, changed.lead_s, changed.speed)
