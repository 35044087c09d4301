"""Which shards `spire-ray retry` does again: those with an error row that another attempt may mend."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from spire_ray import outputs
from spire_ray.plan import Plan, Shard
from spire_ray.shards import retriable_rows, retriable_text
from spire_ray.store import Store

READERS = 16  # shards looked at side by side: small objects, so latency bound


def units_to_retry(store: Store, plan: Plan) -> list[Shard]:
    """Shards with failed units, each with its next attempt's number."""
    attempts = _next_attempts(store, ["units"])
    return _to_retry(plan, attempts, lambda shard, again: retriable_rows(store, "units", shard, again))


def text_to_retry(source: Store, store: Store, tables: Sequence[str], plan: Plan) -> list[Shard]:
    """Shards with failed text rows whose utterances now have units, or whose text can be read."""
    units = outputs.committed(source, "units")

    def wanted(shard: int, again: int) -> pa.Table:
        if units:
            return retriable_text(source, store, tables, shard, again, units[shard])
        return retriable_rows(store, "translations", shard, again)

    return _to_retry(plan, _next_attempts(store, tables), wanted)


def _next_attempts(store: Store, tables: Sequence[str]) -> dict[int, int]:
    """For each shard that is done: one more than its highest attempt in any table, as a retry may have been killed."""
    attempts = [outputs.committed(store, table) for table in tables]
    return {shard: max(found.get(shard, 0) for found in attempts) + 1 for shard in attempts[-1]}


def _to_retry(plan: Plan, attempts: dict[int, int], wanted: Callable[[int, int], pa.Table]) -> list[Shard]:
    shards = [replace(shard, attempt=attempts[shard.index]) for shard in plan.without({}) if shard.index in attempts]
    with ThreadPoolExecutor(READERS) as pool:
        counts = pool.map(lambda shard: wanted(shard.index, shard.attempt).num_rows, shards)
        return [
            replace(shard, utterances=count, seconds=shard.seconds * count / shard.utterances)
            for shard, count in zip(shards, counts, strict=True)
            if count
        ]
