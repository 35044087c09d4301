"""What decides a training set: what a user asked of `build-dataset`, as it is frozen in settings.json."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spire_ray import filters
from spire_ray.errors import UserError
from spire_ray.filters import Bound
from spire_ray.pairs import TASKS, TRANSLATION

FORMATS = ("pretraining", "instructions")
DEDUPE = ("units", "text", "near")
SOURCES = ("reference", "generated")


@dataclass(frozen=True)
class Recipe:
    """How a training set is made of a run's tables."""

    format: str = "instructions"  # of FORMATS
    tasks: tuple[str, ...] = ("asr", "st")
    transcripts: str = "reference"  # of SOURCES
    translations: str = "reference"  # of SOURCES, or the URL of a `translate` run
    bounds: tuple[Bound, ...] = ()
    preset: str | None = None
    allowed_flags: tuple[str, ...] = ()
    dedupe: tuple[str, ...] = ("units",)
    weights: Mapping[str, float] = field(default_factory=dict)  # share of a corpus that is kept
    per_language: int | None = None  # pairs of each
    top_k: str | None = None  # the value of which the best are drawn; None: at random
    dev: float = 0.0  # share of speakers and recordings
    seed: int = 0
    text: tuple[str, ...] = ()  # text corpora of continued pre-training
    text_ratio: float = 1.0  # lines of text to a line of speech
    scorer: str | None = None
    jsonl: bool = False

    def __post_init__(self) -> None:
        """UserError for what does not go together."""
        if self.format == "pretraining" and self.tasks != ("asr",):
            raise UserError("continued pre-training has ASR lines and text: --tasks asr, or another --format")
        if self.text and self.format != "pretraining":
            raise UserError("--text is for --format pretraining: conversations have no lines of text alone")
        if self.top_k and self.per_language is None:
            raise UserError(f"--top-k {self.top_k} says which are best: --per-language N says how many of them")
        if self.per_language is not None and self.per_language < 1:
            raise UserError(f"--per-language {self.per_language}: give 1 or more, or leave it out to keep all")
        if not math.isfinite(self.text_ratio) or self.text_ratio < 0:
            raise UserError(f"--text-ratio {self.text_ratio:g}: give lines of text to a line of speech, 0 or more")
        if not 0 <= self.dev < 1:
            raise UserError(f"--dev {self.dev:g} is no share: give 0 to 1, such as 0.01")
        if any(not 0 <= weight <= 1 for weight in self.weights.values()):
            raise UserError("a weight is the share of a corpus that is kept: 0 to 1")
        if not self.scorer and (self.top_k == "qe" or any(b.name == "qe" for b in self.bounds)):
            raise UserError("qe is what a scorer gives: name one by --scorer")

    @property
    def all_bounds(self) -> tuple[Bound, ...]:
        """Those of the preset, and in their place those that were asked for."""
        return filters.merged(filters.preset(self.preset, self.scorer), self.bounds)

    @property
    def translates(self) -> bool:
        """Whether any task needs translations."""
        return any(task in TRANSLATION for task in self.tasks)

    @property
    def from_run(self) -> bool:
        """Whether the translations are those of another run."""
        return self.translates and self.translations not in SOURCES

    def frozen(self) -> dict[str, Any]:
        """For settings.json."""
        return {
            "format": self.format,
            "tasks": [task for task in TASKS if task in self.tasks],
            "transcripts": self.transcripts,
            "translations": self.translations if self.translates else None,
            "preset": self.preset,
            "bounds": [str(bound) for bound in self.all_bounds],
            "allowed_flags": sorted(self.allowed_flags),
            "dedupe": [kind for kind in DEDUPE if kind in self.dedupe],
            "weights": dict(sorted(self.weights.items())),
            "per_language": self.per_language,
            "top_k": self.top_k,
            "dev": self.dev,
            "seed": self.seed,
            "text": list(self.text),
            "text_ratio": self.text_ratio if self.text else None,
            "jsonl": self.jsonl,
        }


def weights_of(given: Sequence[str]) -> dict[str, float]:
    """`corpus=0.5` each. UserError for another form."""
    weights = {}
    for text in given:
        corpus, equals, share = text.rpartition("=")
        try:
            weights[corpus] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise UserError(f"--weights {text!r} is not of the form corpus=0.5")
    return weights


def tokenizer_identity(tokenizer: Any) -> str:
    """SHA-256 of what decides token counts: the vocabulary and the chat template."""
    told = {"vocabulary": tokenizer.get_vocab(), "template": tokenizer.chat_template, "kind": type(tokenizer).__name__}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
