"""What a person watches while a stage runs: one live line on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from spire_ray.commit import Summary
from spire_ray.parity import Parity
from spire_ray.plan import Plan, Shard

PLAIN_INTERVAL_S = 10.0  # between lines when the output is not a terminal
LIVE_INTERVAL_S = 0.1


@dataclass
class Actor:
    """What one encoder or engine has done in this run."""

    ready_at: float
    committed_at: float = 0.0
    audio_s: float = 0.0
    gpu_utilisation: list[float] = field(default_factory=list)  # percent, one for each shard

    @property
    def rtfx(self) -> float:
        """Audio seconds per wall second from its start to its last shard."""
        return self.audio_s / max(self.committed_at - self.ready_at, 1e-9)

    @property
    def mean_utilisation(self) -> float | None:
        """Percent; None without a GPU, or where nothing measures it."""
        return sum(self.gpu_utilisation) / len(self.gpu_utilisation) if self.gpu_utilisation else None


@dataclass
class Progress:
    """Counts of one stage in one run, fed by `add`, shown on `stream`."""

    stage: str
    shards: int  # to do in this run
    total_s: float  # audio of the whole plan; 0 where it is not known
    done_s: float = 0.0  # audio committed before this run
    estimated: bool = False  # whether some of the durations are guessed from sizes
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    summaries: int = 0
    utterances: int = 0
    audio_s: float = 0.0
    busy_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    shareable_tokens: int = 0
    generated_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    parity: Parity = field(default_factory=Parity)  # of the encoders
    actors: dict[str, Actor] = field(default_factory=dict)  # encoders or engines, by host and process
    encode_budget_s: float | None = None  # the smallest: it is halved where memory runs out
    redone_in_float32: int = 0  # shards
    began: float = field(default_factory=time.time)
    ready_at: float = float("inf")  # when the first model was loaded
    committed_at: float = 0.0
    _shown: float = 0.0

    @classmethod
    def of(cls, stage: str, plan: Plan, shards: Sequence[Shard]) -> "Progress":
        """For the work on `shards` of `plan`."""
        total, to_do = sum(plan.shard_seconds), sum(shard.seconds for shard in shards)
        return cls(stage, len(shards), total, total - to_do, estimated=plan.unknown_durations > 0)

    def add(self, summary: Summary) -> None:
        """Count a shard that has committed, and show it."""
        self.summaries += 1
        self.utterances += summary.utterances
        self.audio_s += summary.audio_s
        self.busy_s += summary.busy_s
        self.prompt_tokens += summary.prompt_tokens
        self.cached_tokens += summary.cached_tokens
        self.shareable_tokens += summary.shareable_tokens
        self.generated_tokens += summary.generated_tokens
        self.errors.update(summary.reasons)
        self.faults.extend(summary.faults)
        self.ready_at = min(self.ready_at, summary.ready_at)
        self.committed_at = max(self.committed_at, summary.committed_at)
        if summary.actor is not None:
            self._add_actor(summary, summary.actor)
        if summary.encode_budget_s is not None:
            self._add_encoder(summary)
        self._show()

    def _add_actor(self, summary: Summary, name: str) -> None:
        actor = self.actors.setdefault(name, Actor(summary.ready_at))
        actor.committed_at = max(actor.committed_at, summary.committed_at)
        actor.audio_s += summary.audio_s
        if summary.gpu_utilisation is not None:
            actor.gpu_utilisation.append(summary.gpu_utilisation)

    def _add_encoder(self, summary: Summary) -> None:
        self.parity += Parity.of(summary.parity or {})
        self.encode_budget_s = min(filter(None, (self.encode_budget_s, summary.encode_budget_s)), default=None)
        self.redone_in_float32 += summary.redone_in_float32

    @property
    def work_s(self) -> float:
        """Wall seconds from the first ready model to the last commit: process, Ray and model start are not counted."""
        return max(0.0, self.committed_at - self.ready_at) if self.summaries else 0.0

    @property
    def startup_s(self) -> float:
        """Wall seconds before the first model was ready."""
        return max(0.0, self.ready_at - self.began) if self.summaries else 0.0

    @property
    def rtfx(self) -> float:
        """Audio seconds per wall second of work."""
        return self.audio_s / self.work_s if self.work_s else 0.0

    def line(self) -> str:
        """The line a person reads."""
        hours = f"{(self.done_s + self.audio_s) / 3600:.2f}"
        if self.total_s:
            hours += f" of {'about ' if self.estimated else ''}{self.total_s / 3600:.2f}"
        errors = sum(self.errors.values())
        parts = [f"{self.stage}  {hours} h", f"{self.summaries} of {self.shards} shards"]
        if self.audio_s:
            parts.append(f"RTFx {self.rtfx:,.1f}{self._of_actors()}")
        parts.append(f"{errors} error{'' if errors == 1 else 's'}")
        if 0 < self.summaries < self.shards:
            parts.append(f"ETA {clock(self.work_s / self.summaries * (self.shards - self.summaries))}")
        return " | ".join(parts)

    def _of_actors(self) -> str:
        """The slowest and the fastest actor, and how busy the encoders' GPUs are."""
        rates = [actor.rtfx for actor in self.actors.values()]
        busy = [actor.mean_utilisation for actor in self.actors.values() if actor.mean_utilisation is not None]
        each = f" ({min(rates):,.1f} to {max(rates):,.1f} each)" if len(rates) > 1 else ""
        return each + (f", GPU {sum(busy) / len(busy):.0f} %" if busy else "")

    def as_dict(self) -> dict[str, object]:
        """The stage's part of runs/ID.json."""
        encoders = {
            "parity": self.parity.as_dict(),
            "budget_seconds": self.encode_budget_s,
            "shards_redone_in_float32": self.redone_in_float32,
        }
        actors = {
            name: {"rtfx": round(actor.rtfx, 3), "gpu_utilisation": actor.mean_utilisation}
            for name, actor in sorted(self.actors.items())
        }
        return {
            "shards": self.summaries,
            "utterances": self.utterances,
            "audio_hours": round(self.audio_s / 3600, 6),
            "startup_seconds": round(self.startup_s, 3),
            "work_seconds": round(self.work_s, 3),
            "busy_seconds": round(self.busy_s, 3),
            "rtfx": round(self.rtfx, 3),
            "errors": dict(sorted(self.errors.items())),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "shareable_tokens": self.shareable_tokens,
            "generated_tokens": self.generated_tokens,
            **({"actors": actors} if actors else {}),
            **(encoders if self.encode_budget_s is not None else {}),
        }

    def start(self) -> None:
        """Say that the stage has begun: loading a model can take minutes."""
        self._print(f"{self.stage}  {self.shards} shards to do, starting")

    def finish(self) -> None:
        """Leave the last line standing."""
        self._print(self.line(), last=True)

    def _show(self) -> None:
        now = time.monotonic()
        interval = LIVE_INTERVAL_S if self.stream.isatty() else PLAIN_INTERVAL_S
        if now - self._shown >= interval:
            self._shown = now
            self._print(self.line())

    def _print(self, line: str, last: bool = False) -> None:
        show_line(self.stream, line, last)


def show_line(stream: TextIO, line: str, last: bool) -> None:
    """A line on a stream: on a terminal in place of the one before, and `last` leaves it standing."""
    if stream.isatty():
        stream.write(f"\r\x1b[K{line if last else _cut(stream, line)}" + ("\n" if last else ""))
    else:
        stream.write(line + "\n")
    stream.flush()


def _cut(stream: TextIO, line: str) -> str:
    """As much as the terminal shows in one row: of a second row the next line would take nothing away."""
    try:
        return line[: os.get_terminal_size(stream.fileno()).columns - 1] or line
    except OSError:
        return line


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
