"""Manifests that are wrong in every way we know of, and what must become of each."""

import gzip
import io
import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conftest import sound
from sounds import encoded, patched

REFUSED = "refused"  # in one line, with exit code 2 and nothing written
Write = Callable[[Path], str]


@dataclass(frozen=True)
class Case:
    """What to write into a folder that holds `good.wav`, and what the manifest's rows must end as.

    `ends`: REFUSED, or for each row None (it has units) or the reason of its error.
    """

    name: str
    write: Write  # returns the manifest's name
    ends: str | list[str | None]


def lines(*rows: Any, name: str = "m.jsonl") -> Write:
    """JSON values, strings and bytes as they are, a line each."""

    def write(folder: Path) -> str:
        raw = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (folder / name).write_bytes(b"".join(row + b"\n" for row in raw))
        return name

    return write


def content(name: str, data: bytes) -> Write:
    """A manifest of these bytes."""

    def write(folder: Path) -> str:
        (folder / name).write_bytes(data)
        return name

    return write


def beside(write: Write, **files: bytes) -> Write:
    """A manifest, and files beside it: `a_wav` is a.wav."""

    def both(folder: Path) -> str:
        for name, data in files.items():
            (folder / name.replace("_", ".")).write_bytes(data)
        return write(folder)

    return both


def parquet(table: pa.Table, damage: Callable[[bytes], bytes] = bytes) -> Write:
    """A Parquet manifest, damaged."""
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return content("m.parquet", damage(stream.getvalue()))


GOOD: dict[str, Any] = {"audio": "good.wav"}
WAV = encoded(sound(1.0, 0), 16_000, "WAV")
FLAC = encoded(sound(1.0, 0), 16_000, "FLAC")
AUDIO = pa.array([{"bytes": WAV, "path": "x.wav"}])


def row(reason: str | None, name: str, **fields: Any) -> Case:
    """One bad row beside a good one, which must not suffer."""
    return Case(name, lines({"id": "bad", **fields}, {"id": "good", **GOOD}), [reason, None])


def audio(reason: str | None, name: str, data: bytes) -> Case:
    """A row whose file has these bytes, whatever it is called."""
    write = lines({"id": "bad", "audio": "bad.wav"}, {"id": "good", **GOOD})
    return Case(name, beside(write, bad_wav=data), [reason, None])


def wav(samples: int, **header: int) -> bytes:
    """A WAV of 16-bit silence with fields of its header set: `channels`, `rate`, `bits`, `tag`, `data`."""
    at = {"tag": (20, "<H"), "channels": (22, "<H"), "rate": (24, "<I"), "align": (32, "<H"), "bits": (34, "<H")}
    data = encoded(np.zeros(samples), 16_000, "WAV")
    for name, value in header.items():
        data = patched(data, *(at | {"data": (40, "<I"), "riff": (4, "<I")})[name], value)
    return data


def flac_declaring(samples: int) -> bytes:
    """A second of FLAC whose header declares as many."""
    data = bytearray(FLAC)
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(data)


def _refused() -> Iterable[Case]:
    def case(name: str, write: Write) -> Case:
        return Case(name, write, REFUSED)

    yield case("no bytes", content("m.jsonl", b""))
    yield case("blank lines", content("m.jsonl", b"\n\n \n"))
    yield case("a byte order mark and nothing", content("m.jsonl", b"\xef\xbb\xbf"))
    yield case("no column for audio", lines({"text": "x"}, {"words": "y"}))
    yield case("the same id twice", lines({"id": "x", **GOOD}, {"id": "x", **GOOD}))
    yield case("ids that are one in NFC", lines({"id": "e\u0301", **GOOD}, {"id": "\u00e9", **GOOD}))
    yield case("the same file twice without ids", lines(GOOD, GOOD))
    yield case("CSV of a header alone", content("m.csv", b"audio,text\n"))
    yield case("CSV without a column for audio", content("m.csv", b"a,b\n1,2\n"))
    yield case("TSV of one column", content("m.tsv", b"x\ny\n"))
    yield case("an empty CSV", content("m.csv", b""))
    yield case("gzip that breaks off", content("m.jsonl", gzip.compress(b'{"audio": "good.wav"}\n' * 999)[:60]))
    yield case(
        "gzip with a wrong checksum", content("m.jsonl", gzip.compress(b'{"audio": "good.wav"}\n')[:-8] + bytes(8))
    )
    yield case("an empty Parquet file", content("m.parquet", b""))
    yield case("no Parquet", content("m.parquet", b"PAR1 or so"))
    table = pa.table({"audio": ["good.wav"]})
    yield case("Parquet without its footer", parquet(table, lambda data: data[:-20]))
    yield case("Parquet with a footer of nonsense", parquet(table, lambda data: data[:-60] + bytes(52) + data[-8:]))
    yield case(
        "Parquet whose footer is said to be huge", parquet(table, lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1")
    )
    yield case("Parquet without a row", parquet(table.slice(0, 0)))
    yield case("Parquet without a column for audio", parquet(pa.table({"x": [1]})))
    yield case("gzip of which only the first bytes are right", content("m.jsonl", b"\x1f\x8b\x08" + bytes(99)))
    yield case("a packed tar", content("m.tar", gzip.compress(bytes(10_240))))
    yield case("a tar of nothing", content("m.tar", bytes(10_240)))
    yield case("a manifest that is audio", content("m.jsonl", WAV))
    yield case("UTF-16", content("m.jsonl", '{"audio": "good.wav"}\n'.encode("utf-16")))
    yield case("a kind nobody knows", content("m.xml", b"<audio/>"))
    yield case("a wav.scp of pipes", lambda folder: content("wav.scp", b"x sox a.wav - |\n")(folder) and ".")


def _rows() -> Iterable[Case]:
    bad, unread = "bad_manifest_row", "unreadable"
    yield row(bad, "no audio", text="x")
    yield row(bad, "audio is null", audio=None)
    yield row(bad, "audio is empty", audio="")
    yield row(bad, "audio is a list", audio=["good.wav"])
    yield row("missing", "audio is a number", audio=7)
    yield row(bad, "a NUL in the path", audio="good.wav\0.txt")
    yield row(bad, "a URL with a password", audio="s3://user:secret@bucket/a.wav")
    yield row(bad, "a URL that nobody speaks", audio="gopher://x/a.wav")
    yield row("missing", "a chain of file systems", audio="simplecache::file:///etc/passwd")
    yield row(bad, "a chain of file systems that begins as a URL", audio="file://x::s3://y/a.wav")
    yield row("missing", "a file that is not there", audio="nowhere.wav")
    yield row("missing", "a path of 10,000 characters", audio="x" * 10_000)
    yield row("missing", "a folder", audio="..")
    yield row("missing", "below a file", audio="good.wav/x.wav")
    yield row(bad, "a lone surrogate", audio="\ud800.wav")
    yield row("empty", "a device", audio="/dev/zero")
    yield row(unread, "the machine's passwords", audio="/etc/passwd")
    yield row(unread, "the manifest itself", audio="m.jsonl")
    for name, value in (("NaN", float("nan")), ("infinity", float("inf")), ("-1", -1), ("1e300", 1e300), ("text", "x")):
        yield row(bad, f"a duration of {name}", **GOOD, duration=value)
    yield row(bad, "a start of true", **GOOD, start=True)
    yield row(bad, "it ends before it starts", **GOOD, start=1, end=0.5)
    yield row("truncated", "a duration that is too long", **GOOD, duration=3)
    yield row("changed_since_plan", "a duration that is too short", **GOOD, duration=0.1)
    yield row("truncated", "a piece beyond the end", **GOOD, start=5, end=6)
    yield row("too_long", "a piece of four months", **GOOD, start=0, end=9e6)
    yield row("empty", "a piece of a microsecond", **GOOD, start=0.5, end=0.500001)
    yield Case("no JSON", lines(b"{", {"id": "good", **GOOD}), [bad, None])
    yield Case("JSON of a number", lines(7, {"id": "good", **GOOD}), [bad, None])
    yield Case("10,000 brackets", lines(b"[" * 10_000, {"id": "good", **GOOD}), [bad, None])
    yield Case(
        "a number of 10,000 digits", lines(b'{"id": ' + b"9" * 10_000 + b"}", {"id": "good", **GOOD}), [bad, None]
    )
    yield Case("bytes that are no UTF-8", lines(b'{"audio": "\xff\xfe.wav"}', {"id": "good", **GOOD}), [bad, None])
    yield Case("an id of 10,000 characters", lines({"id": "x" * 10_000, **GOOD}, {"id": "good", **GOOD}), [bad, None])
    yield Case("a line feed in an id", lines({"id": "a\nb", **GOOD}, {"id": "good", **GOOD}), [bad, None])
    yield Case("a line of 15 MB", lines({"id": "x", "text": "x" * 15_000_000, **GOOD}), [None])
    yield Case("a line of 20 MB", lines({"id": "x", "text": "x" * 20_000_000, **GOOD}), REFUSED)
    yield Case("a key that comes twice", lines(b'{"id": "x", "audio": "nowhere.wav", "audio": "good.wav"}'), [None])
    yield Case(
        "CSV with more cells than columns", content("m.csv", b"id,audio\nbad,good.wav,x\ngood,good.wav\n"), [bad, None]
    )
    yield Case(
        "CSV with a quote that never ends",
        content("m.csv", b'id,audio\ngood,good.wav\nbad,"good.wav\n'),
        [None, "missing"],
    )


def _tars() -> Iterable[Case]:
    yield Case("a tar called JSONL", content("m.jsonl", bytes(257) + b"ustar" + bytes(250)), ["bad_manifest_row"])
    yield Case("a tar that is none", content("m.tar", b"x" * 10_240), ["bad_manifest_row"])


def _files() -> Iterable[Case]:
    yield audio("empty", "no bytes at all", b"")
    yield audio("unreadable", "zero bytes, 1,000 of them", bytes(1000))
    yield audio("unreadable", "a web page", b"<!DOCTYPE html><html>")
    yield audio("unreadable", "a playlist of other files", b"#EXTM3U\nfile:///etc/passwd\n")
    yield audio("unreadable", "an AIFF", encoded(sound(1.0, 0), 16_000, "AIFF"))
    yield audio(None, "a FLAC called WAV", FLAC)
    yield audio(None, "an MP3 called WAV", encoded(sound(1.0, 0), 16_000, "MP3"))
    yield audio("empty", "a header and nothing", wav(0))
    yield audio("silent", "silence", wav(16_000))
    yield audio("too_short", "20 ms", encoded(sound(0.02, 0), 16_000, "WAV"))
    yield audio("too_long", "300 s", encoded(np.zeros(300 * 16_000), 16_000, "FLAC"))
    yield audio("too_large", "1,024 channels", encoded(np.zeros((100, 1024)), 16_000, "WAV"))
    yield audio("truncated", "no channel", wav(16_000, channels=0))
    yield audio("unreadable", "0 Hz", wav(16_000, rate=0))
    yield audio("too_large", "1 Hz", wav(16_000, rate=1))
    yield audio("too_large", "2,147,483,647 Hz", wav(16_000, rate=2**31 - 1))
    yield audio("truncated", "a header that declares 1 GB", wav(16_000, data=1 << 30))
    yield audio("unreadable", "an encoding that is not read", wav(16_000, tag=0x11))
    yield audio("truncated", "half a FLAC", FLAC[: len(FLAC) // 2])
    yield audio("truncated", "a FLAC that declares 2^36 - 1 samples", flac_declaring(2**36 - 1))
    yield audio("truncated", "a FLAC that declares one more", flac_declaring(16_001))
    yield audio("not_finite", "NaN", encoded(np.full(16_000, np.nan), 16_000, "WAV", "FLOAT"))
    yield audio("not_finite", "infinity", encoded(np.full(16_000, np.inf), 16_000, "WAV", "FLOAT"))
    yield audio("unreadable", "values of 1e30", encoded(np.full(16_000, 1e30), 16_000, "WAV", "FLOAT"))
    yield Case(
        "Parquet with a row of null",
        parquet(pa.table({"id": ["a", "b"], "audio": pa.array([None, AUDIO[0].as_py()])})),
        ["missing", None],
    )
    yield Case(
        "Parquet with a row of nonsense",
        parquet(pa.table({"id": ["a", "b"], "audio": [b"nonsense", WAV]})),
        ["unreadable", None],
    )


CASES = [*_refused(), *_rows(), *_tars(), *_files()]
