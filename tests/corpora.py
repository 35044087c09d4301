"""Small corpora for tests of their layouts, and what is read of them."""

import io
import json
from typing import ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from fsspec.implementations.memory import MemoryFileSystem

from spire_ray import tables
from spire_ray.corpus import read_corpus
from spire_ray.errors import UserError


def write_audio(path, seconds=1.0, rate=16_000, format=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    sf.write(path, 0.1 * rng.standard_normal(round(seconds * rate)), rate, format=format)
    return path


def write_lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def rows_of(corpus, **options):
    table = read_corpus(str(corpus), **options)
    assert table.schema.names == [name for name in tables.PLAN.names if name != "shard"]
    assert all(table.schema.field(name).type == tables.PLAN.field(name).type for name in table.schema.names)
    return table.to_pylist()


def only(corpus, **options):
    (row,) = rows_of(corpus, **options)
    return row


def refused(corpus, read=read_corpus, **options):
    with pytest.raises(UserError) as caught:
        read(str(corpus), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hugging_face(path, rows, row_group_size=None, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"audio": audio, **columns}), path, row_group_size=row_group_size)
    return path


class Tagged(MemoryFileSystem):
    """A file system with ETags, as object storage has."""

    protocol = ("tagged",)
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    asked: ClassVar[list] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("tagged:/"))

    def unstrip_protocol(self, name):
        return f"tagged:/{name}"

    def info(self, path, **kwargs):
        return self._tag(super().info(path, **kwargs))

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **kwargs):
        found = super().find(path, maxdepth, withdirs, detail=True, **kwargs)
        return {name: self._tag(info) for name, info in found.items()} if detail else list(found)

    def _tag(self, info):
        return info | (
            {"ETag": f'"tag-of-{len(self.store[info["name"]].getvalue())}"'} if info["type"] == "file" else {}
        )

    def _open(self, path, mode="rb", **kwargs):
        Tagged.asked.append(path)
        return super()._open(path, mode, **kwargs)


def empty_tagged():
    """The file system `tagged://`, with nothing on it."""
    fsspec.register_implementation("tagged", Tagged, clobber=True)
    Tagged.store.clear()
    Tagged.pseudo_dirs[:] = [""]
    Tagged.asked.clear()
    return Tagged()


def sound(seed, seconds=1.0, rate=16_000):
    """Noise that no other seed has, int16."""
    return np.int16(3000 * np.random.default_rng(seed).standard_normal(round(seconds * rate)))


def write_sound(path, seed, seconds=1.0, rate=16_000, format=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, sound(seed, seconds, rate), rate, format=format, subtype=None)
    return path


def heard(row):
    """The samples that a row of a plan says, by soundfile and slicing: int16."""
    with fsspec.open(row["audio_uri"]) as file:
        data = file.read()
    if row["byte_offset"] is not None:
        data = data[row["byte_offset"] : row["byte_offset"] + row["byte_size"]]
    samples, rate = sf.read(io.BytesIO(data), dtype="int16")
    first = round((row["start_s"] or 0) * rate)
    last = len(samples) if row["end_s"] is None else round(row["end_s"] * rate)
    return samples[first:last]
