"""Engines that die: what is recorded, who is blamed, and that one poisonous utterance costs nobody else a row."""

import asyncio
import json
from collections.abc import AsyncIterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from bundle import make_bundle
from spire_ray import generate
from spire_ray.checkpoints import Checkpoint, resolve
from spire_ray.engine import EngineSettings, start_engine
from spire_ray.errors import MachineFault
from spire_ray.generate import GenerateText, TextTasks
from spire_ray.isolation import BARREN_DEATHS, Key, Room, Strikes, judge
from spire_ray.shards import StoreAt
from spire_ray.store import Store
from spire_ray.tables import SOURCES, TRANSCRIPTS, TRANSLATIONS, from_rows, nest, unnest

A, B, C, X, Y = ((0, 0, name) for name in "abcxy")
SETTINGS = EngineSettings(
    "cpu", "float32", max_num_seqs=16, enforce_eager=True, block_size=32, kv_cache_memory_bytes=32 << 20, threads=1
)


@pytest.mark.parametrize(
    ("deaths", "poison", "suspects"),
    [
        ([], "", ""),
        ([[A, B, X]], "", ""),
        ([[A, B, X], [B, C, X]], "", "bx"),
        ([[X]], "", ""),
        ([[X], [X]], "x", ""),
        # Found alone: its deaths are held against nobody else.
        ([[A, B, X], [A, B, X], [X]], "x", ""),
        # A second poison has its own deaths.
        ([[A, X, Y], [A, X, Y], [X], [A, Y], [A, Y]], "x", "ay"),
        ([[A, X, Y], [A, X, Y], [X], [A, Y], [A, Y], [Y]], "xy", ""),
    ],
)
def test_who_is_to_blame(deaths: list[list[Key]], poison: str, suspects: str) -> None:
    verdict = judge(deaths)
    assert {id_ for _, _, id_ in verdict.poison} == set(poison)
    assert {id_ for _, _, id_ in verdict.suspects} == set(suspects)


def test_deaths_are_objects_that_any_process_reads(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    strikes = Strikes(store, "run")
    assert not strikes.verdict().suspects
    strikes.record([(3, 0, "ü/1.wav"), (4, 1, "b")], answered=7)
    assert not Strikes(store, "other").verdict().suspects
    strikes.record([(3, 0, "ü/1.wav")], answered=0)
    assert strikes.verdict() == Strikes(store, "other").verdict()
    assert strikes.verdict().poison == {(3, 0, "ü/1.wav")}
    # The retry command's next attempt starts without a record.
    assert (3, 1, "ü/1.wav") not in strikes.verdict().poison
    assert len(list((tmp_path / "strikes").iterdir())) == 2


def test_engines_that_never_answer_end_the_run_and_not_the_next_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    strikes = Strikes(store, "run")
    for number in range(BARREN_DEATHS - 1):
        strikes.record([(0, 0, f"u{number}")], answered=0)
        strikes.record([(0, 0, f"v{number}")], answered=1)
        strikes.verdict()
    strikes.record([(0, 0, "last")], answered=0)
    with pytest.raises(MachineFault, match=f"died {BARREN_DEATHS} times before it had answered"):
        strikes.verdict()
    with pytest.raises(MachineFault):
        Strikes(store, "run").verdict()  # of the actor that Ray started again
    Strikes(store, "the same command again").verdict()


def test_one_that_is_alone_shares_the_room_with_nobody() -> None:
    room, seen = Room(3), []

    async def visit(key: Key, alone: bool) -> None:
        async with room.entered(key, alone):
            seen.append((key[2], len(room.inside)))
            await asyncio.sleep(0)
            assert len(room.inside) == 1 if alone else A not in room.inside and X not in room.inside

    async def all_at_once() -> None:
        names = [(B, False), (A, True), (C, False), (X, True), (Y, False)]
        await asyncio.gather(*(visit(key, alone) for key, alone in names * 3))

    asyncio.run(asyncio.wait_for(all_at_once(), 10))
    assert {count for name, count in seen if name in "ax"} == {1}
    assert max(count for name, count in seen if name not in "ax") > 1
    assert not room.inside


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(make_bundle(tmp_path_factory.mktemp("checkpoint"), context=512)), need=("llm",))


class Exited(BaseException):
    """What os._exit does, for a process that goes on."""


class Poisoned:
    """A real engine whose process is killed, with SIGKILL, when it is asked about a certain unit."""

    def __init__(self, engine: Any, unit: int) -> None:
        self.engine, self.unit = engine, unit
        self.asked: list[int] = []

    async def get_supported_tasks(self) -> Any:
        return await self.engine.get_supported_tasks()

    async def generate(self, prompt: Any, sampling: Any, request_id: str) -> AsyncIterator[Any]:
        self.asked.append(len(prompt["prompt_token_ids"]))
        if 517 + self.unit in prompt["prompt_token_ids"]:
            for child in active_children():
                child.kill()
        async for output in self.engine.generate(prompt, sampling, request_id):
            yield output


def test_a_poison_costs_only_its_own_rows(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        for task in asyncio.all_tasks():
            task.cancel()  # nothing of this process goes on
        raise Exited(code)

    monkeypatch.setattr(generate.os, "_exit", leave)
    monkeypatch.setattr(generate, "start_engine", lambda *given: Poisoned(start_engine(*given), unit=99))
    rows = [{"utterance_id": f"u{n}", "units": [n, n + 1, 7 * n], "duration_s": 1.0} for n in range(6)]
    rows[3]["units"] = [1, 99, 2]
    tasks = TextTasks(languages=("de",), max_tokens=4)
    shards = [nest(n, 0, utterances=from_rows(rows[3 * n : 3 * n + 3], SOURCES)) for n in range(2)]

    async def both() -> list[Any]:
        stage = GenerateText(checkpoint, tasks, SETTINGS, StoreAt(str(tmp_path)))
        try:
            return list(await asyncio.gather(*(stage(shard) for shard in shards)))
        finally:
            stage.engine.engine.shutdown(timeout=0.1)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    deaths = 0
    while True:
        # As Ray does: the actor again, and the shards that had not been returned.
        try:
            made = asyncio.run(both())
            break
        except Exited:
            deaths += 1
            assert deaths < 5
    recorded = [json.loads(path.read_text())["in_engine"] for path in (tmp_path / "strikes").iterdir()]
    assert sorted(map(len, recorded))[0] == 1
    assert all([1, 0, "u3"] in death for death in recorded)
    assert deaths == len(recorded) == 3
    for shard, table in enumerate(made):
        for name, schema in (("transcripts", TRANSCRIPTS), ("translations", TRANSLATIONS)):
            for row in unnest(table, name, schema).to_pylist():
                crashed = row["utterance_id"] == "u3"
                assert (row["error"] or "").startswith("engine_crash: ") == crashed, (shard, row)
                assert (row["text"] is None) == crashed
