"""A Kaldi data directory (wav.scp, and where they lie there segments, text, utt2spk, utt2dur or reco2dur) as records.

The files are as in Kaldi's "Data preparation" chapter: an id, then blanks, then the value, a line each. Audio paths
that are relative resolve against the directory, where Kaldi's own resolve against wherever a recipe runs.
"""

import re
from collections.abc import Iterator

from fsspec.spec import AbstractFileSystem

from spire_ray.errors import UserError
from spire_ray.manifest import Record, opened, text_lines

MARK = "wav.scp"  # the file that makes a folder a Kaldi data directory
_ARCHIVE = re.compile(r".*\.ark:\d+")


def records(fs: AbstractFileSystem, folder: str) -> Iterator[Record]:
    """A record for each line of segments, or of wav.scp without it; ids are Kaldi's.

    In memory: all of the other files. UserError naming the line, where wav.scp has a pipe or an offset into an archive,
    which are no files.
    """
    texts = _values(fs, folder, "text")
    speakers = _values(fs, folder, "utt2spk")
    if fs.exists(f"{folder}/segments"):
        recordings = {name: path for _, name, path in _scp(fs, folder)}
        for record in _segments(fs, folder, recordings):
            name = str(record.values.get("id"))
            yield Record(record.where, {**record.values, **_said(name, texts, speakers)}, record.problem)
        return
    seconds = _values(fs, folder, "reco2dur") or _values(fs, folder, "utt2dur")
    for where, name, path in _scp(fs, folder):
        values = {"id": name, "audio": path, "duration": seconds.get(name), **_said(name, texts, speakers)}
        yield Record(where, values, "" if path else "no path after the id")


def _said(name: str, texts: dict[str, str], speakers: dict[str, str]) -> dict[str, str | None]:
    return {"reference": texts.get(name), "speaker": speakers.get(name)}


def _segments(fs: AbstractFileSystem, folder: str, recordings: dict[str, str]) -> Iterator[Record]:
    for where, name, rest in _lines(fs, folder, "segments"):
        fields = rest.split()
        if len(fields) not in (3, 4):  # the fourth is a channel, which wav.scp's file has only one of
            yield Record(where, {"id": name}, f"{1 + len(fields)} fields, not utterance, recording, start and end")
        elif fields[0] not in recordings:
            yield Record(where, {"id": name}, f"recording {fields[0]} is not in wav.scp")
        else:
            values: dict[str, str | None] = {"id": name, "audio": recordings[fields[0]], "recording_id": fields[0]}
            # Kaldi's extract-segments takes -1 for the end of the recording.
            end = None if fields[2].startswith("-") else fields[2]
            yield Record(where, values | {"start": fields[1], "end": end})


def _scp(fs: AbstractFileSystem, folder: str) -> Iterator[tuple[str, str, str]]:
    for where, name, path in _lines(fs, folder, MARK):
        if path.endswith("|") or path.startswith("|"):
            raise UserError(f"{folder}/{where} is a command, not a file ({name} {path}): write files first")
        if _ARCHIVE.fullmatch(path):
            raise UserError(f"{folder}/{where} is an archive, not a file ({name} {path}): write files first")
        yield where, name, path


def _values(fs: AbstractFileSystem, folder: str, file: str) -> dict[str, str]:
    if not fs.exists(f"{folder}/{file}"):
        return {}
    return {name: value for _, name, value in _lines(fs, folder, file)}


def _lines(fs: AbstractFileSystem, folder: str, file: str) -> Iterator[tuple[str, str, str]]:
    """Each line's place, id and value; what is no UTF-8 is a UserError, as an id could not be told from its value."""
    with opened(fs, f"{folder}/{file}") as stream:
        for record in text_lines(stream):
            where = f"{file} {record.where}"
            if record.problem:
                raise UserError(f"{folder}/{where} is not UTF-8: {record.problem}")
            name, _, value = record.values["text"].strip().replace("\t", " ", 1).partition(" ")
            if name:
                yield where, name, value.strip()
