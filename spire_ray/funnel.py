"""The funnel: utterances and hours of each language that came in, were lost to each reason in order, and stayed."""

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from spire_ray import outputs
from spire_ray.dataset_tables import DECIDED, MEASURED
from spire_ray.filters import REASONS
from spire_ray.store import Store

NO_LANGUAGE = "none"  # of utterances without any translation
KEPT = "kept"


@dataclass
class Funnel:
    """Counts of pairs by language and reason (`kept` for none); durations in microseconds, so that sums are exact."""

    pairs: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    microseconds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @classmethod
    def of(cls, store: Store, shards: int) -> "Funnel":
        """Counted from the parts of `work`."""
        funnel = cls()
        for shard in range(shards):
            measured = outputs.read_part(store, outputs.part_key(MEASURED, shard), ["language", "duration_s"])
            decided = outputs.read_part(store, outputs.part_key(DECIDED, shard), ["reason"])
            funnel.add(measured.append_column("reason", decided.column("reason")))
        return funnel

    def add(self, pairs: pa.Table) -> None:
        """Count pairs: language, duration_s, reason."""
        seconds = pc.fill_null(pairs.column("duration_s"), 0.0)
        whole = pc.round(pc.multiply(seconds, 1e6)).cast(pa.int64())
        table = pairs.select(["language", "reason"]).append_column("microseconds", whole)
        counted = table.group_by(["language", "reason"]).aggregate([("microseconds", "sum"), ([], "count_all")])
        for row in counted.to_pylist():
            language, reason = row["language"] or NO_LANGUAGE, row["reason"] or KEPT
            self.pairs[language][reason] += row["count_all"]
            self.microseconds[language][reason] += row["microseconds_sum"]

    @property
    def languages(self) -> list[str]:
        """Sorted, those of no language last."""
        return sorted(self.pairs, key=lambda language: (language == NO_LANGUAGE, language))

    @property
    def steps(self) -> list[str]:
        """The reasons that took something, in the order in which they are looked for."""
        return [reason for reason in REASONS if any(counts[reason] for counts in self.pairs.values())]

    def hours(self, language: str, reason: str) -> float:
        """Of the pairs of a language lost to `reason`."""
        return self.microseconds[language][reason] / 3.6e9

    def as_json(self) -> list[dict[str, Any]]:
        """A row for each language: what came in, each loss in order, what was kept."""
        return [
            {
                "language": language,
                "in": _told(sum(self.pairs[language].values()), sum(self.microseconds[language].values()) / 3.6e9),
                "lost": {
                    reason: _told(self.pairs[language][reason], self.hours(language, reason))
                    for reason in self.steps
                    if self.pairs[language][reason]
                },
                "kept": _told(self.pairs[language][KEPT], self.hours(language, KEPT)),
            }
            for language in self.languages
        ]


def _told(pairs: int, hours: float) -> dict[str, Any]:
    return {"utterances": pairs, "hours": round(hours, 6)}


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """A table: a line for each reason, two columns for each language. `rows`: of `Funnel.as_json`."""
    table = Table(title="Utterances and hours", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(row["language"], justify="right")
        table.add_column("h", justify="right")
    for name, found in _lines(rows):
        cells = [cell for each in found for cell in (_cells(each) if each else ("", ""))]
        table.add_row(name, *cells)
    console.print(table)


def _lines(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    steps = [reason for reason in REASONS if any(reason in row["lost"] for row in rows)]
    lost: list[tuple[str, list[dict[str, Any] | None]]] = [
        (f"- {reason}", [row["lost"].get(reason) for row in rows]) for reason in steps
    ]
    return [("in", [row["in"] for row in rows]), *lost, ("kept", [row["kept"] for row in rows])]


def _cells(told: dict[str, Any]) -> tuple[str, str]:
    return f"{told['utterances']:,}", f"{told['hours']:,.2f}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The same table for the card."""
    head = "| | " + " | ".join(f"{row['language']} | h" for row in rows) + " |"
    lines = [head, "|---|" + "---:|---:|" * len(rows)]
    for name, found in _lines(rows):
        cells = [cell for each in found for cell in (_cells(each) if each else ("", ""))]
        lines.append(f"| {name.removeprefix('- ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """PNG: hours of each language that are left after each step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [reason for reason in REASONS if any(reason in row["lost"] for row in rows)]
    figure = Figure(figsize=(9, 1.8 + 0.45 * (len(steps) + 1)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    left = [0.0] * (len(steps) + 1)
    for row in rows:
        hours = [row["in"]["hours"]]
        for step in steps:
            hours.append(max(0.0, hours[-1] - row["lost"].get(step, {"hours": 0.0})["hours"]))
        axes.barh(range(len(hours)), hours, left=left, label=row["language"])
        left = [before + more for before, more in zip(left, hours, strict=True)]
    axes.set_yticks(range(len(left)), ["in", *(f"after {step}" for step in steps)])
    axes.invert_yaxis()
    axes.set(title="What is left of the hours", xlabel="hours of utterances, once for each language")
    axes.legend(fontsize="small", ncols=2)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
