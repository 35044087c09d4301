"""GigaSpeech.json as records, read as a stream: its 10,000 hours are one JSON object of several gigabytes.

Fields and tags are as in https://github.com/SpeechColab/GigaSpeech: audios[].{aid, path, segments[].{sid, begin_time,
end_time, text_tn, speaker, subsets}}; `text_tn` writes four punctuation marks and four kinds of no speech as tags.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fsspec.spec import AbstractFileSystem

from spire_ray.errors import UserError
from spire_ray.lines import MAX_BYTES
from spire_ray.manifest import Record, opened

FILE = "GigaSpeech.json"
BLOCK = 1 << 20
_START = re.compile(r'"audios"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")
_MARKS = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}
_MARK = re.compile(r"\s*(<COMMA>|<PERIOD>|<QUESTIONMARK>|<EXCLAMATIONPOINT>)")
_NO_SPEECH = frozenset({"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"})


def records(fs: AbstractFileSystem, path: str, subset: str | None = None) -> Iterator[Record]:
    """A record for each segment: id, offsets into the Opus file of its recording, text with marks for the tags.

    `subset`: only segments of it (XL, L, M, S, XS, DEV, TEST). `corpus` names the subsets of each. A segment of noise
    has no reference. UserError when the file ends early.
    """
    for at, audio in enumerate(_audios(fs, path)):
        try:
            for segment in audio.get("segments") or []:
                subsets = [str(one).strip("{}") for one in segment.get("subsets") or []]
                if subset is None or subset in subsets:
                    yield Record(f"{audio.get('aid', f'audio {at}')}", _values(audio, segment, subsets))
        except (AttributeError, TypeError) as fault:
            yield Record(f"audio {at}", {}, f"not as GigaSpeech writes it: {fault}")


def _values(audio: Mapping[str, Any], segment: Mapping[str, Any], subsets: list[str]) -> dict[str, Any]:
    speaker = segment.get("speaker")
    return {
        "id": segment.get("sid"),
        "audio": audio.get("path"),
        "start": segment.get("begin_time"),
        "end": segment.get("end_time"),
        "reference": spoken(str(segment.get("text_tn") or "")),
        "speaker": None if speaker == "N/A" else speaker,
        "recording_id": audio.get("aid"),
        "corpus": " ".join(["GigaSpeech", *subsets]),
    }


def spoken(text: str) -> str | None:
    """`text_tn` with marks for its tags; None for a tag that says there is no speech."""
    if text.strip() in _NO_SPEECH:
        return None
    return _MARK.sub(lambda match: _MARKS[match[1]], text).strip() or None


def _audios(fs: AbstractFileSystem, path: str) -> Iterator[Mapping[str, Any]]:
    """The objects of `audios`, one in memory at a time."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    scan = json.JSONDecoder().raw_decode
    text, at, inside = "", 0, False
    with opened(fs, path) as stream:
        while block := stream.read(BLOCK):
            text = text[at:] + decode(block)
            at = 0
            if len(text) > MAX_BYTES:
                what = "an audio of" if inside else "no audio in"
                raise UserError(f"{path} has {what} over {MAX_BYTES >> 20} MiB: take it out, or give it segments")
            if not inside:
                start = _START.search(text)
                if start is None:
                    continue
                inside, at = True, start.end()
            while True:
                at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string
                if text[at : at + 1] == "]":
                    return
                try:
                    audio, at = scan(text, at)
                except json.JSONDecodeError:
                    break  # the object goes on in the next block
                except RecursionError:
                    raise UserError(f"{path} is nested too deeply") from None
                yield audio
    raise UserError(f"{path} ends early or is no JSON: {text[at : at + 40]!r}")
