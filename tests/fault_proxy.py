"""An S3 server's weather: a reverse proxy before it that answers some requests as a bad day would.

What happens to a request is decided by the seed, the request and how often it was made before, not by when: equal seeds
give equal faults to equal runs, whatever their threads do. Signatures hold, since the client's `Host` is handed on.
"""

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}

_RUN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")  # what a driver calls itself is other each time


@dataclass(frozen=True)
class Weather:
    """The share of requests that meet each fault, 0 to 1; together at most 1."""

    slow_down: float = 0.0  # 503 SlowDown, the request is not done
    internal_error: float = 0.0  # 500, the request is not done
    reset: float = 0.0  # the request is done, the connection ends in the middle of the answer
    truncated: float = 0.0  # the same, politely: fewer bytes than Content-Length says
    flipped: float = 0.0  # one bit of a GET's body is another
    expired: float = 0.0  # 403 ExpiredToken
    slow: float = 0.0  # the body comes in pieces over SLOW_S
    flips: str = ""  # what of the path and range a flip needs: a regular expression

    def fault(self, chance: float) -> str:
        """The fault of a request that has drawn `chance`, "" for none."""
        for one in fields(self):
            if one.name != "flips":
                chance -= getattr(self, one.name)
                if chance < 0:
                    return one.name
        return ""


CLEAR = Weather()
SLOW_S = 2.0


@dataclass(frozen=True)
class Asked:
    """One request, and what was done to it."""

    at: float
    method: str
    target: str  # path, query and range: what makes it another operation
    fault: str


@dataclass
class FaultProxy:
    """Stands at `endpoint`; the weather may change at any time."""

    upstream: tuple[str, int]
    seed: int = 0
    weather: Weather = CLEAR
    endpoint: str = ""
    asked: list[Asked] = field(default_factory=list)
    times: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self, method: str, target: str) -> str:
        """The fault of this request, which is noted."""
        with self.lock:
            operation = _RUN.sub("RUN", f"{method} {target}")
            self.times[operation] += 1
            chance = random.Random(f"{self.seed} {operation} {self.times[operation]}").random()
            fault = self.weather.fault(chance)
            if fault == "flipped" and not (method == "GET" and re.search(self.weather.flips, target)):
                fault = ""
            self.asked.append(Asked(time.monotonic(), method, target, fault))
            return fault

    def forget(self) -> None:
        """As if nothing had been asked yet."""
        with self.lock:
            self.asked.clear()
            self.times.clear()

    def attempts(self) -> Counter[str]:
        """The most attempts that each operation took: faults in a row, and what followed them."""
        most: Counter[str] = Counter()
        row: defaultdict[str, int] = defaultdict(int)
        for one in self.asked:
            operation = f"{one.method} {one.target}"
            row[operation] += 1
            most[operation] = max(most[operation], row[operation])
            if one.fault in ("", "slow"):
                row[operation] = 0
        return most


@contextmanager
def before(endpoint: str, seed: int = 0) -> Iterator[FaultProxy]:
    """A proxy before the server at `endpoint`, with clear weather, until the block ends."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    proxy = FaultProxy((host, int(port)), seed)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.decide(self.command, f"{self.path} {self.headers.get('Range', '')}".strip())
        refusals = {
            "slow_down": (503, "SlowDown", "Please reduce your request rate."),
            "internal_error": (500, "InternalError", "We encountered an internal error. Please try again."),
            "expired": (403, "ExpiredToken", "The provided token has expired."),
        }
        if fault in refusals:
            return self._refuse(*refusals[fault])
        connection = http.client.HTTPConnection(*self.proxy.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = connection.getresponse()
            self._answer(answer, answer.read(), fault)
        finally:
            connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def _refuse(self, status: int, code: str, message: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _answer(self, answer: http.client.HTTPResponse, body: bytes, fault: str) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length or "0")
        if fault in ("reset", "truncated"):
            if half := body[: len(body) // 2]:
                self.end_headers()
                self.wfile.write(half)
            return self._end(reset=fault == "reset")
        self.end_headers()
        if fault == "flipped" and body:
            flipped = bytearray(body)
            bit = random.Random(f"{self.proxy.seed} {self.path} {len(self.proxy.asked)}").randrange(8 * len(body))
            flipped[bit // 8] ^= 1 << bit % 8
            body = bytes(flipped)
        pieces = 20 if fault == "slow" else 1
        size = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            if fault == "slow":
                time.sleep(SLOW_S / pieces)

    def _end(self, reset: bool) -> None:
        """Hang up: with a FIN, or with an RST."""
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # which would hold the socket open
        self.connection.close()
