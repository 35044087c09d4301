"""Manifests that name the corpus's own audio files: NeMo's, a JSON object a line, and Lhotse's cuts.

NeMo: the keys of its datasets' documentation (`audio_filepath`, `offset`, `duration`, `text`) and of Canary Flash and
v2 (`source_lang`, `target_lang`), a line for each text of an utterance. Lhotse: a cut with its recording and one
supervision, whose `custom` has the units and translations.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spire_ray.ahead import ahead
from spire_ray.errors import RowFault, UserError
from spire_ray.examples import Example, Examples
from spire_ray.headers import Header, header
from spire_ray.locations import URL, locate, patiently

_PROBES = 32  # headers read at a time: each waits for storage more than it computes
_BLOCK = 65_536  # bytes of a header's read; object storage would otherwise send megabytes for each
_NO_LENGTH = "length not in the header"

Line = dict[str, Any]


def write_nemo(examples: Examples, file: Path) -> None:
    """A line for each transcript and each translation. UserError where audio is no file of its own."""
    with file.open("x", encoding="utf-8") as stream:
        for _, found in examples.shards():
            for example in found:
                if example.planned["duration_s"] is None:  # no units yet, and nothing in the header
                    examples.drop(_NO_LENGTH)
                    continue
                stream.writelines(_json(line) for line in _nemo(example))


def write_lhotse(examples: Examples, file: Path) -> None:
    """A cut for each example, packed by gzip, equal for equal input. UserError where audio is no file of its own."""
    with file.open("xb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:
        for _, found in examples.shards():
            for example, told in _with_headers(examples, found):
                cut = _cut(example, told)
                if cut["duration"] > 0:
                    stream.write(_json(cut).encode())
                else:  # its file ends before it begins
                    examples.drop("truncated")


def _json(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _file_of(example: Example) -> str:
    """UserError where a manifest of files cannot name it."""
    planned = example.planned
    if planned["byte_offset"] is not None or planned["row_index"] is not None:
        where = f"{planned['utterance_id']} lies inside {planned['audio_uri']}"
        raise UserError(f"{where}, which no manifest of files can say: --format webdataset or huggingface holds audio")
    return str(planned["audio_uri"])


def _nemo(example: Example) -> Iterator[Line]:
    planned = example.planned
    start = planned["start_s"] or 0.0
    for language, text in {example.language: example.text, **example.translations}.items():
        yield {
            "audio_filepath": _file_of(example),
            "offset": start,
            "duration": planned["duration_s"],
            "text": text,
            "source_lang": example.language,
            "target_lang": language,
            "utterance_id": planned["utterance_id"],
            **({"speaker": planned["speaker"]} if planned["speaker"] else {}),
        }


def _with_headers(examples: Examples, found: list[Example]) -> Iterator[tuple[Example, Header]]:
    """Those whose file tells how much sound it holds; the others are left out."""
    options = examples.joined.text_run.storage_options
    told = dict(ahead(lambda uri: _header(uri, options), _distinct(map(_file_of, found)), _PROBES))
    for example in found:
        answer = told[_file_of(example)]
        if isinstance(answer, Header):
            yield example, answer
        else:
            examples.drop(answer)


def _distinct(uris: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(uris))


def _header(uri: str, options: dict[str, Any]) -> Header | str:
    """What a file says of itself, or why nothing is known."""

    def read() -> Header | None:
        fs, path = locate(uri, options)
        with fs.open(path, "rb", block_size=_BLOCK) as file:
            return header(file)

    try:
        return patiently(uri, read) or _NO_LENGTH
    except FileNotFoundError:
        return "missing"
    except RowFault as fault:
        return fault.reason


def _cut(example: Example, told: Header) -> Line:
    planned = example.planned
    seconds = told.samples / told.rate
    start = planned["start_s"] or 0.0
    end = seconds if planned["end_s"] is None else min(planned["end_s"], seconds)
    channels = list(range(told.channels))
    one = told.channels == 1
    name = planned["recording_id"] or planned["utterance_id"]
    channel = 0 if one else channels
    return {
        "id": planned["utterance_id"],
        "start": start,
        "duration": round(end - start, 9),
        "channel": channel,
        "supervisions": [
            {
                "id": planned["utterance_id"],
                "recording_id": name,
                "start": 0.0,
                "duration": round(end - start, 9),
                "channel": channel,
                "text": example.text,
                "language": example.language,
                **({"speaker": planned["speaker"]} if planned["speaker"] else {}),
                "custom": {
                    "translations": example.translations,
                    "units": planned["units"],
                    "run_lengths": planned["run_lengths"],
                },
            }
        ],
        "recording": _recording(name, _file_of(example), told),
        "type": "MonoCut" if one else "MultiCut",
    }


def _recording(name: str, uri: str, told: Header) -> Line:
    channels = list(range(told.channels))
    return {
        "id": name,
        "sources": [{"type": "url" if URL.match(uri) else "file", "channels": channels, "source": uri}],
        "sampling_rate": told.rate,
        "num_samples": told.samples,
        "duration": told.samples / told.rate,
        "channel_ids": channels,
    }
