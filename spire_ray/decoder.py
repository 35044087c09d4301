"""The child process in which audio is decoded: what libsndfile makes of a hostile file ends here.

Standard input is a socket of messages in JSON, with a descriptor of the files beside each request; standard output is
a memory file that takes the samples. The process ends when the parent's end of the socket is closed: at its death too.
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

from spire_ray import audio, stream
from spire_ray.errors import RowFault

MEMORY_BYTES = 2000 << 20  # beyond what it starts with, 2 GiB in all; ten minutes at 384 kHz take 1.8; not mapped files
CPU_SECONDS = 60  # for a file, or for a block of a recording
MESSAGE_BYTES = 64 << 10
MAX_DETAIL_CHARS = 300
ENOUGH_BYTES = 16 << 20  # of samples: an answer without the files that would follow
OUT_OF_MEMORY = 77  # its exit code
NEXT = b"next"


def main() -> None:
    """Answers requests until there are no more."""
    _limit_memory()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 remarks on every damaged frame
    with socket.socket(fileno=0) as parent:
        parent.send(b"{}")  # ready
        alone = os.memfd_create("sound")
        while _answer(parent, alone):
            pass


def _answer(parent: socket.socket, alone: int) -> bool:
    """Answers one request. False when the parent is gone. `alone`: a descriptor for files that lie among others."""
    message, descriptors, _, _ = socket.recv_fds(parent, MESSAGE_BYTES, 1)
    if not message:
        return False
    places, max_seconds = json.loads(message)
    try:
        if max_seconds is not None:
            answers = iter([{"sounds": _sounds(descriptors[0], alone, places, max_seconds), "more": False}])
        else:
            answers = _blocks(descriptors[0], *places[0][2:])
        for answer in answers:
            parent.send(json.dumps(answer).encode())
            if answer["more"] and parent.recv(MESSAGE_BYTES) != NEXT:
                return False
    finally:
        os.close(descriptors[0])
    return True


def _sounds(descriptor: int, alone: int, places: list[Any], max_seconds: float) -> list[Any]:
    """How many bytes of samples each file gave, or the reason and the detail of its fault; of the first files."""
    found: list[Any] = []
    written = 0
    for first, size, start_s, end_s in places:
        _limit_cpu()
        try:
            file = _alone(descriptor, alone, first, size)
            samples = audio.decode(file, start_s=start_s, end_s=end_s, max_seconds=max_seconds)
            os.pwrite(1, samples.data, written)
            written += samples.nbytes
            found.append(samples.nbytes)
        except RowFault as fault:
            found.append([fault.reason, fault.detail[:MAX_DETAIL_CHARS]])
        if written >= ENOUGH_BYTES:
            break
    os.ftruncate(alone, 0)  # it may have held 2 GiB
    return found


def _alone(descriptor: int, alone: int, first: int, size: int) -> int:
    """A descriptor of a file by itself, as a decoder reads to the end: `alone`, where others lie beside it."""
    if (first, size) == (0, os.fstat(descriptor).st_size):
        return descriptor
    os.ftruncate(alone, size)
    os.lseek(alone, 0, os.SEEK_SET)
    copied = 0
    while copied < size and (part := os.sendfile(alone, descriptor, first + copied, size - copied)):
        copied += part
    return alone


def _blocks(descriptor: int, start_s: float | None, end_s: float | None) -> Iterator[dict[str, Any]]:
    """The answers for a recording: its blocks one by one."""
    _limit_cpu()
    try:
        for block in stream.blocks(descriptor, start_s, end_s):
            os.pwrite(1, np.ascontiguousarray(block).data, 0)
            yield {"sounds": [block.nbytes], "more": True}
            _limit_cpu()
        yield {"sounds": [0], "more": False}
    except RowFault as fault:
        yield {"sounds": [[fault.reason, fault.detail[:MAX_DETAIL_CHARS]]], "more": False}


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
