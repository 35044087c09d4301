"""DATASET/README.md: a dataset card: `datasets.load_dataset(DATASET)` works, and a reader knows what is there."""

from typing import Any

from spire_ray import __version__
from spire_ray.funnel import markdown

_FORMATS = {
    "pretraining": "Lines of continued pre-training: `text`.",
    "instructions": "Conversations of instruction tuning: `conversations`, turns of `human` and `gpt`.",
}


def card(dataset: dict[str, Any]) -> str:
    """The card of a training set whose dataset.json is `dataset`."""
    settings, counts = dataset["settings"], dataset["counts"]
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in (name for name, counted in counts.items() if counted["examples"] or name == "train"):
        lines += [f"  - split: {split}", f"    path: {split}/*.parquet"]
    lines += ["- config_name: dropped", "  data_files:", "  - split: train", "    path: dropped/*.parquet"]
    # Lines of text are in no funnel, whose rows are pairs.
    if not any(row["lost"] for row in dataset["funnel"]) and not (dataset["text"] or {}).get("too_long"):
        lines = lines[:-4]
    lines += ["---", "", "# A training set of speech units", "", _FORMATS[settings["recipe"]["format"]], ""]
    lines += ["| split | task | examples | tokens |", "|---|---|---:|---:|"]
    for split, counted in counts.items():
        for task, told in counted["tasks"].items():
            lines.append(f"| {split} | {task} | {told['examples']:,} | {_tokens(told['tokens'])} |")
    lines += ["", "## What was kept", "", markdown(dataset["funnel"])]
    lines += ["A loss is counted under the first reason that applies, in this order. `dropped/` has every pair that is"]
    lines += ["lost with its reason; the values that were measured are columns there and beside the examples.", ""]
    if unmeasured := without_scores(settings):
        lines += [unmeasured, ""]
    lines += ["## How it was made", ""]
    lines += [
        f"- {name}: `{value}`" for name, value in sorted(settings["recipe"].items()) if value not in (None, [], {})
    ]
    lines += [f"- {name}: `{value}`" for name, value in sorted(settings.items()) if name != "recipe" and value]
    lines += ["", f"Written by spire_ray {__version__}. `work/` is what it was made from, and not needed any more.", ""]
    return "\n".join(lines)


def without_scores(settings: dict[str, Any]) -> str | None:
    """What is to be said of a preset's bound on `qe` where no scorer gives it: that it loses nothing."""
    bounds = [bound for bound in settings["recipe"]["bounds"] if bound.startswith("qe")]
    if not bounds or settings["scorer"]:
        return None
    return f"{' and '.join(bounds)} lost nothing: without --scorer no translation has a score."


def _tokens(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
