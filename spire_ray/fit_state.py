"""A fit under way: what was asked for, what fit.json freezes of it, and the card it ends with."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spire_ray import __version__
from spire_ray.checkpoints import revision_of
from spire_ray.codebook_card import FEATURES, Card
from spire_ray.driver import Driver
from spire_ray.fit_iterations import Saved
from spire_ray.fit_plan import corpus_sha256
from spire_ray.plan import Plan
from spire_ray.sampling import FRAMES_PER_S, KEYS, Sample
from spire_ray.settings import Features
from spire_ray.store import Store


@dataclass(frozen=True)
class FitOptions:
    """What a user asks of a fit."""

    encoder: str  # folder of a transformers HuBERT
    encoder_name: str  # as the user named it
    layer: int  # counted from 1
    clusters: int
    frames: int = 10_000_000  # to train on; 5 % as many are held out
    seed: int = 0


@dataclass
class Fit:
    """A fit under way."""

    driver: Driver
    store: Store
    options: FitOptions
    features: Features
    plan: Plan
    sample: Sample
    rounds: int  # 0: not known yet
    saved: Saved | None

    @cached_property
    def of_features(self) -> Mapping[str, Any]:
        """What is frozen of the features: once, since it reads the encoder's weights."""
        return self.features.frozen()

    @property
    def mode(self) -> str:
        """All frames at once, or in rounds."""
        return "full" if self.rounds == 1 else "mini-batch"

    @property
    def finished(self) -> bool:
        """Whether no iteration is left."""
        return self.saved is not None and self.saved.ends_round and self.saved.round == self.rounds

    @property
    def next_round(self) -> int:
        """The round to go on with, counted from 1."""
        return 1 if self.saved is None else self.saved.round + self.saved.ends_round

    @property
    def kept_a_second(self) -> float:
        """Frames kept of a second of audio."""
        return FRAMES_PER_S * self.sample.held_out / KEYS

    def frozen(self) -> dict[str, Any]:
        """fit.json: what decides the centroids."""
        return {
            "plan": self.plan.fingerprint,
            **self.of_features,
            "clusters": self.options.clusters,
            "frames": self.options.frames,
            "seed": self.options.seed,
            # Whole numbers up to 2^64, which JSON readers would round.
            "training_keys_below": str(self.sample.training),
            "held_out_keys_below": str(self.sample.held_out),
            "mode": self.mode,
            "rounds": self.rounds,
        }

    def card(self, saved: Saved) -> Card:
        """The card of the codebook that ends with `saved`."""
        iteration = saved.iteration
        return Card(
            encoder=self.of_features["encoder"],
            encoder_name=self.options.encoder_name,
            revision=revision_of(Path(self.features.encoder)),
            layer=str(self.features.layer),
            **FEATURES,
            dtype=self.features.dtype,
            corpus=corpus_sha256(self.store),
            hours=f"{saved.hours:.6f}",
            frames=str(saved.frames),
            held_out_frames=str(saved.held_out_frames),
            seed=str(self.options.seed),
            mode=self.mode + (f", {self.rounds} rounds" if self.rounds > 1 else ""),
            iterations=str(iteration.number),
            reseeded=str(saved.reseeded),
            inertia=repr(iteration.inertia),
            held_out_inertia="none" if iteration.held_out is None else repr(iteration.held_out),
            source="none",
            made_by=f"spire_ray {__version__}",
        )
