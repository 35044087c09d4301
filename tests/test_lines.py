"""Manifests that gzip packed small and that hold a line without end: refused by one line, in bounded memory."""

import gzip
import io
import tracemalloc
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from spire_ray import gigaspeech, manifest
from spire_ray.errors import UserError
from spire_ray.lines import MAX_BYTES, lines

MEBIBYTE = 1 << 20
PEAK_BYTES = 128 << 20


def packed(head: bytes, again: bytes) -> bytes:
    """`head`, then `again` until 8 GiB: gzip reads its files one after the other where they are joined."""
    block = (again * (MEBIBYTE // len(again) + 1))[: MEBIBYTE // len(again) * len(again)]
    return gzip.compress(head) + gzip.compress(block) * 8192


GOOD = b'{"audio": "a.wav", "duration": 1}\n'
BOMBS = {
    "one.jsonl.gz": (packed(b'{"audio": "', b"a"), 1),
    "third.jsonl.gz": (packed(GOOD * 2, b" "), 3),
    "zeros.json.gz": (packed(b"{", b"\0"), 1),
    "brackets.json.gz": (packed(b'{"audio": ', b"[[],"), 1),
    "header.csv.gz": (packed(b"audio,", b"b,"), 1),
    "line.tsv.gz": (packed(b"audio\ttext\na.wav\t", b"b"), 2),
    "quote.csv.gz": (packed(b'audio,text\na.wav,"', b"b" * 9999 + b"\n"), None),
    "quotes.csv.gz": (packed(b'audio,text\na.wav,"', b"b" * 9999 + b'\n","'), None),
    "words.csv.gz": (packed(b"audio|text\na.wav|", b"b"), 2),
    "GigaSpeech.json.gz": (packed(b'{"audios": [{"aid": "', b"a"), None),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_line_without_end_is_refused(name: str, tmp_path: Path) -> None:
    data, line = BOMBS[name]
    assert len(data) < 16 * MEBIBYTE
    (tmp_path / name).write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as told:
            read(str(tmp_path / name))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (said,) = str(told.value).splitlines()
    assert said.startswith(str(tmp_path / name))
    assert "over 16 MiB" in said
    assert line is None or f": line {line} " in said
    assert peak < PEAK_BYTES
    print(f"{name}: {len(data) >> 20} MiB, peak {peak >> 20} MiB")


def read(path: str) -> None:
    fs = LocalFileSystem()
    if (kind := manifest.kind_of(fs, path)) == "gigaspeech":
        for _ in gigaspeech.records(fs, path):
            pass
        return
    with manifest.opened(fs, path) as file:
        for _ in manifest.records(file, kind):
            pass


@pytest.mark.parametrize("size", [1, 7, MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, 3 * MEBIBYTE])
def test_lines_are_those_that_python_reads(size: int) -> None:
    text = b"\n".join([b"a" * size, b"", b"b\r", b"c" * (size + 1)])
    for data in (text, text + b"\n", b"\n" + text, b"", b"\n"):
        assert list(lines(io.BytesIO(data))) == [line.removesuffix(b"\n") for line in io.BytesIO(data)]


def test_a_long_line_is_no_bomb() -> None:
    data = b"a" * (MAX_BYTES - MEBIBYTE)
    assert list(lines(io.BytesIO(data + b"\n" + data))) == [data, data]
