"""What a plan comes to before anything is computed: hours, lengths, and the cost at a speed that was measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from spire_ray.cut import known_seconds
from spire_ray.errors import UserError
from spire_ray.parquet import check_plain, open_parquet
from spire_ray.plan import Counts
from spire_ray.records import load_json
from spire_ray.store import Store

EDGES_S = (0, 1, 2, 5, 10, 15, 20, 25, 30, 60, 120, 600, 3600)
BAR = 40  # characters of the longest bar
STAGES = ("units", "text")


@dataclass
class Survey:
    """The shards of a plan, counted."""

    max_seconds: float
    counts: Counts = field(default_factory=Counts)
    # Known ones, by EDGES_S:
    lengths: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(EDGES_S), np.int64)
    )  # known ones, by EDGES_S
    too_long: int = 0
    errors: int = 0  # rows that cannot be done

    @classmethod
    def of(cls, shards: Iterable[pa.Table], max_seconds: float) -> "Survey":
        """Of tables of tables.PLAN."""
        survey = cls(max_seconds)
        for shard in shards:
            survey.add(shard)
        return survey

    @classmethod
    def of_plan(cls, store: Store, max_seconds: float) -> "Survey":
        """Of the plan that lies in `store`."""
        return cls.of(_planned_shards(store), max_seconds)

    def add(self, shard: pa.Table) -> None:
        """Count one shard."""
        self.counts.add(shard)
        seconds = known_seconds(shard).drop_null().to_numpy()
        self.lengths += np.bincount(np.searchsorted(EDGES_S, seconds, side="right") - 1, minlength=len(EDGES_S))
        self.too_long += int(np.count_nonzero(seconds > self.max_seconds))
        self.errors += pc.sum(pc.is_valid(shard.column("error"))).as_py() or 0

    @property
    def hours(self) -> float:
        """Of audio, with a guess for the utterances whose duration is not known."""
        return sum(self.counts.milliseconds) / 3.6e6

    def show(self, console: Console, rates: "Mapping[str, Rate]", price: float | None) -> None:
        """Figures, the lengths as a histogram, and what units and text would take at `rates`."""
        counts, shards = self.counts, len(self.counts.utterances)
        guess = f" ({counts.unknown:,} durations guessed)" if counts.unknown else ""
        total = f"{sum(counts.utterances):,} utterances, {self.hours:,.2f} hours{guess}"
        console.print(f"{total}, {shards:,} shard{'s' * (shards != 1)}", soft_wrap=True)
        for count, what in (
            (self.errors, "cannot be planned: error rows"),
            (
                self.too_long,
                f"are over {self.max_seconds:g} s (--max-seconds): too_long, unless --segment cuts them",
            ),
        ):
            if count:
                console.print(f"{count:,} {what}", soft_wrap=True)
        console.print(self._histogram())
        for stage in STAGES:
            console.print(_bill(stage, self.hours, rates.get(stage), price), soft_wrap=True)

    def _histogram(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name, justify in (("seconds", "right"), ("utterances", "right"), ("", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        filled = np.flatnonzero(self.lengths)
        for index in range(filled[0], filled[-1] + 1) if len(filled) else ():
            end = EDGES_S[index + 1] if index + 1 < len(EDGES_S) else "…"
            bar = "█" * -(-int(self.lengths[index]) * BAR // int(self.lengths.max()))
            table.add_row(f"{EDGES_S[index]} to {end}", f"{self.lengths[index]:,}", bar)
        return table


@dataclass(frozen=True)
class Rate:
    """A speed that somebody measured: audio seconds per second of one `device`."""

    rtfx: float
    source: str  # who says so
    device: str = "GPU"


def rates(units: float | None, text: float | None, run: Store | None) -> dict[str, Rate]:
    """The speed of each stage: the figures given, else those of an earlier `run`. UserError when that has none."""
    measured = _rates_of(run) if run is not None else {}
    given = {stage: Rate(value, "given") for stage, value in zip(STAGES, (units, text), strict=True) if value}
    return measured | given


def _rates_of(run: Store) -> dict[str, Rate]:
    """Of all drivers of a run: the audio they did, over their seconds times their GPUs (or machines, without GPUs)."""
    records = [record for name in run.find("runs") if (record := load_json(run, f"runs/{name}"))]
    found: dict[str, Rate] = {}
    for stage in STAGES:
        done = [(record["stages"][stage], record["hardware"]) for record in records if stage in record["stages"]]
        audio_s = sum(made["audio_hours"] * 3600 for made, _ in done)
        with_gpus = any(hardware["gpus"] for _, hardware in done)
        device_s = sum(made["work_seconds"] * (hardware["gpus"] if with_gpus else 1) for made, hardware in done)
        if audio_s and device_s:
            device = "GPU" if with_gpus else f"machine of {done[0][1]['cpus']:g} CPUs"
            found[stage] = Rate(audio_s / device_s, f"measured in {run.url}", device)
    if not found:
        raise UserError(f"{run.url} holds no finished run that says how fast it was: give --rtfx-units and --rtfx-text")
    return found


def _bill(stage: str, hours: float, rate: Rate | None, price: float | None) -> str:
    if rate is None:
        return f"{stage}: needs a measured speed: --like OUT of an earlier run, or --rtfx-{stage}"
    device_hours = hours / rate.rtfx
    cost = "" if price is None else f", {device_hours * price:,.2f} at {price:g} an hour"
    speed = f"RTFx {rate.rtfx:,.1f} per {rate.device}, {rate.source}"
    time = f"{device_hours:,.2f} GPU-hours" if rate.device == "GPU" else f"{device_hours:,.2f} hours of a {rate.device}"
    return f"{stage}: {time}{cost} ({speed})"


def _planned_shards(store: Store) -> Iterable[pa.Table]:
    columns = ["audio_uri", "start_s", "end_s", "duration_s", "byte_size", "error"]
    for name in store.find("plan"):
        with store.fs.open(store.path(f"plan/{name}"), "rb") as handle:
            file: Any = open_parquet(handle, f"{store.url}/plan/{name}")
            check_plain(file.schema_arrow, f"{store.url}/plan/{name}")
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns)
