"""What Prometheus scrapes from Ray's agent on the driver's node: counts of shards as they have committed.

The driver counts, and a shard reports to it once, so that no retry is counted twice. Ray puts `ray_` before the names,
and `_total` after those that count. `cluster/grafana.json` shows them.
"""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from spire_ray.commit import Summary
from spire_ray.progress import Progress

COUNTERS = {
    "spire_shards": "Shards committed",
    "spire_utterances": "Utterances committed, errors among them",
    "spire_audio_seconds": "Seconds of audio committed",
    "spire_prompt_tokens": "Prompt tokens of the engines",
    "spire_cached_tokens": "Prompt tokens found in the prefix cache",
    "spire_generated_tokens": "Tokens generated",
}


class Metrics:
    """The metrics of one stage, `units` or `text`. Ray must be joined."""

    def __init__(self, stage: str) -> None:
        self.tags = {"stage": stage}
        self.counters = {name: Counter(name, text, ("stage",)) for name, text in COUNTERS.items()}
        self.errors = Counter("spire_errors", "Utterances committed with an error", ("stage", "reason"))
        self.rtfx = Gauge("spire_rtfx", "Audio seconds per second of work, of the stage", ("stage",))
        self.actor_rtfx = Gauge("spire_actor_rtfx", "The same, of each encoder or engine", ("stage", "actor"))

    def add(self, summary: Summary, progress: Progress) -> None:
        """Count a shard; `progress` has counted it already."""
        amounts: Mapping[str, float] = {
            "spire_shards": 1,
            "spire_utterances": summary.utterances,
            "spire_audio_seconds": summary.audio_s,
            "spire_prompt_tokens": summary.prompt_tokens,
            "spire_cached_tokens": summary.cached_tokens,
            "spire_generated_tokens": summary.generated_tokens,
        }
        for name, amount in amounts.items():
            if amount > 0:  # Ray refuses to count nothing
                self.counters[name].inc(amount, self.tags)
        for reason in summary.reasons:
            self.errors.inc(1, self.tags | {"reason": reason})
        self.rtfx.set(progress.rtfx, self.tags)
        for name, actor in progress.actors.items() if progress.audio_s else ():
            self.actor_rtfx.set(actor.rtfx, self.tags | {"actor": name})
