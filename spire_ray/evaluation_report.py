"""An evaluation as a table on the terminal, as JSON and as Markdown."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spire_ray.errors import one_line
from spire_ray.evaluate import ALL, Evaluation, Part, Score, Task
from spire_ray.export_target import new_file
from spire_ray.intervals import RESAMPLES, SEED

SHOWN_CHARS = 200
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|#~$&"})


def show(evaluation: Evaluation, console: Console) -> None:
    """Print it."""
    for tasks in _tables(evaluation):
        table = Table(title=_title(evaluation, tasks), title_justify="left", box=None, pad_edge=False)
        for name in _columns(tasks):
            table.add_column(name, justify="left" if name in ("", "into") else "right", no_wrap=True)
        for cells in _rows(tasks):
            table.add_row(*map(escape, cells))
        console.print(table)
        for line in _said(tasks):
            console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
        console.print()
    for task in evaluation.tasks:
        if task.worst:
            console.print(f"the worst of the {_what(task)}", highlight=False)
        for each in task.worst:
            scores = ", ".join(f"{name} {_number(value)}" for name, value in each.scores.items())
            console.print(f"  [bold]{escape(one_line(each.utterance_id))}[/bold]  {scores}", highlight=False)
            for name, text in (("reference", each.reference), ("made", each.hypothesis)):
                console.print(f"    {name}: {escape(_cut(text))}", soft_wrap=True, highlight=False)
    for line in _closing(evaluation):
        console.print(escape(line), soft_wrap=True, highlight=False)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything of it, for a file."""
    return {
        "out": evaluation.out,
        "settings": evaluation.settings,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "confidence": 0.95},
        "tasks": [_task_json(task) for task in evaluation.tasks],
        "remarks": evaluation.remarks,
    }


def as_markdown(evaluation: Evaluation) -> str:
    """The same tables, and the worst utterances, for a page."""
    lines = ["# Evaluation", "", _md(f"{evaluation.out}: {_made_by(evaluation)}"), ""]
    for tasks in _tables(evaluation):
        lines += [f"## {_md(_title(evaluation, tasks))}", "", *_grid(_columns(tasks), _rows(tasks)), ""]
        lines += [*(f"- {_md(line)}" for line in _said(tasks)), ""]
    for task in evaluation.tasks:
        if task.worst:
            names = ["id", *(metric.name for metric in task.metrics), "reference", "made"]
            cells = (
                [each.utterance_id, *map(_number, each.scores.values()), each.reference, each.hypothesis]
                for each in task.worst
            )
            lines += [f"## The worst of the {_what(task)}", "", *_grid(names, cells), ""]
    lines += [f"- {_md(line)}" for line in _closing(evaluation)]
    return "\n".join(lines) + "\n"


def _grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return head + [f"| {' | '.join(map(_md, cells))} |" for cells in rows]


def write(evaluation: Evaluation, json_file: Path | None, markdown_file: Path | None) -> None:
    """Both files, where they are asked for; each new, whole or not there. UserError for one that exists."""
    if json_file:
        with new_file(str(json_file), {}) as file:
            file.write_text(json.dumps(as_json(evaluation), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if markdown_file:
        with new_file(str(markdown_file), {}) as file:
            file.write_text(as_markdown(evaluation), encoding="utf-8")


def _tables(evaluation: Evaluation) -> list[list[Task]]:
    """The tasks that stand in one table: the transcripts, and the translations with the same metrics."""
    tables: dict[tuple[str, ...], list[Task]] = {}
    for task in evaluation.tasks:
        tables.setdefault((task.name, *(metric.name for metric in task.metrics)), []).append(task)
    return list(tables.values())


def _what(task: Task) -> str:
    return task.name if task.name == "transcripts" else f"translations into {task.language}"


def _title(evaluation: Evaluation, tasks: Sequence[Task]) -> str:
    name = tasks[0].name
    return name if name == "transcripts" else f"{name} ({evaluation.settings['method']})"


def _made_by(evaluation: Evaluation) -> str:
    settings = evaluation.settings
    return f"{settings['checkpoint']}, {'greedy' if settings['beam'] == 1 else 'beam ' + str(settings['beam'])}"


def _columns(tasks: Sequence[Task]) -> list[str]:
    into = [] if tasks[0].name == "transcripts" else ["into"]
    return [*into, "", "utterances", "hours", "missing", *(metric.name for metric in tasks[0].metrics)]


def _rows(tasks: Sequence[Task]) -> Iterator[list[str]]:
    for task in tasks:
        for name, part in _parts(task):
            yield [
                *([] if task.name == "transcripts" else [task.language]),
                name,
                f"{part.utterances:,}",
                f"{part.seconds / 3600:.3f}" if part.seconds else "",
                f"{part.missing.total():,}",
                *(_score(score) for score in task.scored(part).values()),
            ]


def _parts(task: Task) -> list[tuple[str, Part]]:
    """All of it, then by corpus and by length where there is more than one."""
    found = [("all", task.parts[ALL])]
    for kind in ("corpus", "duration"):
        own = [(value, part) for (of, value), part in task.parts.items() if of == kind]
        if len(own) > 1:
            own.sort(key=lambda each: float(each[0].split("-")[0].split()[0]) if kind == "duration" else each[0])
            found += [(one_line(value), part) for value, part in own]
    return found


def _said(tasks: Sequence[Task]) -> list[str]:
    signatures: dict[str, list[str]] = {}
    for task in tasks:
        for metric in task.metrics:
            signatures.setdefault(f"{metric.name}: {metric.signature()}", []).append(task.language)
    several = len(tasks) > 1
    lines = [
        f"{told} ({' '.join(languages)})" if several and len(languages) < len(tasks) else told
        for told, languages in signatures.items()
    ]
    for task in tasks:
        whole = task.parts[ALL]
        if whole.missing:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(whole.missing.items()))
            lines.append(f"{_what(task)}: {whole.missing.total():,} are missing and count as empty: {reasons}")
        if whole.statistics.block > 1:
            lines.append(f"{_what(task)}: intervals by blocks of {whole.statistics.block} utterances")
    return lines


def _closing(evaluation: Evaluation) -> list[str]:
    return [f"±: half of what 95 % of {RESAMPLES:,} bootstrap resamples span, seed {SEED}", *evaluation.remarks]


def _task_json(task: Task) -> dict[str, Any]:
    parts = [
        {
            "by": kind or "all",
            "part": value or None,
            "utterances": part.utterances,
            "hours": part.seconds / 3600,
            "missing": dict(sorted(part.missing.items())),
            "scores": {name: _score_json(score) for name, score in task.scored(part).items()},
        }
        for (kind, value), part in sorted(task.parts.items())
    ]
    return {
        "task": task.name,
        "language": task.language,
        "without_reference": task.unreferenced,
        "signatures": {metric.name: metric.signature() for metric in task.metrics},
        "parts": parts,
        "worst": [
            {"id": each.utterance_id, **each.scores, "reference": each.reference, "hypothesis": each.hypothesis}
            for each in task.worst
        ],
    }


def _score_json(score: Score) -> dict[str, float | None]:
    around = score.interval
    return {"score": score.value, "low": around.low if around else None, "high": around.high if around else None}


def _score(score: Score) -> str:
    around = score.interval
    return _number(score.value) + (f" ±{(around.high - around.low) / 2:.2f}" if around else "")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _cut(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[: SHOWN_CHARS - 1]}…"


def _md(text: str) -> str:
    return one_line(text).translate(_MARKDOWN)
