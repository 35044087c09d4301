"""OUT/README.md: a dataset card, so that `datasets.load_dataset(OUT, "units")` works and a finder knows what it is."""

from typing import Any

from spire_ray import __version__

_DESCRIPTIONS = {
    "plan": "every utterance of the corpus, where its audio is, and its shard",
    "units": "discrete units of each utterance (HuBERT, k-means), runs collapsed, with run lengths in 20 ms frames",
    "transcripts": "what was said, in the language spoken",
    "translations": "one row per utterance and target language",
}


def card(summary: dict[str, Any]) -> str:
    """The card of a run whose `records.summarise` is `summary`: YAML head with one config per table, then prose."""
    tables = ["plan"] * summary["plan"]["here"] + [table for table, counts in summary["tables"].items() if counts]
    lines = ["---", "configs:"]
    for table in tables:
        lines += [f"- config_name: {table}", "  data_files:", "  - split: train", f"    path: {table}/*.parquet"]
    lines += ["---", "", "# Speech units, transcripts and translations", ""]
    lines += [f"{summary['plan']['utterances']:,} utterances planned in {summary['plan']['shards']:,} shards.", ""]
    lines += ["| table | rows | errors | what it holds |", "|---|---|---|---|"]
    for table in tables:
        counts = summary["tables"].get(table) or {"rows": summary["plan"]["utterances"], "errors": {}}
        errors = ", ".join(f"{n:,} {reason}" for reason, n in counts["errors"].items()) or "0"
        lines.append(f"| `{table}` | {counts['rows']:,} | {errors} | {_DESCRIPTIONS[table]} |")
    lines += ["", "Every table has a row for everything planned; `error` is null or says why the values beside it are."]
    lines += ["For any item at most one row has a null error: read with `WHERE error IS NULL`.", ""]
    for stage in ("units", "text"):
        if frozen := summary[stage]["settings"]:
            lines += [f"## How the {stage} were made" if stage == "units" else "## How the text was made", ""]
            lines += [f"- {name}: `{value}`" for name, value in sorted(frozen["settings"].items())]
            lines.append("")
    lines += [f"Written by spire_ray {__version__}. The published SPIRE weights are CC-BY-NC-4.0.", ""]
    return "\n".join(lines)
