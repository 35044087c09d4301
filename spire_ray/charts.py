"""Charts as inline SVG: bars of a histogram, usage by rank, units over a waveform. Colours are the page's."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from spire_ray.html import Markup, joined, tag
from spire_ray.tallies import Histogram

WIDTH, HEIGHT = 460, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 8, 38  # px about what is drawn
_TICKS = 5
_COLUMNS = 600  # of a waveform's envelope
_WAVE, _STRIP = 90, 22  # px high: the waveform, and the units under it
FRAME_S = 0.02


def histogram(shown: Histogram, name: str, unit: str, number: Callable[[float], str] = "{:g}".format) -> Markup:
    """Bars with a scale below; each tells its range and count when pointed at."""
    counts = shown.counts
    step = (shown.high - shown.low) / len(counts)
    inner, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    wide = inner / len(counts)
    most = max(1, int(counts.max()))
    bars = []
    for index, count in enumerate(counts):
        tall = high * int(count) / most
        more = " and more" if index == len(counts) - 1 and shown.high > 0 else ""
        more = " and less" if index == 0 and shown.low < 0 else more
        label = f"{number(shown.low + index * step)} to {number(shown.low + (index + 1) * step)} {unit}{more}"
        if count:
            bars.append(
                tag(
                    "g",
                    tag("title", f"{label}: {count:,}"),
                    _rect(_LEFT + index * wide + 0.5, _TOP + high - tall, max(wide - 1, 0.5), tall, "bar"),
                )
            )
    ticks = [shown.low + (shown.high - shown.low) * at / _TICKS for at in range(_TICKS + 1)]
    labels = [(_LEFT + inner * at / _TICKS, number(tick)) for at, tick in enumerate(ticks)]
    said = f"{name}: {shown.count:,} utterances, {shown.mean:.2f} {unit} in the mean"
    return _chart(said, [*bars, *_scale(labels, unit)])


def usage_by_rank(usage: NDArray[np.int64]) -> Markup:
    """Share of the frames of each unit, most used first, on a logarithmic scale, beside what it is if all are alike."""
    frames = max(1, int(usage.sum()))
    falling = np.sort(usage)[::-1] / frames
    used = falling[falling > 0]
    inner, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    top, low = math.log10(max(used, default=1)), math.log10(min(used, default=1) * 0.8)

    def y(share: float) -> float:
        return _TOP + high * (top - math.log10(share)) / max(top - low, 1e-9)

    ranks = np.unique(np.geomspace(1, max(len(used), 1), 300).astype(int)) - 1
    wide = inner / max(len(falling), 1)
    path = "M" + "L".join(f"{_LEFT + (rank + 0.5) * wide:.1f} {y(used[rank]):.1f}" for rank in ranks[: len(used)])
    alike = min(max(y(1 / max(len(falling), 1)), _TOP), _TOP + high)
    drawn = [
        tag("line", x1=_LEFT, x2=_LEFT + inner, y1=f"{alike:.1f}", y2=f"{alike:.1f}", class_="alike"),
        tag("path", d=path, class_="curve"),
        tag("text", "all alike", x=_LEFT + inner, y=f"{alike - 4:.1f}", class_="end"),
    ]
    labels = [(_LEFT + inner * at / _TICKS, f"{round(len(falling) * at / _TICKS):,}") for at in range(_TICKS + 1)]
    said = f"share of the frames of {len(falling):,} units, most used first, logarithmic"
    return _chart(said, [*drawn, *_scale(labels, "units, most used first")])


def sounding(samples: NDArray[np.int16], rate: int, units: Sequence[int], run_lengths: Sequence[int]) -> Markup:
    """A waveform [n] with its units: a cell for each run, which says its number and time when it is pointed at.

    One unit has one colour everywhere. What lies beyond the samples is left out.
    """
    seconds = len(samples) / rate
    width = 1000.0
    cells, at = [], 0
    for unit, run in zip(units, run_lengths, strict=True):
        start, end = at * FRAME_S, min((at + run) * FRAME_S, seconds)
        at += run
        if start >= seconds:
            break
        x, wide = start / seconds * width, (end - start) / seconds * width
        hue = unit * 137.508 % 360  # the golden angle: numbers near each other look apart
        cells.append(
            tag(
                "g",
                tag("title", f"unit {unit}, {start:.2f} to {end:.2f} s"),
                tag("rect", x=f"{x:.1f}", y=0, width=f"{wide:.1f}", height=_WAVE, class_="run"),
                tag("rect", x=f"{x:.1f}", y=_WAVE, width=f"{wide:.1f}", height=_STRIP, fill=f"hsl({hue:.0f} 42% 60%)"),
            )
        )
    return tag(
        "svg",
        tag("path", d=_envelope(samples, width), class_="wave"),
        *cells,
        viewBox=f"0 0 {width:.0f} {_WAVE + _STRIP}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"waveform of {seconds:.1f} seconds with {len(cells)} units",
        class_="sounding",
    )


def _envelope(samples: NDArray[np.int16], width: float) -> str:
    """The highest and lowest sample of each column, as one closed path."""
    columns = min(_COLUMNS, len(samples))
    starts = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    loudest = max(1, int(np.abs(samples.astype(np.int32)).max()))
    middle = _WAVE / 2
    scale = (middle - 2) / loudest
    highest, lowest = np.maximum.reduceat(samples, starts), np.minimum.reduceat(samples, starts)
    x = (np.arange(columns) + 0.5) * width / columns
    over = [f"{a:.1f} {middle - b * scale:.1f}" for a, b in zip(x, highest.tolist(), strict=True)]
    under = [f"{a:.1f} {middle - b * scale:.1f}" for a, b in zip(x, lowest.tolist(), strict=True)]
    return "M" + "L".join([*over, *reversed(under)]) + "Z"


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return tag("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{width:.1f}", height=f"{height:.1f}", class_=kind)


def _scale(labels: Sequence[tuple[float, str]], unit: str) -> list[Markup]:
    base = HEIGHT - _BOTTOM
    line = tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis")
    words = []
    for index, (x, label) in enumerate(labels):
        kind = "start" if index == 0 else "end" if index == len(labels) - 1 else "middle"
        words.append(tag("text", label, x=f"{x:.1f}", y=base + 15, class_=kind))
    return [line, *words, tag("text", unit, x=WIDTH / 2, y=base + 32, class_="middle")]


def _chart(said: str, drawn: Sequence[Markup]) -> Markup:
    return tag("svg", joined(*drawn), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=said, class_="chart")
