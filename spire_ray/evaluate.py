"""`spire-ray evaluate OUT`: transcripts and translations against the references that the corpus brought.

Shard by shard: of an utterance what its metrics count is kept, not its text.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spire_ray.comet import Comet, CometProcess
from spire_ray.errors import UserError
from spire_ray.intervals import Interval, Statistics, interval
from spire_ray.joined import Joined
from spire_ray.normalise import Normalizer, normaliser
from spire_ray.records import load_json
from spire_ray.scores import ErrorRate, Metric, translation_metrics
from spire_ray.store import Store
from spire_ray.tables import reason_of

BUCKETS = (5, 10, 20, 30)  # seconds; the last has no end
ALL = ("", "")
NOT_MADE = "not made yet"


@dataclass(frozen=True)
class Score:
    """A figure and its 95 % interval."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Worst:
    """One of the utterances that came out worst."""

    utterance_id: str
    scores: dict[str, float | None]
    reference: str
    hypothesis: str


@dataclass
class Part:
    """Some of the utterances: all, those of a corpus, those of some length."""

    statistics: Statistics
    utterances: int = 0  # with a reference
    missing: Counter[str] = field(default_factory=Counter)  # of them, without a hypothesis: why
    seconds: float = 0.0
    scores: "dict[str, Score] | None" = None  # once they are asked for: 1,000 resamples of each metric


class Task:
    """One kind of answer: the transcripts, or the translations into a language."""

    def __init__(self, name: str, language: str, metrics: Sequence[Metric], keep: int) -> None:
        """`name`: "transcripts" or "translations". `metrics`: the first but one of translations ranks the worst."""
        self.name, self.language, self.metrics = name, language, list(metrics)
        self.parts: dict[tuple[str, str], Part] = {}
        self.unreferenced = 0
        self._keep = keep
        self._worst: list[tuple[float, float, str, Worst]] = []

    @property
    def worst(self) -> list[Worst]:
        """The worst first."""
        return [entry[-1] for entry in sorted(self._worst, key=lambda entry: entry[:3], reverse=True)]

    def add(self, rows: Sequence[dict[str, Any]], run_languages: Sequence[str]) -> None:
        """One shard's rows, as dicts of the columns of JOINED."""
        compared = []
        for row in rows:
            if wanted := self._references(row, run_languages):
                compared.append((row, wanted, *self._hypothesis(row)))
            else:
                self.unreferenced += 1
        if not compared:
            return
        hypotheses = [text for _, _, text, _ in compared]
        references = [wanted for _, wanted, _, _ in compared]
        sources = [_source(row) for row, *_ in compared]
        counts = np.hstack([metric.counts(hypotheses, references, sources) for metric in self.metrics])
        members: dict[tuple[str, str], list[int]] = {}
        for at, (row, *_) in enumerate(compared):
            for part in _parts_of(row):
                members.setdefault(part, []).append(at)
        for key, chosen in members.items():
            part_ = self.parts.setdefault(key, Part(Statistics(counts.shape[1])))
            part_.statistics.add(counts[chosen])
            part_.utterances += len(chosen)
            part_.seconds += sum(compared[at][0]["duration_s"] or 0.0 for at in chosen)
            part_.missing.update(reason for at in chosen if (reason := compared[at][3]))
        for (row, wanted, text, missing), counted in zip(compared, counts, strict=True):
            if not missing:
                self._rank(row["utterance_id"], wanted[0], text, counted.tolist())

    def scores(self, totals: Sequence[float]) -> dict[str, float | None]:
        """The figure of each metric, of totals of all their counts."""
        found, start = {}, 0
        for metric in self.metrics:
            found[metric.name] = metric.score(totals[start : start + metric.width])
            start += metric.width
        return found

    def scored(self, part: Part) -> dict[str, Score]:
        """The figures of some of the utterances, with their intervals. After the last `add`."""
        if part.scores is None:
            resampled = part.statistics.resampled() if part.utterances > 1 else None
            part.scores, start = {}, 0
            for metric in self.metrics:
                own = slice(start, start + metric.width)
                around = None if resampled is None else interval(metric.score, resampled[:, own])
                part.scores[metric.name] = Score(metric.score(part.statistics.totals[own].tolist()), around)
                start += metric.width
        return part.scores

    def _references(self, row: dict[str, Any], run_languages: Sequence[str]) -> list[str]:
        if self.name == "transcripts":
            found = [row["reference"]]
        else:
            # A text corpus with a plain column of references does not say in which language they are.
            only = run_languages[0] if len(run_languages) == 1 else None
            found = [each["text"] for each in row["references"] or [] if (each["language"] or only) == self.language]
        return [text for text in found if text and text.strip()]

    def _hypothesis(self, row: dict[str, Any]) -> tuple[str, str | None]:
        """Its text, empty where there is none, and then why."""
        if self.name == "transcripts":
            made = row["transcript"]
        else:
            made = next((each for each in row["translations"] if each["target_language"] == self.language), None)
        if made is None:
            return "", reason_of(row["error"]) if row["error"] else NOT_MADE
        if made["text"] is None:
            # That there are no units is a matter of the units, which say why.
            return "", reason_of(row["error"] or made["error"] or NOT_MADE)
        return made["text"], None

    def _rank(self, utterance_id: str, reference: str, text: str, counts: list[float]) -> None:
        if not self._keep:
            return
        scores = self.scores(counts)
        # Whole sentences by chrF: BLEU is of four words in a row, which many sentences have none of.
        if self.name != "transcripts":
            bad = -(scores["chrF"] or 0.0)
        elif (rate := scores["WER"]) is not None:
            bad = rate
        else:  # a reference without a word, such as [noise]: bad is whatever was heard there
            bad = float("inf") if counts[0] else 0.0
        entry = (
            bad,
            float(len(reference)),
            utterance_id,
            Worst(utterance_id, scores, reference, text),
        )
        if len(self._worst) < self._keep:
            heapq.heappush(self._worst, entry)
        else:
            heapq.heappushpop(self._worst, entry)


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a run, and what could not be."""

    out: str
    settings: dict[str, Any]  # of text.json
    tasks: list[Task]  # those with references
    remarks: list[str]


def evaluate(store: Store, normalizer: Normalizer = "whisper", comet: str | None = None, worst: int = 10) -> Evaluation:
    """Compare what OUT holds with its references. `comet`: a python that has unbabel-comet. `worst`: how many to keep.

    A missing hypothesis counts as an empty one. UserError where there is no text, or not one reference.
    """
    text = load_json(store, "text.json")
    if text is None:
        raise UserError(f"{store.url} has no transcripts and no translations: run speech-to-text or generate first")
    joined, settings = Joined(store), text["settings"]
    assert joined.plan  # or a UserError, before a model is loaded
    if comet and not settings["languages"]:
        raise UserError(f"--comet measures translations, and {store.url} has none: leave it out")
    with ExitStack() as stack:
        process = stack.enter_context(CometProcess(comet)) if comet else None
        tasks, remarks = _tasks(settings, normalizer, process, worst)
        for shard in range(joined.plan.shards):
            rows = joined.shard(shard)
            for task in tasks:
                task.add(rows, settings["languages"])
    referenced = [task for task in tasks if task.parts]
    if not referenced:
        raise UserError(
            f"no utterance of {store.url} has a reference: plan CORPUS again, into another OUT, with a manifest that "
            "has `text` (what is said) or `references` (translations, with their language)"
        )
    return Evaluation(store.url, settings, referenced, remarks + _unreferenced(tasks))


def _tasks(
    settings: dict[str, Any], normalizer: Normalizer, process: CometProcess | None, worst: int
) -> tuple[list[Task], list[str]]:
    tasks: list[Task] = []
    remarks: dict[str, None] = {}
    if settings["transcripts"]:
        language = settings["source_language"]
        alike = normaliser(normalizer, language)
        tasks.append(Task("transcripts", language, [ErrorRate(name, alike) for name in ("WER", "CER")], worst))
    for language in settings["languages"]:
        metrics, said = translation_metrics(language)
        remarks |= dict.fromkeys(said)
        tasks.append(Task("translations", language, [*metrics, Comet(process)] if process else metrics, worst))
    if settings["languages"] and not process:
        remarks["COMET-22 was not measured: it needs --comet PYTHON, of an environment with unbabel-comet"] = None
    return tasks, list(remarks)


def _unreferenced(tasks: Sequence[Task]) -> list[str]:
    said = []
    for task in tasks:
        what = "transcripts" if task.name == "transcripts" else f"translations into {task.language}"
        if not task.parts:
            said.append(f"{what} were not measured: no utterance has a reference")
        elif task.unreferenced:
            said.append(f"{what}: {task.unreferenced:,} utterances have no reference and are not counted")
    return said


def _source(row: dict[str, Any]) -> str:
    """What was translated: the text, or what was said; where nobody knows that, what was heard."""
    heard = row["transcript"] or {}
    return row["text"] or row["reference"] or heard.get("text") or ""


def _parts_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    parts = [ALL]
    if row["corpus"] is not None:
        parts.append(("corpus", row["corpus"]))
    if (seconds := row["duration_s"]) is not None:
        edges = [0, *BUCKETS]
        at = sum(seconds >= edge for edge in edges) - 1
        name = f"{edges[at]}-{edges[at + 1]} s" if at < len(BUCKETS) else f"{edges[at]} s and more"
        parts.append(("duration", name))
    return parts
