"""Stands for `spire_ray.decoder` with a decoder that breaks: a file that ends in one of DEEDS makes it do that."""

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from spire_ray import audio, decoder, decoders, stream
from spire_ray.decoders import Decoders


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def spin() -> None:
    while True:
        pass


def eat() -> None:
    held = []
    while True:
        held.append(np.ones(1 << 23))


def claim() -> None:
    np.empty(3 << 30, np.uint8)  # never touched, so that it costs the machine nothing


def rave() -> None:
    """Answers as a process may whose memory was overwritten."""
    os.write(0, b'{"sounds": [1e999, "reason"')


def boast() -> None:
    os.write(0, b'{"sounds": [1000000000000000], "more": false}')


def invent() -> None:
    os.write(0, b'{"sounds": [["ok", 1]], "more": false}')


def leave() -> None:
    os._exit(0)


def raise_something() -> None:
    raise RuntimeError("as soxr does when it has no memory")


DEEDS: dict[bytes, Callable[[], None]] = {
    f"<{deed.__name__}>".encode(): deed
    for deed in (crash, hang, spin, eat, claim, rave, boast, invent, leave, raise_something)
}


def main(cpu_seconds: int) -> None:
    """The child's own main, with a decoder that breaks."""
    decoder.CPU_SECONDS = cpu_seconds
    for module, name in ((audio, "decode"), (stream, "blocks")):
        setattr(module, name, breaking(getattr(module, name)))
    decoder.main()


def breaking(read: Callable[..., Any]) -> Callable[..., Any]:
    """`read`, unless the file says otherwise."""

    def reading(descriptor: int, *given: Any, **named: Any) -> Any:
        end = os.pread(descriptor, 100, max(0, os.fstat(descriptor).st_size - 30))
        for word, deed in DEEDS.items():
            if end.endswith(word):
                deed()
        return read(descriptor, *given, **named)

    return reading


def breaking_decoders(monkeypatch: Any, size: int, wall_seconds: float, cpu_seconds: int) -> Decoders:
    """Decoders of this kind, for readers made from here on too."""
    child = (
        "import sys, os; sys.path[:] = sys.argv[1:]; import crashing_decoder, spire_ray.decoder as decoder\n"
        f"try: crashing_decoder.main({cpu_seconds})\n"
        "except MemoryError: os._exit(decoder.OUT_OF_MEMORY)"
    )
    monkeypatch.setattr(decoders, "_CHILD", child)
    monkeypatch.setattr(decoders, "WALL_SECONDS", wall_seconds)
    made = Decoders(size)
    monkeypatch.setattr(decoders, "shared", lambda: made)
    return made


def counted_starts(monkeypatch: Any) -> list[object]:
    """Grows by one whenever a child is started."""
    started: list[object] = []
    start = decoders._Child._start

    def counting(child: Any) -> None:
        started.append(child)
        start(child)

    monkeypatch.setattr(decoders._Child, "_start", counting)
    return started
