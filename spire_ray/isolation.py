"""Finding the utterance that kills the engine: who was in it whenever it died, and who goes in alone the next time.

Every death leaves one create-only object under `strikes/`: the utterances in the engine at that moment, of all shards
in flight. Those present at two deaths go in alone from then on, and the one that kills it alone is the poison. Deaths
that a poison explains are held against nobody else.
"""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from spire_ray.store import Store

FOLDER = "strikes"
Key = tuple[int, int, str]  # shard, attempt, utterance_id: `spire-ray retry` gives an utterance a new chance
DEATHS = 2  # at which an utterance was present, to be suspected


@dataclass(frozen=True)
class Verdict:
    """Which utterances are not asked about again, and which go into the engine alone."""

    poison: frozenset[Key] = frozenset()
    suspects: frozenset[Key] = frozenset()


def judge(deaths: Sequence[Collection[Key]]) -> Verdict:
    """Of the utterances in the engine at each of its deaths, who is to blame and who may be."""
    present = Counter(key for death in deaths for key in death)
    poison = {key for death in deaths if len(death) == 1 for key in death if present[key] >= DEATHS}
    unexplained = Counter(key for death in deaths if poison.isdisjoint(death) for key in death)
    return Verdict(frozenset(poison), frozenset(key for key, times in unexplained.items() if times >= DEATHS))


class Strikes:
    """The deaths recorded in one run directory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._deaths: dict[str, list[Key]] = {}

    def verdict(self) -> Verdict:
        """By what is recorded now: one listing, and one get for each death not seen before."""
        for name in self.store.find(FOLDER):
            if name not in self._deaths:
                recorded = json.loads(self.store.get(f"{FOLDER}/{name}"))["in_engine"]
                self._deaths[name] = [(shard, attempt, id_) for shard, attempt, id_ in recorded]
        return judge(list(self._deaths.values()))

    def record(self, in_engine: Collection[Key]) -> None:
        """One death."""
        data = json.dumps({"in_engine": sorted(in_engine)}, ensure_ascii=False)
        self.store.create(f"{FOLDER}/{uuid.uuid4().hex}.json", data.encode())


class Room:
    """The engine's room for utterances: `size` at once, or one alone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inside: set[Key] = set()
        self._places = asyncio.Semaphore(size)
        self._turn = asyncio.Lock()  # two that gather all places would wait for each other

    @asynccontextmanager
    async def entered(self, key: Key, alone: bool = False) -> AsyncIterator[None]:
        """Waits for a place, or for all of them.

        An exception leaves the utterance inside: it may mean that the engine died, and then this is who was in it.
        """
        async with AsyncExitStack() as stack:
            if alone:
                await stack.enter_async_context(self._turn)
            places = self.size if alone else 1
            for _ in range(places):
                await self._places.acquire()
            self.inside.add(key)
            yield
            self.inside.remove(key)
            for _ in range(places):
                self._places.release()
