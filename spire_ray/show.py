"""What a run holds, as a person reads it: at the end of every command, and by `spire-ray show OUT`."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spire_ray import outputs
from spire_ray.errors import one_line
from spire_ray.plan import read_shard
from spire_ray.records import load_json, summarise, units_run
from spire_ray.store import Store

ROWS = 3
FAULTS = 5
MAX_CHARS = 70


def show_run(store: Store, console: Console) -> None:
    """`spire-ray show`: everything counted anew, and the first few utterances. UserError if OUT is no run."""
    _print_summary(summarise(store), console)
    _print_rows(store, console)


def print_run(store: Store, console: Console) -> None:
    """The end of a command: what run.json says. Counting 10^5 parts again would take minutes."""
    _print_summary(load_json(store, "run.json") or summarise(store), console)


def _print_summary(summary: dict[str, Any], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("table")
    for name in ("shards", "rows", "hours", "RTFx"):
        table.add_column(name, justify="right")
    table.add_column("as float32", justify="right")
    table.add_column("errors")
    plan = summary["plan"]
    table.add_row("plan", str(plan["shards"]), f"{plan['utterances']:,}", f"{plan['hours']:.3f}")
    for name in outputs.SCHEMAS:
        if counts := summary["tables"][name]:
            speed = summary["units" if name == "units" else "text"]["rtfx"]
            hours = f"{counts['audio_hours']:.3f}" if "audio_hours" in counts else ""
            errors = ", ".join(f"{count:,} {reason}" for reason, count in counts["errors"].items()) or "0"
            shards = f"{counts['shards']} of {plan['shards']}"
            parity = summary["units"]["parity"] if name == "units" else None
            same = f"{1 - parity['share']:.2%}" if parity else ""
            table.add_row(name, shards, f"{counts['rows']:,}", hours, f"{speed:,.1f}" if speed else "", same, errors)
    console.print(table)
    if parity := summary["units"]["parity"]:
        console.print(
            f"  units again in float32, one utterance at a time: {parity['other_units']:,} of "
            f"{parity['frames']:,} frames differ, features by {parity['feature_error']:.0e}",
            soft_wrap=True,
        )
    for fault in summary["faults"][:FAULTS]:
        console.print(f"  {escape(one_line(fault))}", soft_wrap=True)


def _print_rows(store: Store, console: Console) -> None:
    source = units_run(store)
    planned = read_shard(source, 0).slice(0, ROWS).to_pylist()
    made = {name: _rows(source if name == "units" else store, name) for name in outputs.SCHEMAS}
    for row in planned:
        key = row["utterance_id"]
        console.print(f"\n[bold]{escape(key)}[/bold]")
        _print_text(console, "text", row["text"])
        _print_text(console, "reference", row["reference"])
        for units in made["units"].get(key, []):
            if units["error"] is None:
                some = " ".join(map(str, units["units"][:12]))
                seconds = f"{units['duration_s']:.2f} s, {units['num_frames']} frames"
                console.print(f"  units: {some} … ({len(units['units'])} of {seconds})")
            _print_text(console, "error", units["error"])
        for text in made["transcripts"].get(key, []):
            _print_text(console, "transcript", text["text"])
        for text in made["translations"].get(key, []):
            _print_text(console, text["target_language"], text["text"] or text["error"])


def _rows(store: Store, table: str) -> dict[str, list[dict[str, Any]]]:
    attempts = outputs.committed(store, table)
    found: dict[str, list[dict[str, Any]]] = {}
    if 0 in attempts:
        for row in outputs.rows_that_count(store, table, 0, attempts[0]).to_pylist():
            found.setdefault(row["utterance_id"], []).append(row)
    return found


def _print_text(console: Console, name: str, text: object) -> None:
    if text is not None:
        shown = one_line(str(text))
        shown = shown if len(shown) <= MAX_CHARS else f"{shown[: MAX_CHARS - 1]}…"
        console.print(f"  {name}: {escape(shown)}", soft_wrap=True)
