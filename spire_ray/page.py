"""A report as one HTML page: nothing in it runs, nothing is fetched, and all text of the run is escaped.

The policy in its head allows the page's own style, by its hash, and the sound inside it. A transcript that holds markup
is text like any other; were it not, there is no script that the browser may run.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spire_ray import __version__, charts
from spire_ray.html import Markup, card, facts, joined, meter, section, table, tag
from spire_ray.tallies import FUNNEL, Row, Tally, texts_of

TOP_UNITS = 10
SHOWN_CHARS = 2_000  # of a text: a line of a text corpus may have megabytes
_STEPS = {
    "planned": "planned",
    "read": "audio read",
    "units": "with units",
    "text": "with all its text",
    "without flags": "no text flagged",
}


@dataclass(frozen=True)
class Sample:
    """An utterance that is shown."""

    row: Row
    samples: NDArray[np.int16] | None  # 16 kHz, the beginning of it; None where there is none
    audio: bytes | None  # the same as FLAC, to play
    why: str = ""  # there is none


@dataclass(frozen=True)
class Report:
    """All that the page tells."""

    place: str  # of OUT
    shards: tuple[int, int]  # that have a part, that are planned
    tally: Tally
    units: Mapping[str, Any] | None  # of codebook_report.unit_numbers
    scores: Sequence[tuple[str, str, str, int, int]]  # of report_scores.Scores.figures
    samples: Sequence[Sample]
    with_audio: bool
    speed: Sequence[Mapping[str, Any]]  # of each stage
    provenance: Mapping[str, Mapping[str, Any]]  # titles, names and values


def page(report: Report) -> str:
    """The whole page."""
    style = resources.files("spire_ray").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; media-src data:; base-uri 'none'; form-action 'none'"
    sections = [_funnel, _faults, _units, _histograms, _scores, _samples, _speed, _provenance]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{_name(report)}: report"),
        tag("style", Markup(style)),
    )
    foot = tag("footer", tag("p", f"Made by spire_ray {__version__}.", class_="note"))
    body = tag("body", _header(report), tag("main", *(part(report) for part in sections)), foot)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _name(report: Report) -> str:
    return report.place.rstrip("/").rpartition("/")[2]


def _header(report: Report) -> Markup:
    tally = report.tally
    tiles = [
        (_hours(tally.seconds["planned"]), "hours of audio"),
        (f"{tally.utterances['planned']:,}", "utterances"),
        (f"{sum(tally.errors.values()):,}", "error rows"),
    ]
    if report.units:
        tiles.append((f"{report.units['perplexity']:,.1f}", f"unit perplexity, of {tally.clusters:,}"))
    tiles += [(value, f"{name}: {measure.partition(',')[0]}") for name, measure, value, _, _ in report.scores[:3]]
    done, planned = report.shards
    unfinished = "" if done == planned else f" {done:,} of {planned:,} shards are done: figures are of those."
    holds = "transcripts, translations, ids and paths of the corpus and, of the samples, the sound itself"
    if not report.with_audio:
        holds = "transcripts, translations, ids and paths of the corpus, and no sound"
    return tag(
        "header",
        tag("h1", _name(report)),
        tag("p", tag("code", report.place), unfinished, class_="soft"),
        tag("p", f"This page holds {holds}. Treat it as you treat the corpus.", class_="note"),
        tag("div", *(tag("div", tag("b", value), tag("span", name), class_="tile") for value, name in tiles),
            class_="tiles"),
    )  # fmt: skip


def _funnel(report: Report) -> Markup:
    tally = report.tally
    whole = max(1, tally.utterances["planned"])
    steps = [step for step in FUNNEL if tally.clusters or step not in ("read", "units")]
    rows = []
    for step in steps:
        count = tally.utterances[step]
        rows.append(
            [
                _STEPS[step],
                f"{count:,}",
                f"{100 * count / whole:.1f} %",
                _hours(tally.seconds[step]),
                meter(count / whole),
            ]
        )
    return section("From plan to clean text", table(["", "utterances", "share", "hours", ""], rows, numbers=(1, 2, 3)))


def _faults(report: Report) -> Markup:
    tally = report.tally
    errors = [[what, reason, f"{count:,}"] for (what, reason), count in tally.errors.most_common()]
    flags = [
        [what, flag, f"{count:,}", f"{100 * count / max(1, tally.texts[what]):.1f} %"]
        for (what, flag), count in tally.flags.most_common()
    ]
    return tag(
        "section",
        tag(
            "div",
            card(
                "Errors by reason", table(["in", "reason", "rows"], errors, numbers=(2,), none="No row has an error.")
            ),
            card(
                "Flags on text",
                table(["text", "flag", "rows", "share"], flags, numbers=(2, 3), none="No text is flagged."),
            ),
            class_="grid",
        ),
    )


def _units(report: Report) -> Markup | None:
    told = report.units
    if not told:
        return None
    usage = report.tally.usage
    told_of = {
        "frames of 20 ms": f"{told['frames']:,}",
        "units after collapsing": f"{told['collapsed']:,}",
        "perplexity": f"{told['perplexity']:,.1f} of {len(usage):,} ({told['entropy_bits']:.2f} bits)",
        "dead units": f"{told['dead']:,} ({100 * told['dead'] / len(usage):.1f} %)",
        "most used 1 %": f"{told['top_units']:,} of the units, {100 * told['top_units_share']:.1f} % of the frames",
        "runs": f"{told['mean_run']:.2f} frames in the mean, {told['longest_run']:,} at most",
    }
    most = [
        [f"{unit}", f"{usage[unit]:,}", f"{100 * usage[unit] / told['frames']:.2f} %"]
        for unit in np.argsort(-usage, kind="stable")[:TOP_UNITS]
        if usage[unit]
    ]
    return section(
        "Units",
        tag(
            "div",
            card("Usage", charts.usage_by_rank(usage), facts(told_of)),
            card("Most used", table(["unit", "frames", "share"], most, numbers=(1, 2))),
            class_="grid",
        ),
    )


def _histograms(report: Report) -> Markup | None:
    tally = report.tally
    shown = [
        ("Duration", tally.durations, "s"),
        ("Speaking rate, characters", tally.characters, "characters/s"),
        ("Speaking rate, units", tally.unit_rates, "units/s"),
        ("Confidence of transcripts", tally.confidence, "mean log probability of a token"),
    ]
    cards = [
        card(
            name,
            charts.histogram(one, name, unit),
            tag(
                "p",
                f"{one.count:,} utterances, mean {one.mean:.2f}, {int(one.counts.max()):,} in the highest bar",
                class_="note",
            ),
        )
        for name, one, unit in shown
        if one.count
    ]
    return section("Lengths, rates, confidence", tag("div", *cards, class_="grid")) if cards else None


def _scores(report: Report) -> Markup | None:
    rows = [
        [name, measure, value, f"{texts:,}", f"{missing:,}"] for name, measure, value, texts, missing in report.scores
    ]
    if not rows:
        return None
    names = ["text", "measure", "value", "with a reference", "of them not generated"]
    note = tag("p", "A text that was not generated counts as an empty one.", class_="note")
    return section("Against the references", table(names, rows, numbers=(2, 3, 4)), note)


def _samples(report: Report) -> Markup | None:
    if not report.samples:
        return None
    note = (
        "Drawn by a hash of their ids; up to a quarter are errors and a quarter flagged. "
        "The band under each waveform has a cell for each unit: point at it for its number."
    )
    return section("Samples", tag("p", note, class_="note"), *(_sample(sample) for sample in report.samples))


def _sample(sample: Sample) -> Markup:
    row = sample.row
    seconds = f" {row['duration_s']:.2f} s" if row["duration_s"] else ""
    told: list[tuple[str, str | None, Sequence[str]]] = [
        ("source", row["text"], ()),
        ("reference", row["reference"], ()),
    ]
    for name, text in texts_of(row):
        told.append((name, text["error"] or text["text"], text["flags"] or ()))
        told += [(f"reference {name}", one["text"], ()) for one in row["references"] or () if one["language"] == name]
    said = [
        joined(
            tag("dt", name), tag("dd", _cut(text), *(tag("span", flag, class_="flag") for flag in flags), dir="auto")
        )
        for name, text, flags in told
        if text is not None
    ]
    picture = player = None
    if sample.samples is not None:
        picture = charts.sounding(sample.samples, 16_000, row["units"] or (), row["run_lengths"] or ())
    if sample.audio is not None:
        source = "data:audio/flac;base64," + base64.b64encode(sample.audio).decode()
        player = tag(
            "audio", controls=True, preload="metadata", src=source, aria_label=f"sound of {row['utterance_id']}"
        )
    why = tag("p", sample.why, class_="fault") if sample.why else None
    title = tag("h3", row["utterance_id"], tag("span", seconds, class_="soft"))
    return tag("article", title, picture, player, why, tag("dl", *said, class_="said"), class_="card sample")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


def _speed(report: Report) -> Markup | None:
    if not report.speed:
        return None
    rows = [
        [
            one["stage"],
            one["hardware"],
            f"{one['drivers']:,}",
            f"{one['hours']:.3f}",
            f"{one['seconds']:,.1f}",
            one["rtfx"],
        ]
        for one in report.speed
    ]
    names = ["stage", "hardware", "drivers", "hours of audio", "seconds", "times real time"]
    return section("Speed", table(names, rows, numbers=(2, 3, 4, 5)))


def _provenance(report: Report) -> Markup:
    parts = [
        tag("details", tag("summary", title), tag("div", facts({name: _code(one) for name, one in values.items()})))
        for title, values in report.provenance.items()
    ]
    return section("Provenance", *parts)


def _code(value: Any) -> Markup:
    return tag("code", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}" if seconds >= 36_000 else f"{seconds / 3600:.4f}"
