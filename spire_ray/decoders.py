"""Decoding in child processes: a file that makes the decoder crash, hang or eat memory costs one row.

The children decode one file after the other for as long as this process lives; one that dies is replaced. A file's
descriptor goes to them and samples come back through a memory file: two copies and two messages a file.
"""

import functools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spire_ray import decoder
from spire_ray.errors import MachineFault, RowFault
from spire_ray.tables import REASONS

MOST = 4  # or as many as there are cores
ATTEMPTS = 2  # at a file whose decoder dies: its first death may have been the machine's
WALL_SECONDS = 120.0  # for a file, or a block of a recording: a decoder that only waits uses none of its CPU_SECONDS
START_SECONDS = 120.0  # 0.4 on an idle machine
MAX_ANSWER_BYTES = 64 << 20  # 600 s at 16 kHz are 19 MB
# It finds what this process can import, and nothing of its environment, such as credentials.
_CHILD = "import sys, runpy; sys.path[:] = sys.argv[1:]; runpy.run_module('spire_ray.decoder', None, '__main__')"
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Decoders:
    """Up to `size` children, each started when it is needed. Threads share them."""

    def __init__(self, size: int) -> None:
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(_Child())

    def decode(
        self, data: bytes | BinaryIO, *, start_s: float | None, end_s: float | None, max_seconds: float
    ) -> NDArray[np.int16]:
        """`audio.decode` of a whole file, as bytes or as an open one. RowFault also decoder_crash, decoder_timeout."""
        request = {"start_s": start_s, "end_s": end_s, "max_seconds": max_seconds}
        with _descriptor(data) as file:
            for attempt in range(ATTEMPTS):
                try:
                    with self._child() as child:
                        child.ask(request, file)
                        return child.answer(np.int16)[0]
                except RowFault as fault:
                    if fault.reason != "decoder_crash" or attempt == ATTEMPTS - 1:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def blocks(self, path: Path, start_s: float | None, end_s: float | None) -> Iterator[NDArray[np.float32]]:
        """`stream.blocks` of a local file. RowFault also decoder_crash and decoder_timeout, in one attempt."""
        with path.open("rb") as file, self._child() as child:
            child.ask({"start_s": start_s, "end_s": end_s, "max_seconds": None}, file.fileno())
            while True:
                block, more = child.answer(np.float32)
                if not more:
                    return
                yield block
                child.ask_more()

    @contextmanager
    def _child(self) -> Iterator["_Child"]:
        child = self._idle.get()
        try:
            yield child
        except RowFault:
            raise  # it said why it cannot decode this one, and is ready for another; or it is gone
        except BaseException:
            child.end()  # it may be in the middle of something
            raise
        finally:
            self._idle.put(child)


@functools.cache
def shared() -> Decoders:
    """Those of this process."""
    return Decoders(min(MOST, len(os.sched_getaffinity(0))))


@contextmanager
def _descriptor(data: bytes | BinaryIO) -> Iterator[int]:
    if not isinstance(data, bytes):
        yield data.fileno()
        return
    with open(os.memfd_create("audio"), "wb") as file:
        file.write(data)
        file.flush()
        yield file.fileno()


class _Child:
    """One child process, or the place of one that does not run yet."""

    process: "subprocess.Popen[bytes] | None" = None
    socket: socket.socket
    samples: int  # the memory file that it writes and this process reads

    def ask(self, request: Mapping[str, Any], descriptor: int) -> None:
        """For a file. MachineFault when the child cannot be started."""
        if self.process is None:
            self._start()
        try:
            socket.send_fds(self.socket, [json.dumps(request).encode()], [descriptor])
        except OSError:
            raise self._death() from None

    def ask_more(self) -> None:
        """For the next block of that file."""
        try:
            self.socket.send(decoder.NEXT)
        except OSError:
            raise self._death() from None

    def answer(self, dtype: DTypeLike) -> tuple[NDArray[Any], bool]:
        """The samples, and whether another block follows. RowFault: what the child says, or what became of it.

        A file may have overwritten the child's memory, so that its answer is anything: it is checked.
        """
        try:
            answer = json.loads(self.socket.recv(decoder.MESSAGE_BYTES))
            if "reason" in answer:
                fault = RowFault(REASONS[REASONS.index(answer["reason"])], str(answer["detail"]))
            else:
                samples = np.empty(min(answer["bytes"], MAX_ANSWER_BYTES) // np.dtype(dtype).itemsize, dtype)
                if os.preadv(self.samples, [samples.data], 0) == answer["bytes"]:
                    return samples, bool(answer.get("more"))
                raise ValueError(answer)
        except TimeoutError:
            self.end()
            raise RowFault("decoder_timeout", f"the decoder did not answer for {WALL_SECONDS:g} s") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._death() from None
        raise fault

    def _death(self) -> RowFault:
        code = self.end()
        if code == -signal.SIGXCPU:
            return RowFault("decoder_timeout", f"the decoder computed for {decoder.CPU_SECONDS} s")
        if code == decoder.OUT_OF_MEMORY:
            return RowFault("decoder_crash", f"the decoder wanted over {decoder.MEMORY_BYTES >> 20} MiB")
        return RowFault("decoder_crash", f"the decoder ended: {signal.strsignal(-code) if code < 0 else code}")

    def _start(self) -> None:
        places = [str(Path(decoder.__file__).parents[1]), *filter(None, sys.path)]
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.samples = os.memfd_create("samples")
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _CHILD, *places],
                    stdin=theirs.fileno(),
                    stdout=self.samples,
                    stderr=self.samples,  # until it has started
                    env=_ENVIRONMENT | kept,
                    process_group=0,  # Ctrl-C is for this process, which lets its shards commit
                )
        except OSError as fault:
            self.socket.close()
            os.close(self.samples)
            raise MachineFault(f"no process can be started to decode audio: {fault}") from fault
        self.socket.settimeout(START_SECONDS)
        try:
            ready = self.socket.recv(decoder.MESSAGE_BYTES)
        except OSError:
            ready = b""
        self.socket.settimeout(WALL_SECONDS)
        if not ready:
            lines = os.pread(self.samples, MAX_ANSWER_BYTES, 0).decode(errors="replace").splitlines()
            self.end()
            raise MachineFault(f"the process that decodes audio does not start: {(lines or ['it says nothing'])[-1]}")

    def end(self) -> int:
        """Kill it if it still runs. Its exit code; 0 where there is none."""
        process, self.process = self.process, None
        if process is None:
            return 0
        self.socket.close()
        os.close(self.samples)
        try:
            return process.wait(timeout=1)  # it may be ending: its end of the socket closes before it has an exit code
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
