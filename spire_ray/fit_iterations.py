"""What a fit saves after each iteration, so that a killed one goes on: CODEBOOK.fit/iteration-00007.safetensors."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from spire_ray.errors import UserError
from spire_ray.kmeans import Iteration
from spire_ray.store import Store

_NAME = re.compile(r"iteration-(\d{5,})\.safetensors")
_NUMBERS = ("number", "inertia", "held_out", "moved", "reseeded", "share", "calm", "done")


@dataclass(frozen=True)
class Saved:
    """An iteration, and what was done until then."""

    iteration: Iteration
    round: int  # of mini-batch mode, counted from 1
    frames: int  # trained on, over all rounds
    held_out_frames: int  # that its held-out inertia is of: of the last round that has any
    hours: float  # of audio, over all rounds
    reseeded: int  # clusters, over all iterations

    @property
    def ends_round(self) -> bool:
        """Whether its round has no further iteration."""
        return self.iteration.done

    def numbers(self) -> dict[str, Any]:
        """All of it that is a number."""
        counted = {"round": self.round, "frames": self.frames, "held_out_frames": self.held_out_frames}
        iteration = {name: getattr(self.iteration, name) for name in _NUMBERS}
        return {**counted, "hours": self.hours, "reseeded_in_all": self.reseeded, "iteration": iteration}


def key_of(number: int) -> str:
    """Where iteration `number` is saved."""
    return f"iteration-{number:05}.safetensors"


def save_iteration(store: Store, saved: Saved) -> None:
    """Put it. UserError when another fit has put the same iteration, with other centroids, just now."""
    iteration = saved.iteration
    tensors: dict[str, NDArray[Any]] = {"centroids": iteration.centroids, "counts": iteration.counts}
    data = save(tensors, {"numbers": json.dumps(saved.numbers())})
    key = key_of(iteration.number)
    if not store.create(key, data) and (load(store.get(key))["centroids"] != iteration.centroids).any():
        raise UserError(f"{store.url}/{key} was written by another fit just now: let that one end")


def last_iteration(store: Store) -> Saved | None:
    """The one with the highest number; None before the first. UserError when it is damaged."""
    numbers = [int(match[1]) for name in store.find("") if (match := _NAME.fullmatch(name))]
    if not numbers:
        return None
    key = key_of(max(numbers))
    data = store.get(key)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        numbers_of: Mapping[str, Any] = json.loads(header["__metadata__"]["numbers"])
        iteration = Iteration(centroids=tensors["centroids"], counts=tensors["counts"], **numbers_of["iteration"])
        return Saved(
            iteration,
            round=numbers_of["round"],
            frames=numbers_of["frames"],
            held_out_frames=numbers_of["held_out_frames"],
            hours=numbers_of["hours"],
            reseeded=numbers_of["reseeded_in_all"],
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as fault:
        raise UserError(f"{store.url}/{key} is damaged ({fault}): name another codebook file") from None


def line_of(iteration: Iteration, seconds: float) -> str:
    """The line a person reads."""
    held_out = "none" if iteration.held_out is None else f"{iteration.held_out:.6g}"
    parts = [
        f"iteration {iteration.number}",
        f"inertia {iteration.inertia:.6g}",
        f"held out {held_out}",
        f"{iteration.reseeded} reseeded",
        f"{seconds:.1f} s",
    ]
    if iteration.share < 1:
        parts.append(f"on {iteration.share:.1%} of the frames")
    return " | ".join(parts)
