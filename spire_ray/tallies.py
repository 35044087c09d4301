"""A run in numbers, counted shard by shard: what became of its utterances, and how lengths, rates and units fall."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spire_ray.tables import reason_of
from spire_ray.units import MAX_INT16

FUNNEL = ("planned", "read", "units", "text", "without flags")
# What is read and still gives no units: the sound was decoded, and there is nothing in it to encode.
_READ_ALL_THE_SAME = frozenset({"silent", "too_short", "not_finite"})

Row = dict[str, Any]  # of joined.JOINED


class Histogram:
    """Counts of values between two ends in equal bins; what lies beyond is in the first or last."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        self.low, self.high = low, high
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        at = int((value - self.low) / (self.high - self.low) * len(self.counts))
        self.counts[min(max(at, 0), len(self.counts) - 1)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Of the values, 0 of none."""
        return self.total / self.count if self.count else 0.0


@dataclass
class Tally:
    """Add the shards of a run; then read."""

    clusters: int  # K, 0 where there are no units
    utterances: Counter[str] = field(default_factory=Counter)  # by FUNNEL
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)  # table or language, reason
    flags: Counter[tuple[str, str]] = field(default_factory=Counter)  # transcript or language, flag
    texts: Counter[str] = field(default_factory=Counter)  # texts without an error: transcript or language
    durations: Histogram = field(default_factory=lambda: Histogram(0, 30, 30))  # s
    characters: Histogram = field(default_factory=lambda: Histogram(0, 40, 40))  # of a transcript, a second
    unit_rates: Histogram = field(default_factory=lambda: Histogram(0, 50, 50))  # collapsed units a second
    confidence: Histogram = field(default_factory=lambda: Histogram(-3, 0, 30))  # avg_logprob of transcripts
    usage: NDArray[np.int64] = field(init=False)  # frames of each unit [K]
    runs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MAX_INT16 + 1, np.int64))  # of each length

    def __post_init__(self) -> None:
        self.usage = np.zeros(self.clusters, np.int64)

    def add(self, rows: list[Row]) -> None:
        """Count one shard, rows of joined.JOINED."""
        for row in rows:
            seconds = row["duration_s"] or 0.0
            for step in _steps(row):
                self.utterances[step] += 1
                self.seconds[step] += seconds
            if row["error"]:
                self.errors["audio", reason_of(row["error"])] += 1
            elif row["units"] is not None:
                self._add_units(row, seconds)
            for name, text in texts_of(row):
                self._add_text(name, text, seconds)

    def _add_units(self, row: Row, seconds: float) -> None:
        lengths = np.asarray(row["run_lengths"], np.int64)
        np.add.at(self.usage, np.asarray(row["units"], np.int64), lengths)
        self.runs += np.bincount(lengths, minlength=len(self.runs))
        if seconds:
            self.durations.add(seconds)
            self.unit_rates.add(len(lengths) / seconds)

    def _add_text(self, name: str, text: Row, seconds: float) -> None:
        if text["error"]:
            self.errors[name, reason_of(text["error"])] += 1
            return
        self.texts[name] += 1
        self.flags.update((name, flag) for flag in text["flags"] or ())
        if name == "transcript":
            if seconds:
                self.characters.add(len(text["text"]) / seconds)
            if text["avg_logprob"] is not None and math.isfinite(text["avg_logprob"]):
                self.confidence.add(text["avg_logprob"])


def texts_of(row: Row) -> list[tuple[str, Row]]:
    """What was generated for an utterance: `transcript` or the language, and the columns of its text row."""
    made = [(str(one["target_language"]), one) for one in row["translations"]]
    return [("transcript", row["transcript"]), *made] if row["transcript"] else made


def _steps(row: Row) -> list[str]:
    """How far an utterance came. One of a text corpus has nothing to read."""
    steps = ["planned"]
    failed = reason_of(row["error"]) if row["error"] else None
    if row["units"] is not None or failed in _READ_ALL_THE_SAME:
        steps.append("read")
    if row["units"] is not None and failed is None:
        steps.append("units")
    texts = [text for _, text in texts_of(row)]
    if texts and not any(text["error"] for text in texts):
        steps.append("text")
        if not any(text["flags"] for text in texts):
            steps.append("without flags")
    return steps
