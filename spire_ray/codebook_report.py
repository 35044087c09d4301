"""`spire-ray codebook-report`: what a codebook is and how a run's units use it, as a table, a picture and JSON."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spire_ray import outputs
from spire_ray.codebook import Codebook, load_codebook
from spire_ray.codebook_card import read_card
from spire_ray.errors import UserError
from spire_ray.plan import load_plan
from spire_ray.records import load_json, units_run
from spire_ray.store import Store
from spire_ray.units import MAX_INT16

READERS = 16  # parts read at once: small objects, so latency bound
TOP_SHARE = 0.01  # of the units: how much of the speech the most used ones take
LONGEST_SHOWN = 25  # frames: 0.5 s of one unit

Counts = NDArray[np.int64]


def report(path: Path, out: str | None, json_file: Path | None, png_file: Path | None, console: Console) -> None:
    """Print the table and write both files; without a run of units there is no picture. UserError, with nothing done.

    `json_file` and `png_file` are by default beside the codebook; neither is replaced.
    """
    codebook = load_codebook(path)
    json_file = json_file or path.with_suffix(".report.json")
    if png_file and out is None:
        raise UserError("--png shows how units are used: name the run directory UNITS_OUT too")
    png_file = png_file or path.with_suffix(".report.png")
    check_new(json_file, "--json")
    if out is not None:
        check_new(png_file, "--png")
        if json_file.resolve() == png_file.resolve():
            raise UserError(f"--json and --png both name {json_file}: name two files")
    numbers = _of_the_file(codebook)
    if out is not None:
        usage, runs = count_units(out, codebook)
        numbers["units"] = {**_shards(out), **unit_numbers(usage, runs)}
        _draw(usage, runs, png_file)
    with json_file.open("x") as written:
        json.dump(numbers, written, indent=2, ensure_ascii=False)
        written.write("\n")
    _print(numbers, console)
    console.print(f"written: {json_file}" + (f", {png_file}" if out else ""), soft_wrap=True, highlight=False)


def check_new(file: Path, option: str) -> None:
    """UserError unless `file`, which `option` names, can be written anew."""
    if file.exists():
        raise UserError(f"{file} exists: name another file by {option}")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise UserError(f"{file} cannot be written: {file.parent} is not a folder this user may write to")


def _of_the_file(codebook: Codebook) -> dict[str, Any]:
    """Its size and card."""
    card = read_card(codebook.path)
    clusters, dimension = codebook.centroids.shape
    return {
        "codebook": str(codebook.path),
        "sha256": codebook.sha256,
        "clusters": clusters,
        "dimension": dimension,
        "card": asdict(card) if card else None,
    }


def count_units(out: str, codebook: Codebook) -> tuple[Counts, Counts]:
    """Frames of each unit [K], and runs of each length [32768], in a run's units. UserError unless it made them so."""
    store = units_run(Store(out))
    made = load_json(store, "units.json")
    shards = outputs.committed(store, "units")
    if made is None or not shards:
        raise UserError(f"{out} has no units: name the output folder of tokenize or speech-to-text")
    if (other := made["settings"]["codebook"]) != codebook.sha256:
        raise UserError(
            f"the units in {out} are of another codebook, SHA-256 {other}; {codebook.path} has {codebook.sha256}"
        )
    usage = np.zeros(len(codebook.centroids), np.int64)
    runs = np.zeros(MAX_INT16 + 1, np.int64)

    def read(item: tuple[int, int]) -> pa.Table:
        # The keys of the items decide between attempts.
        return outputs.rows_that_count(store, "units", *item, ["utterance_id", "units", "run_lengths", "error"])

    with ThreadPoolExecutor(READERS) as pool:
        for rows in pool.map(read, sorted(shards.items())):
            units = pc.list_flatten(rows.column("units")).to_numpy()
            lengths = pc.list_flatten(rows.column("run_lengths")).to_numpy()
            usage += np.bincount(units, weights=lengths, minlength=len(usage)).astype(np.int64)
            runs += np.bincount(lengths, minlength=len(runs))
    if not usage.any():
        raise UserError(f"the units in {out} have no frames: all utterances that were encoded have errors")
    return usage, runs


def _shards(out: str) -> dict[str, Any]:
    """Of how many planned shards there are units; a run that goes on has more later."""
    store = units_run(Store(out))
    plan = load_plan(store)
    return {"shards": len(outputs.committed(store, "units")), "planned_shards": plan.shards if plan else None}


def unit_numbers(usage: Counts, runs: Counts) -> dict[str, Any]:
    """What is told of units, from frames per unit [K] and runs per length [L]. Entropy in bits, over frames."""
    frames, collapsed = int(usage.sum()), int(runs.sum())
    share = usage[usage > 0] / max(frames, 1)
    entropy = float(-(share * np.log2(share)).sum())
    falling = np.sort(usage)[::-1]
    top = max(1, round(TOP_SHARE * len(usage)))
    lengths = np.flatnonzero(runs)
    return {
        "frames": frames,
        "collapsed": collapsed,
        "dead": int((usage == 0).sum()),
        "dead_units": np.flatnonzero(usage == 0).tolist(),
        "entropy_bits": abs(entropy),
        "perplexity": 2.0**entropy if frames else 0.0,
        "most_used": int(usage.argmax()),
        "most_used_share": float(falling[0] / max(frames, 1)),
        "top_units": top,
        "top_units_share": float(falling[:top].sum() / max(frames, 1)),
        "mean_run": frames / collapsed if collapsed else 0.0,
        "longest_run": int(lengths[-1]) if len(lengths) else 0,
        "run_lengths": {int(length): int(runs[length]) for length in lengths},
        "usage": usage.tolist(),
    }


def _print(numbers: dict[str, Any], console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("codebook", escape(f"{numbers['codebook']}: {numbers['clusters']} x {numbers['dimension']}"))
    table.add_row("sha256 of the file", numbers["sha256"])
    for name, value in (numbers["card"] or {"card": "none"}).items():
        table.add_row(name, escape(value))
    if told := numbers.get("units"):
        clusters = numbers["clusters"]
        table.add_row("units", f"{told['frames']:,} frames, {told['collapsed']:,} collapsed")
        if told["shards"] != told["planned_shards"]:
            table.add_row("unfinished run", f"shards {told['shards']:,} of {told['planned_shards'] or 'unknown'}")
        table.add_row("dead", f"{told['dead']:,} of {clusters:,} ({told['dead'] / clusters:.1%})")
        table.add_row("perplexity", f"{told['perplexity']:,.1f} of {clusters:,} ({told['entropy_bits']:.2f} bits)")
        table.add_row("most used", f"unit {told['most_used']}: {told['most_used_share']:.2%} of the frames")
        table.add_row("top 1 %", f"{told['top_units']:,} units: {told['top_units_share']:.2%} of the frames")
        table.add_row("runs", f"{told['mean_run']:.2f} frames in the mean, {told['longest_run']:,} at most")
        shown = {length: count for length, count in told["run_lengths"].items() if length <= 8}
        table.add_row(
            "runs of 1 to 8", "  ".join(f"{each}: {count / told['collapsed']:.1%}" for each, count in shown.items())
        )
    console.print(table)


def _draw(usage: Counts, runs: Counts, file: Path) -> None:
    """PNG: frames per unit, most used first, and how long runs are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    used, lengths = figure.subplots(1, 2)
    share = np.sort(usage)[::-1] / max(int(usage.sum()), 1)
    used.plot(np.arange(1, len(share) + 1), np.where(share > 0, share, np.nan), drawstyle="steps-mid")
    used.axhline(1 / len(share), linestyle=":", color="grey", label="all alike")
    used.set(title=f"Usage of {len(share):,} units, {int((usage == 0).sum()):,} dead", yscale="log")
    used.set(xlabel="unit, most used first", ylabel="share of the frames")
    used.legend()
    shown = runs[1 : LONGEST_SHOWN + 1]
    lengths.bar(np.arange(1, len(shown) + 1), shown / max(int(runs.sum()), 1))
    lengths.set(title="Run lengths", xlabel="frames of 20 ms", ylabel="share of the runs")
    with file.open("xb") as written:
        figure.savefig(written, format="png", metadata={"Software": None})
