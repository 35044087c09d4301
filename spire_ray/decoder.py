"""The child process in which audio is decoded: what libsndfile makes of a hostile file ends here.

Standard input is a socket of messages in JSON, with the file's descriptor beside each request; standard output is a
memory file that takes the samples. The process ends when the parent's end of the socket is closed: at its death too.
"""

import json
import math
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spire_ray import audio, stream
from spire_ray.errors import RowFault

MEMORY_BYTES = 2000 << 20  # beyond what it starts with, 2 GiB in all; ten minutes at 384 kHz take 1.8; not mapped files
CPU_SECONDS = 60  # for a file, or for a block of a recording
MESSAGE_BYTES = 8192
MAX_DETAIL_CHARS = 1000
OUT_OF_MEMORY = 77  # its exit code
NEXT = b"next"


def main() -> None:
    """Answers requests until there are no more."""
    _limit_memory()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 remarks on every damaged frame
    with socket.socket(fileno=0) as parent:
        parent.send(b"{}")  # ready
        while _answer(parent):
            pass


def _answer(parent: socket.socket) -> bool:
    """Answers one request. False when the parent is gone."""
    message, descriptors, _, _ = socket.recv_fds(parent, MESSAGE_BYTES, 1)
    if not message:
        return False
    try:
        for answer in _answers(descriptors[0], **json.loads(message)):
            parent.send(json.dumps(answer).encode())
            if answer.get("more") and parent.recv(MESSAGE_BYTES) != NEXT:
                return False
    finally:
        os.close(descriptors[0])
    return True


def _answers(
    descriptor: int, start_s: float | None, end_s: float | None, max_seconds: float | None
) -> Iterator[dict[str, Any]]:
    """The `bytes` that were written, with `more` when another block follows; or a `reason` with its `detail`.

    `max_seconds`: of an utterance; None for a recording, which is answered in blocks.
    """
    _limit_cpu()
    try:
        if max_seconds is not None:
            yield _written(audio.decode(descriptor, start_s=start_s, end_s=end_s, max_seconds=max_seconds))
            return
        for block in stream.blocks(descriptor, start_s, end_s):
            yield _written(block) | {"more": True}
            _limit_cpu()
        yield {"bytes": 0}
    except RowFault as fault:
        yield {"reason": fault.reason, "detail": fault.detail[:MAX_DETAIL_CHARS]}


def _written(samples: NDArray[Any]) -> dict[str, Any]:
    os.pwrite(1, np.ascontiguousarray(samples).data, 0)
    return {"bytes": samples.nbytes}


def _limit_memory() -> None:
    # RLIMIT_DATA counts what is allocated, in whatever way; RLIMIT_AS would count the mapped audio file as well.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = int(status["VmData"].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + CPU_SECONDS, most))


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
