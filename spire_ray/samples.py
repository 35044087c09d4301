"""Which utterances a report shows: drawn by a hash of their ids, with their sound where that is wanted."""

import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spire_ray.pcm import pcm_views
from spire_ray.read import ReadAudio
from spire_ray.tables import PLAN, from_rows
from spire_ray.tallies import Row, texts_of

LONGEST_S = 10.0  # of what is played
_ODD = 4  # one in so many is an error, and one flagged, where there are any

Ranked = tuple[int, int, Row]  # a negative rank, a number that decides between equals, the row


@dataclass
class Draw:
    """The utterances with the lowest hashes, of three kinds: memory holds no more than are shown."""

    count: int
    seed: int = 0
    kinds: dict[str, list[Ranked]] = field(default_factory=lambda: {"error": [], "flagged": [], "plain": []})
    seen: int = 0

    def add(self, rows: list[Row]) -> None:
        """Look at one shard."""
        for row in rows:
            self.seen += 1
            heap = self.kinds[_kind(row)]
            heapq.heappush(heap, (-self._rank(row["utterance_id"]), self.seen, row))
            if len(heap) > self.count:
                heapq.heappop(heap)

    def chosen(self) -> list[Row]:
        """At most `count`: up to a quarter errors and a quarter flagged; in the order of their ids."""
        ranked = {kind: [row for _, _, row in sorted(heap, reverse=True)] for kind, heap in self.kinds.items()}
        few = self.count // _ODD
        taken = ranked["error"][:few] + ranked["flagged"][:few]
        rest = ranked["plain"] + ranked["flagged"][few:] + ranked["error"][few:]
        return sorted(taken + rest[: self.count - len(taken)], key=lambda row: str(row["utterance_id"]))

    def _rank(self, utterance_id: str) -> int:
        digest = hashlib.blake2b(f"{self.seed}:{utterance_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")


def _kind(row: Row) -> str:
    texts = [text for _, text in texts_of(row)]
    if row["error"] or any(text["error"] for text in texts):
        return "error"
    return "flagged" if any(text["flags"] for text in texts) else "plain"


def sounds(rows: list[Row], storage_options: Mapping[str, Any], max_seconds: float) -> list[NDArray[np.int16] | str]:
    """The samples (int16 [n], 16 kHz, mono) of each row, at most LONGEST_S; or why there are none."""
    planned = [{name: row[name] for name in PLAN.names} for row in rows]
    heard = [index for index, row in enumerate(planned) if not row["error"] and row["audio_uri"]]
    found: list[NDArray[np.int16] | str] = [row["error"] or "no audio" for row in planned]
    reader = ReadAudio(storage_options, max_seconds)
    for index in heard:  # one at a time: what is drawn lies in as many files, and a shard's room is not needed
        made = reader.read(from_rows([planned[index]], PLAN))
        (samples,) = pcm_views(made.column("pcm").combine_chunks())
        limit = int(LONGEST_S * 16_000)
        found[index] = made.column("error")[0].as_py() if samples is None else samples[:limit].copy()
    return found
