"""WER and BLEU of a whole run as `evaluate` gives them, from sums over its shards: memory holds the texts of one.

Where a run is not done, its shards without texts do not count, as nothing of them does in a report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU

from spire_ray.evaluate import ALL, Task
from spire_ray.normalise import normaliser
from spire_ray.scores import ErrorRate, Sacrebleu, tokenizer_of
from spire_ray.tallies import Row, texts_of


@dataclass(frozen=True)
class Scores:
    """Add the shards of a run; then read `figures`."""

    tasks: Mapping[str, tuple[Task, str]]  # by transcript or language: its one metric, and what a reader calls that
    languages: Sequence[str]

    @classmethod
    def of(cls, text: Mapping[str, Any] | None) -> "Scores":
        """`text`: the run's text.json; None where there are no texts to score."""
        settings: Mapping[str, Any] = text["settings"] if text else {}
        languages = tuple(settings.get("languages", ()))
        tasks = {}
        if settings.get("transcripts"):
            spoken = settings.get("source_language") or "en"
            rules = "English" if spoken == "en" else "basic"
            metric = ErrorRate("WER", normaliser("whisper", spoken))
            tasks["transcript"] = Task("transcripts", spoken, [metric], 0), f"WER, Whisper's {rules} normaliser"
        for language in languages:
            tokenizer, _ = tokenizer_of(language)
            bleu = Sacrebleu("BLEU", BLEU(tokenize=tokenizer, force=True))
            tasks[language] = Task("translations", language, [bleu], 0), f"BLEU, {tokenizer}"
        return cls(tasks, languages)

    def add(self, rows: Sequence[Row]) -> None:
        """Texts that have a reference; one that was not generated, though it was to be, counts as an empty one."""
        made = [{name for name, _ in texts_of(row)} for row in rows]
        for name, (task, _) in self.tasks.items():
            task.add([row for row, its in zip(rows, made, strict=True) if name in its], self.languages)

    def figures(self) -> list[tuple[str, str, str, int, int]]:
        """What, by which measure, its value in percent or points, of how many texts, how many of them missing."""
        told = []
        for name, (task, measure) in self.tasks.items():
            if (part := task.parts.get(ALL)) is None:
                continue
            (value,) = task.scores(part.statistics.totals.tolist()).values()
            if value is not None:
                shown = f"{value:.1f}{' %' if name == 'transcript' else ''}"
                told.append((name, measure, shown, part.utterances, part.missing.total()))
        return told
