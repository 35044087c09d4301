"""The lines of a text that others wrote, each of bounded length: a packed megabyte may hold a line of a gigabyte."""

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

from spire_ray.errors import UserError

# Of a line: a cut of hours with its words aligned has 6 MB, and JSON takes 21 times as much parsed.
MAX_BYTES = 16 << 20
_BLOCK = 1 << 20
csv.field_size_limit(MAX_BYTES)


class LongLineError(UserError):
    """A line longer than MAX_BYTES: its number, and what to do."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} has over {MAX_BYTES >> 20} MiB: write one row a line, or take the line out")


def lines(file: BinaryIO) -> Iterator[bytes]:
    """Each line without its end. LongLineError. In memory: a line and a block."""
    rest, done = b"", 0
    while block := file.read(_BLOCK):
        *whole, rest = (rest + block).split(b"\n")
        if whole and len(whole[0]) > MAX_BYTES:  # the others are within a block
            raise LongLineError(done + 1)
        yield from whole
        done += len(whole)
        if len(rest) > MAX_BYTES:
            raise LongLineError(done + 1)
    if rest:
        yield rest


def fields(stream: io.TextIOWrapper, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, with the number of the line where each ends. LongLineError, also for a row of many lines."""
    held = read = 0  # characters of the row that is read, and lines

    def bounded() -> Iterator[str]:
        nonlocal held, read
        while line := stream.readline(MAX_BYTES):
            held, read = held + len(line), read + 1
            if held >= MAX_BYTES:
                raise LongLineError(read)
            yield line

    reader = csv.reader(bounded(), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
    for row in reader:
        held = 0
        yield reader.line_num, row
