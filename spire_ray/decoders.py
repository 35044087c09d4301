"""Decoding in child processes: a file that makes the decoder crash, hang or eat memory costs one row.

The children decode one file after the other for as long as this process lives; one that dies is replaced. Files go
to them by descriptor and samples come back through a memory file: two copies, and two messages for up to FILES of them.
"""

import functools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spire_ray import audio, decoder
from spire_ray.errors import MachineFault, RowFault
from spire_ray.tables import REASONS

MOST = 4  # or as many as there are cores
FILES = 16  # in a message: one by one, messages and the threads that wait for them cost a third of the decoding
ATTEMPTS = 2  # at a file whose decoder dies: its first death may have been the machine's
WALL_SECONDS = 120.0  # for a file, or a block of a recording: a decoder that only waits uses none of its CPU_SECONDS
START_SECONDS = 120.0  # 0.4 on an idle machine
MAX_ANSWER_BYTES = 64 << 20  # 600 s at 16 kHz are 19 MB
# It finds what this process can import, and nothing of its environment, such as credentials.
_CHILD = "import sys, runpy; sys.path[:] = sys.argv[1:]; runpy.run_module('spire_ray.decoder', None, '__main__')"
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Place(NamedTuple):
    """A file among others, in bytes, and the interval of it that is wanted, in seconds."""

    first: int
    size: int
    start_s: float | None = None
    end_s: float | None = None


class Decoders:
    """Up to `size` children, each started when it is needed. Threads share them."""

    def __init__(self, size: int) -> None:
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(_Child())

    def decode(
        self, data: bytes | BinaryIO, places: Sequence[Place], max_seconds: float
    ) -> Iterator[NDArray[np.int16] | RowFault]:
        """`audio.decode` of each file in `data`, or the reason why not: also decoder_crash and decoder_timeout."""
        done = 0
        while done < len(places):
            for sound in self._attempt(data, places[done : done + FILES], max_seconds, ATTEMPTS):
                yield sound
                done += 1

    def _attempt(
        self, data: bytes | BinaryIO, places: Sequence[Place], max_seconds: float, attempts: int
    ) -> list[NDArray[np.int16] | RowFault]:
        """The first of them, or more. At a death each is done again alone, the one that was to blame among them."""
        with _descriptor(data, places) as (file, there):
            try:
                with self._child() as child:
                    child.ask(file, there, max_seconds)
                    sounds = child.answer(np.int16, len(there))[0]
                    if all(_possible(sound, max_seconds) for sound in sounds):
                        return sounds
                    child.end()
                    raise RowFault("decoder_crash", "the decoder gave a sound of no possible length")
            except RowFault as death:
                if len(places) == 1 and (death.reason != "decoder_crash" or attempts == 1):
                    return [death]
        return [sound for place in places for sound in self._attempt(data, [place], max_seconds, attempts - 1)]

    def blocks(self, path: Path, start_s: float | None, end_s: float | None) -> Iterator[NDArray[np.float32]]:
        """`stream.blocks` of a local file. RowFault also decoder_crash and decoder_timeout, in one attempt."""
        with path.open("rb") as file, self._child() as child:
            child.ask(file.fileno(), [Place(0, os.fstat(file.fileno()).st_size, start_s, end_s)], None)
            while True:
                (block,), more = child.answer(np.float32, 1)
                if isinstance(block, RowFault):
                    raise block
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
def _descriptor(data: bytes | BinaryIO, places: Sequence[Place]) -> Iterator[tuple[int, Sequence[Place]]]:
    """An open file that holds `places` of `data`, and where in it they lie."""
    if not isinstance(data, bytes):
        yield data.fileno(), places
        return
    first = min(place.first for place in places)
    with open(os.memfd_create("audio"), "wb") as file:
        file.write(memoryview(data)[first : max(place.first + place.size for place in places)])
        file.flush()
        yield file.fileno(), [place._replace(first=place.first - first) for place in places]


def _possible(sound: NDArray[np.int16] | RowFault, max_seconds: float) -> bool:
    """Whether it can be what a decoder in its right mind gives: a file may have overwritten the child's memory."""
    if isinstance(sound, RowFault):
        return True
    return audio.MIN_SAMPLES <= len(sound) <= (max_seconds + 1) * audio.SAMPLE_RATE


def _fault(reason: str, detail: str) -> RowFault:
    return RowFault(REASONS[REASONS.index(reason)], str(detail))


class _Child:
    """One child process, or the place of one that does not run yet."""

    process: "subprocess.Popen[bytes] | None" = None
    socket: socket.socket
    samples: int  # the memory file that it writes and this process reads

    def ask(self, descriptor: int, places: Sequence[Place], max_seconds: float | None) -> None:
        """For files. MachineFault when the child cannot be started."""
        if self.process is None:
            self._start()
        try:
            socket.send_fds(self.socket, [json.dumps([places, max_seconds]).encode()], [descriptor])
        except OSError:
            raise self._death() from None

    def ask_more(self) -> None:
        """For the next block of that file."""
        try:
            self.socket.send(decoder.NEXT)
        except OSError:
            raise self._death() from None

    def answer(self, dtype: DTypeLike, asked: int) -> tuple[list[NDArray[Any] | RowFault], bool]:
        """The samples of the first files or of all, and whether another block follows. RowFault: what became of it.

        A file may have overwritten the child's memory, so that its answer is anything: it is checked.
        """
        try:
            answer = json.loads(self.socket.recv(decoder.MESSAGE_BYTES))
            faults = [None if isinstance(one, int) else _fault(*one) for one in answer["sounds"]]
            sizes = [one if isinstance(one, int) else 0 for one in answer["sounds"]]
            samples = np.empty(min(sum(sizes), MAX_ANSWER_BYTES) // np.dtype(dtype).itemsize, dtype)
            if len(sizes) > asked or min(sizes) < 0 or os.preadv(self.samples, [samples.data], 0) != sum(sizes):
                raise ValueError(answer)
            parts = np.split(samples, np.cumsum(sizes)[:-1] // samples.itemsize)
            return [fault or part for fault, part in zip(faults, parts, strict=True)], bool(answer["more"])
        except TimeoutError:
            self.end()
            raise RowFault("decoder_timeout", f"the decoder did not answer for {WALL_SECONDS:g} s") from None
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise self._death() from None

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
