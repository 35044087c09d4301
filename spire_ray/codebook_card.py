"""The card in a codebook file's metadata: what it was fitted on, so that it is used with that alone."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from spire_ray.errors import UserError

MARK, FORMAT = "spire_ray.codebook_card", "1"
UNKNOWN = "unknown"
# What the encoder does before and after its layers; see hubert.py.
FEATURES = {"final_layer_norm": "none", "normalisation": "each utterance to zero mean and unit variance"}


@dataclass(frozen=True)
class Card:
    """The fields of a card, as text; what nobody knows is UNKNOWN."""

    encoder: str = UNKNOWN  # SHA-256 (hex) over its config and weights
    encoder_name: str = UNKNOWN
    revision: str = UNKNOWN  # the hub's commit, or a SHA-256 over the folder's small files
    layer: str = UNKNOWN  # counted from 1
    final_layer_norm: str = UNKNOWN
    normalisation: str = UNKNOWN
    dtype: str = UNKNOWN  # of the encoder's products
    corpus: str = UNKNOWN  # SHA-256 (hex) over ids, sizes and durations
    hours: str = UNKNOWN  # of audio that was read
    frames: str = UNKNOWN  # trained on
    held_out_frames: str = UNKNOWN  # in mini-batch mode of the last round, as held_out_inertia
    seed: str = UNKNOWN
    mode: str = UNKNOWN  # full, or mini-batch with its number of rounds
    iterations: str = UNKNOWN
    reseeded: str = UNKNOWN  # clusters, over all iterations
    inertia: str = UNKNOWN  # mean squared distance to the nearest centroid, per frame; of the last round
    held_out_inertia: str = UNKNOWN
    source: str = UNKNOWN  # SHA-256 (hex) of the file it was converted from; "none" when it was fitted
    sha256: str = UNKNOWN  # of the centroids' bytes, float32, little endian
    made_by: str = UNKNOWN

    def must_match(self) -> dict[str, str]:
        """What decides whether a codebook belongs to features, by its field; without what is not known."""
        decisive = ("encoder", "layer", "final_layer_norm", "normalisation")
        return {name: value for name in decisive if (value := getattr(self, name)) != UNKNOWN}


def codebook_bytes(centroids: NDArray[np.float32], card: Card) -> bytes:
    """A codebook file: safetensors with `centroids` [K, D] and the card, its `sha256` filled in.

    Equal arguments give equal bytes; the library's own writer puts metadata in a random order.
    """
    data = np.ascontiguousarray(centroids, "<f4").tobytes()
    told = {**asdict(card), "sha256": hashlib.sha256(data).hexdigest()}
    tensor = {"dtype": "F32", "shape": list(centroids.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {MARK: FORMAT, **told}, "centroids": tensor}, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def read_card(path: Path) -> Card | None:
    """The card of a codebook file; None when it has none. UserError for a file that is no safetensors.

    Fields that this version does not know are left aside.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as fault:
        raise UserError(f"codebook {path} cannot be read: {fault}") from None
    if MARK not in metadata:
        return None
    return Card(**{field.name: metadata[field.name] for field in fields(Card) if field.name in metadata})


def refuse_other(path: Path, card: Card, used: Mapping[str, Any]) -> None:
    """UserError naming each field of `card` that is known and not as in `used`, what the encoder at hand gives."""
    told = card.must_match()
    other = [name for name, value in told.items() if name in used and value != str(used[name])]
    if other:
        was = " and ".join(f"{name} = {told[name]}" for name in other)
        now = " and ".join(f"{name} = {used[name]}" for name in other)
        raise UserError(f"codebook {path} was fitted with {was} (its card says), but this run has {now}")
