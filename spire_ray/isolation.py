"""Finding the utterance that kills the engine: who was in it whenever it died, and who goes in alone the next time.

Every death leaves one create-only object under `strikes/`: the utterances in the engine at that moment, of all shards
in flight. Those present at two deaths go in alone from then on, and the one that kills it alone is the poison. Deaths
that a poison explains are held against nobody else. An engine that never answers anything has another reason to die.
"""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from spire_ray.errors import MachineFault
from spire_ray.store import Store

FOLDER = "strikes"
Key = tuple[int, int, str]  # shard, attempt, utterance_id: `spire-ray retry` gives an utterance a new chance
DEATHS = 2  # at which an utterance was present, to be suspected
# Deaths before a first answer, in one run, that are the machine's: a poison at the very front of a shard makes four.
BARREN_DEATHS = 12


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
    """The deaths recorded in one run directory; `run` is the driver that this actor works for."""

    def __init__(self, store: Store, run: str) -> None:
        self.store = store
        self.run = run
        self._deaths: dict[str, list[Key]] = {}
        self._barren: set[str] = set()

    def verdict(self) -> Verdict:
        """By what is recorded now: one listing, and one get for each death not seen before.

        MachineFault when engines of this run died again and again before they had answered anything.
        """
        for name in self.store.find(FOLDER):
            if name not in self._deaths:
                recorded = json.loads(self.store.get(f"{FOLDER}/{name}"))
                self._deaths[name] = [(shard, attempt, id_) for shard, attempt, id_ in recorded["in_engine"]]
                if recorded["run"] == self.run and not recorded["answered"]:
                    self._barren.add(name)
        if len(self._barren) >= BARREN_DEATHS:
            raise MachineFault(
                f"the engine died {len(self._barren)} times before it had answered anything: "
                "is the GPU well, and does its memory suffice?"
            )
        return judge(list(self._deaths.values()))

    def record(self, in_engine: Collection[Key], answered: int) -> None:
        """One death: the utterances in the engine, and how many it had answered since it started."""
        death = {"run": self.run, "answered": answered, "in_engine": sorted(in_engine)}
        self.store.create(f"{FOLDER}/{uuid.uuid4().hex}.json", json.dumps(death, ensure_ascii=False).encode())


class Room:
    """The engine's room for utterances: `size` at once, or one alone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.inside: set[Key] = set()
        self.left = 0  # how many have been in
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
            self.left += 1
            for _ in range(places):
                self._places.release()
