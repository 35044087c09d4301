"""The encoder over a whole shard: for units and for the fit of a codebook alike, so that both see the same features."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from spire_ray.errors import MachineFault, UserError
from spire_ray.hubert import Encoder, micro_batches

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Seconds of audio per micro-batch. Two CPU cores: 30 s was 4 to 12 % faster than 10 s. H100: 400 s holds 98 % of what
# 800 s gives in half the memory.
BUDGET_S = {"cpu": 30.0, "cuda": 400.0}

# Called with the indices of some waveforms, their features one after another [sum of T_i, D], their lengths T_i, and
# the dtype that the encoder's products had.
Use: TypeAlias = Callable[[Sequence[int], torch.Tensor, list[int], torch.dtype], None]


class _NotFinite(Exception):
    """Half precision overflowed."""


class ShardEncoder:
    """Micro-batches within a budget that is halved when memory runs out; float32 where half precision overflows.

    `budget_s`: seconds of audio per micro-batch, below what was asked for once memory ran out. `device`: a lock that
    one shard holds while the host packs and unpacks another.
    """

    def __init__(
        self,
        folder: Path,
        layer: int,
        device: str | None = None,
        dtype: str = "float32",
        budget_s: float | None = None,
    ) -> None:
        """Loads the encoder on `device` (default: CUDA where there is one). UserError as Encoder, or for the dtype.

        budget_s: by default what suits the device; rounding may depend on it in half precision.
        """
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if torch.cuda.is_available():
            torch.backends.cudnn.allow_tf32 = False  # it is on by default, for convolutions only
        self.encoder = Encoder(folder, layer, device, DTYPES[dtype])
        self.folder, self.layer = folder, layer
        self.budget_s = budget_s or BUDGET_S[self.encoder.device.type]
        self.device = threading.Lock()
        self._loading = threading.Lock()
        self._exact: Encoder | None = None

    @property
    def exact(self) -> Encoder:
        """The same encoder in float32: for the parity gate, and for shards that overflow in half precision."""
        if self.encoder.dtype == torch.float32:
            return self.encoder
        with self._loading:  # once, for whichever of two shards wants it first
            if self._exact is None:
                self._exact = Encoder(self.folder, self.layer, str(self.encoder.device))
            return self._exact

    def encode(self, waveforms: Sequence[NDArray[np.int16]], use: Use) -> bool:
        """Give the features of every waveform [n_i] to `use`, a micro-batch at a time; whether float32 was needed.

        Where any feature of the shard overflows, `use` is called for all of them again. MachineFault when they are not
        finite in float32.
        """
        try:
            self._encode_all(self.encoder, waveforms, use)
        except _NotFinite:
            if self.encoder.dtype == torch.float32:
                raise MachineFault("the encoder's features are not finite in float32: are its weights whole?") from None
        else:
            return False
        self._encode_all(self.exact, waveforms, use)
        return True

    def _encode_all(self, encoder: Encoder, waveforms: Sequence[NDArray[np.int16]], use: Use) -> None:
        lengths = [len(waveform) for waveform in waveforms]
        budget_s = self.budget_s
        groups = micro_batches(lengths, budget_s)
        while groups:
            try:
                self._encode(encoder, waveforms, groups[0], use)
                groups.pop(0)
                continue
            except torch.OutOfMemoryError:
                if len(groups[0]) == 1:
                    raise
            # Outside the handler: while it runs, the exception keeps the tensors of the failed call alive.
            torch.cuda.empty_cache()
            # Once for two shards that were too large together: the other may have halved it already.
            self.budget_s = budget_s = min(self.budget_s, budget_s / 2)
            rest = [index for group in groups for index in group]
            again = micro_batches([lengths[index] for index in rest], budget_s)
            groups = [[rest[position] for position in group] for group in again]

    def _encode(self, encoder: Encoder, waveforms: Sequence[NDArray[np.int16]], group: list[int], use: Use) -> None:
        packed = encoder.pack([waveforms[index] for index in group])
        with self.device:
            together = torch.cat(encoder.encode(packed))
            # fp16 may overflow where the weights have outlier channels, and the argmin of NaN is a unit like any other.
            if not torch.isfinite(together).all():
                raise _NotFinite
            use(group, together, packed.lengths, encoder.dtype)
