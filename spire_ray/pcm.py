"""Sound as it lies in the columns between reading and encoding. Without torch, which readers do not load."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def pcm_views(pcm: pa.LargeBinaryArray) -> list[NDArray[np.int16] | None]:
    """Little-endian int16 samples [n_i] of each value, or None where it is null: views of Arrow's memory, no copies."""
    _, offsets, data = pcm.buffers()
    if len(pcm) == 0:
        return []
    bounds = np.frombuffer(offsets, np.int64)[pcm.offset : pcm.offset + len(pcm) + 1]
    samples = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    valid = pcm.is_valid().to_pylist()
    return [samples[bounds[i] : bounds[i + 1]].view("<i2") if ok else None for i, ok in enumerate(valid)]
