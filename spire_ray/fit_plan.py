"""Before a fit: where its codebook goes, whether the corpus has frames enough, and in which rounds it is taken."""

import hashlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spire_ray.cut import known_seconds
from spire_ray.errors import UserError
from spire_ray.plan import Shard
from spire_ray.sampling import FRAMES_PER_S, frame_keys
from spire_ray.store import Store
from spire_ray.units import MAX_INT16

OVER = 1.25  # rooms are half of what is free, which is not the same when a fit goes on
_CONTENT = ["utterance_id", "byte_size", "row_index", "start_s", "end_s", "duration_s"]


def new_codebook(target: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Store, str]:
    """The folder of a codebook to be, and its name in it. UserError when it is there or cannot be written."""
    parent, _, name = target.rstrip("/").rpartition("/")
    home = Store(parent or ("/" if target.startswith("/") else "."), storage_options)
    if not name.endswith(".safetensors"):
        raise UserError(f"{target}: name the codebook something.safetensors")
    if home.fs.exists(home.path(name)):
        raise UserError(f"{target} exists: name a new file")
    home.check_writable()
    return home, name


def check_sizes(clusters: int, frames: int, seed: int) -> None:
    """UserError for numbers that no fit can have."""
    if seed < 0:
        raise UserError(f"--seed {seed} is below 0")
    if not 2 <= clusters <= MAX_INT16:
        raise UserError(f"--clusters {clusters} is not from 2 to {MAX_INT16}")
    if frames < clusters:
        raise UserError(f"--frames {frames} is fewer than --clusters {clusters}")


def check_frames(tables: Iterator[pa.Table], clusters: int, corpus: str) -> Iterator[pa.Table]:
    """The planned rows as they came. UserError after the last when they are known to have fewer frames than clusters.

    Where a duration is not known, sampling tells.
    """
    named, unknown, total = 0, 0, 0.0
    for rows in tables:
        yield rows
        seconds = known_seconds(rows.filter(pc.is_valid(rows.column("audio_uri"))))
        named, unknown = named + len(seconds), unknown + seconds.null_count
        total += pc.sum(seconds).as_py() or 0.0
    if not named:
        raise UserError(f"corpus {corpus} has no readable audio: no row of it names any")
    frames = int(total * FRAMES_PER_S)
    if not unknown and frames < clusters:
        raise UserError(f"corpus {corpus} has about {frames} frames, fewer than --clusters {clusters}")


def corpus_sha256(store: Store) -> str:
    """SHA-256 (hex) over ids, sizes, pieces and durations of all planned rows, in the order of the ids.

    However they are cut into shards, and wherever the corpus lies: other than the plan's fingerprint.
    """
    # One for the ids' lengths: in one digest with the ids it would tell where parts of the plan begin.
    digests = {name: hashlib.sha256() for name in ("lengths", *_CONTENT)}
    for name in store.find("plan"):
        rows = pq.read_table(io.BytesIO(store.get(f"plan/{name}")), columns=_CONTENT)
        ids = rows.column("utterance_id")
        digests["lengths"].update(pc.binary_length(ids).to_numpy().astype("<i8").tobytes())
        digests["utterance_id"].update("".join(ids.to_pylist()).encode())
        for column in _CONTENT[1:]:
            # Milliseconds and bytes, whole: nulls as -1, which neither is.
            factor = 1000 if column.endswith("_s") else 1
            numbers = pc.fill_null(pc.cast(rows.column(column), pa.float64()), -1.0).to_numpy()
            digests[column].update(np.rint(numbers * factor).astype("<i8").tobytes())
    return hashlib.sha256(b"".join(digest.digest() for digest in digests.values())).hexdigest()


def split_rounds(shards: Sequence[Shard], seed: int, rounds: int) -> list[list[Shard]]:
    """The shards in so many rounds of about as much audio; one round has them in their order.

    More are drawn in the order of a hash of their numbers: neighbours are of the same speakers and recordings, and a
    round is to look like the corpus.
    """
    if rounds == 1:
        return [list(shards)]
    keys = frame_keys(seed, "shards", max(shard.index for shard in shards) + 1)
    drawn = sorted(shards, key=lambda shard: int(keys[shard.index]))
    seconds = np.array([shard.seconds for shard in drawn])
    middles = np.cumsum(seconds) - seconds / 2
    bounds = [0]
    for number in range(1, rounds):
        wanted = int(np.searchsorted(middles, seconds.sum() * number / rounds))
        bounds.append(min(max(wanted, bounds[-1] + 1), len(drawn) - (rounds - number)))  # none is empty
    return [drawn[start:end] for start, end in itertools.pairwise([*bounds, len(drawn)])]


def rounds_that_fit(shards: Sequence[Shard], seed: int, kept_a_second: float, holders: int, capacity: int) -> int:
    """The fewest rounds in which no holder gets more than `capacity` frames; a shard cannot be divided.

    kept_a_second: frames kept of a second of audio.
    """
    total = sum(shard.seconds for shard in shards) * kept_a_second
    for rounds in range(max(1, int(total / max(capacity * holders, 1))), len(shards)):
        parts = split_rounds(shards, seed, rounds)
        if all(_largest(part, holders) * kept_a_second <= capacity for part in parts):
            return rounds
    return len(shards)


def refuse_overfull(parts: Sequence[Sequence[Shard]], kept_a_second: float, holders: int, capacity: int) -> None:
    """UserError when a holder is to get many more frames than it has room for, in any of these rounds."""
    most = max((_largest(part, holders) * kept_a_second for part in parts), default=0.0)
    if most > capacity * OVER:
        raise UserError(
            f"{most:,.0f} frames are for one of {holders} device(s) that have room for {capacity:,} each: "
            "use as many devices as before, or more, or name another codebook and ask for fewer --frames, "
            "or for shorter shards by --shard-minutes"
        )


def _largest(shards: Sequence[Shard], holders: int) -> float:
    """Seconds of audio that the holder with the most of them has."""
    seconds = [0.0] * holders
    for shard in shards:
        seconds[shard.index % holders] += shard.seconds
    return max(seconds)
