"""An evaluation as a table on the terminal, as JSON and as Markdown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spire_ray.errors import one_line
from spire_ray.evaluate import ALL, Evaluation, Part, Score, Task
from spire_ray.intervals import RESAMPLES, SEED

SHOWN_CHARS = 200
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|#~$&"})


def show(evaluation: Evaluation, console: Console) -> None:
    """Print it."""
    for task in evaluation.tasks:
        table = Table(title=_title(evaluation, task), title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for name in _columns(task):
            table.add_column(name, justify="right", no_wrap=True)
        for cells in _rows(task):
            table.add_row(*map(escape, cells))
        console.print(table)
        for line in _said(task):
            console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
        console.print()
    for task in evaluation.tasks:
        if task.worst:
            console.print(f"worst {_what(task)}", highlight=False)
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
    for task in evaluation.tasks:
        names = _columns(task)
        lines += [f"## {_md(_title(evaluation, task))}", "", f"| | {' | '.join(names)} |"]
        lines.append("|---|" + "---:|" * len(names))
        lines += [f"| {' | '.join(map(_md, cells))} |" for cells in _rows(task)]
        lines += ["", *(f"- {_md(line)}" for line in _said(task)), ""]
    for task in evaluation.tasks:
        if task.worst:
            names = [metric.name for metric in task.metrics]
            lines += [f"## Worst {_what(task)}", "", f"| id | {' | '.join(names)} | reference | made |"]
            lines.append("|---|" + "---:|" * len(names) + "---|---|")
            for each in task.worst:
                cells = [each.utterance_id, *map(_number, each.scores.values()), each.reference, each.hypothesis]
                lines.append(f"| {' | '.join(map(_md, cells))} |")
            lines.append("")
    lines += [f"- {_md(line)}" for line in _closing(evaluation)]
    return "\n".join(lines) + "\n"


def write(evaluation: Evaluation, json_file: Path | None, markdown_file: Path | None) -> None:
    """Both files, where they are asked for; each new."""
    if json_file:
        with json_file.open("x", encoding="utf-8") as file:
            json.dump(as_json(evaluation), file, indent=2, ensure_ascii=False)
            file.write("\n")
    if markdown_file:
        with markdown_file.open("x", encoding="utf-8") as file:
            file.write(as_markdown(evaluation))


def _what(task: Task) -> str:
    return task.name if task.name == "transcripts" else f"translations into {task.language}"


def _title(evaluation: Evaluation, task: Task) -> str:
    how = "" if task.name == "transcripts" else f" ({evaluation.settings['method']})"
    return f"{_what(task)}{how}"


def _made_by(evaluation: Evaluation) -> str:
    settings = evaluation.settings
    return f"{settings['checkpoint']}, {'greedy' if settings['beam'] == 1 else 'beam ' + str(settings['beam'])}"


def _columns(task: Task) -> list[str]:
    return ["utterances", "hours", "missing", *(metric.name for metric in task.metrics)]


def _rows(task: Task) -> Iterator[list[str]]:
    for name, part in _parts(task):
        scores = [_score(score) for score in task.scored(part).values()]
        yield [
            name,
            f"{part.utterances:,}",
            f"{part.seconds / 3600:.3f}" if part.seconds else "",
            f"{part.missing.total():,}",
            *scores,
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


def _said(task: Task) -> list[str]:
    whole = task.parts[ALL]
    lines = [f"{metric.name}: {metric.signature()}" for metric in task.metrics]
    if whole.missing:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(whole.missing.items()))
        lines.append(f"{whole.missing.total():,} hypotheses are missing and count as empty: {reasons}")
    if whole.statistics.block > 1:
        lines.append(f"intervals by resampling blocks of {whole.statistics.block} utterances")
    return lines


def _closing(evaluation: Evaluation) -> list[str]:
    return [f"[] around a figure: 95 % of {RESAMPLES:,} bootstrap resamples, seed {SEED}", *evaluation.remarks]


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
    return _number(score.value) + (f" [{_number(around.low)}, {_number(around.high)}]" if around else "")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _cut(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[: SHOWN_CHARS - 1]}…"


def _md(text: str) -> str:
    return one_line(text).translate(_MARKDOWN)
