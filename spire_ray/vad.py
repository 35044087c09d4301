"""Silero VAD 6 (MIT licence, from the package silero-vad) in ONNX Runtime: the probability of speech in each 32 ms.

The package's "sequence" export takes a block of frames and the LSTM's state in one call; its values are those of the
streaming model that goes frame by frame (https://github.com/snakers4/silero-vad).
"""

import os
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # 1.32 keeps what each session does, to be sent to its makers
import onnxruntime

FRAME = 512  # samples at 16 kHz: 32 ms
_CONTEXT = 64  # samples of the frame before
_STATE = (1, 1, 128)


class Vad:
    """One stream of sound at a time; `reset` begins another. On one CPU thread."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        # Not by importlib.resources: that imports the package, and torch with it.
        path = metadata.distribution("silero-vad").locate_file("silero_vad/data/silero_vad_16k_sequence.onnx")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self.hidden = self.cell = np.zeros(_STATE, np.float32)
        self.context = np.zeros(_CONTEXT, np.float32)

    def probabilities(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of speech, [n], in consecutive `frames` [n, 512] at 16 kHz, full scale 1.0, which follow those of before."""
        if not len(frames):
            return np.empty(0, np.float32)
        contexts = np.concatenate([self.context[None], frames[:-1, -_CONTEXT:]])
        values, self.hidden, self.cell = self.session.run(
            ["speech_probs", "hn", "cn"],
            {"input": np.concatenate([contexts, frames], axis=1), "h": self.hidden, "c": self.cell},
        )
        self.context = frames[-1, -_CONTEXT:].copy()
        return np.asarray(values, np.float32).reshape(-1)
