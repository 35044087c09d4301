"""Lhotse's manifests (recordings, supervisions, cuts; JSONL, also packed by gzip) as records. Lhotse is not imported.

The fields are those of lhotse 1.33: `Recording.to_dict`, `SupervisionSegment.to_dict`, `MonoCut.to_dict` and so on. A
cut is an utterance; where it has several supervisions, each of them is. Supervisions in a cut count from its start.
"""

import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fsspec.spec import AbstractFileSystem

from spire_ray.errors import RowFault, UserError
from spire_ray.manifest import Record, opened
from spire_ray.manifest import records as manifest_records

CUTS, RECORDINGS, SUPERVISIONS = "cuts", "recordings", "supervisions"
ROUNDING_S = 1e-3
_FILES = ("file", "url")
_HARMLESS = frozenset({"Resample"})  # all audio is resampled when it is read

Fields = Mapping[str, Any]


def kind_of(values: Fields) -> str:
    """Which of lhotse's manifests a record is from: CUTS, RECORDINGS, SUPERVISIONS, or "" when it is from none."""
    if values.get("type") in ("MonoCut", "MultiCut", "MixedCut", "PaddingCut"):
        return CUTS
    if isinstance(values.get("sources"), list) and "sampling_rate" in values:
        return RECORDINGS
    if {"id", "recording_id", "start", "duration"} <= values.keys() and "audio" not in values:
        return SUPERVISIONS
    return ""


def records(fs: AbstractFileSystem, path: str, kind: str) -> Iterator[Record]:
    """A record for each utterance of the manifest at `path`; ids are those of cuts, supervisions or recordings.

    Recordings and supervisions belong together: the other is the file whose name differs in that word. UserError: there
    are no recordings, or a source is no file or URL. In memory, for supervisions: the recordings.
    """
    if kind == CUTS:
        return _flat(fs, path, _cut)
    folder, name = posixpath.split(path)
    beside = {kind: path}
    for other in {RECORDINGS, SUPERVISIONS} - {kind}:
        there = f"{folder}/{name.replace(kind, other)}"
        if kind in name and fs.exists(there):
            beside[other] = there
    if RECORDINGS not in beside:
        raise UserError(f"{path} has supervisions alone: their recordings must lie beside it, named alike")
    if SUPERVISIONS not in beside:
        return _flat(fs, path, lambda values: [_utterance(values, 0.0, None, {}, values["id"])])
    return _supervised(fs, beside[RECORDINGS], beside[SUPERVISIONS])


def _supervised(fs: AbstractFileSystem, recordings: str, supervisions: str) -> Iterator[Record]:
    known: dict[str, Fields] = {}
    for record in _read(fs, recordings):
        if record.problem or "id" not in record.values:
            yield Record(record.where, {}, record.problem or "a recording without an id")
        else:
            known[record.values["id"]] = record.values
    bare = dict.fromkeys(known)

    def said(values: Fields) -> list[Fields]:
        if values["recording_id"] not in known:
            raise RowFault("bad_manifest_row", f"recording {values['recording_id']} is not in {recordings}")
        bare.pop(values["recording_id"], None)
        return [_supervision(known[values["recording_id"]], 0.0, values)]

    yield from _flat(fs, supervisions, said)
    for name in bare:  # nothing says what they hold, but they were given
        yield from _safely(f"{posixpath.basename(recordings)} {name}", known[name], lambda values: [_whole(values)])


def _flat(fs: AbstractFileSystem, path: str, utterances: Callable[[Fields], list[Fields]]) -> Iterator[Record]:
    for record in _read(fs, path):
        if record.problem:
            yield record
        else:
            yield from _safely(record.where, record.values, utterances)


def _safely(where: str, values: Fields, utterances: Callable[[Fields], list[Fields]]) -> Iterator[Record]:
    try:
        yield from [Record(where, one) for one in utterances(values)]
    except RowFault as fault:
        yield Record(where, {}, fault.detail)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        yield Record(where, {}, f"not as lhotse writes it: {type(fault).__name__} {fault}")


def _read(fs: AbstractFileSystem, path: str) -> Iterator[Record]:
    with opened(fs, path) as stream:
        for record in manifest_records(stream, "jsonl"):
            yield Record(f"{posixpath.basename(path)} {record.where}", record.values, record.problem)


def _cut(cut: Fields) -> list[Fields]:
    if cut["type"] == "MixedCut":
        return _cut(_only_track(cut))
    if cut["type"] == "PaddingCut" or "recording" not in cut:
        raise RowFault("bad_manifest_row", f"{cut['type']} {cut['id']} has no recording")
    said = cut.get("supervisions") or []
    if len(said) > 1:
        return [_supervision(cut["recording"], cut["start"], one, cut.get("channel")) for one in said]
    whole = {**(said[0] if said else {}), "channel": cut.get("channel")}
    return [_utterance(cut["recording"], cut["start"], cut["duration"], whole, cut["id"])]


def _only_track(cut: Fields) -> Fields:
    """The cut that a mixed one pads with silence."""
    heard = [track for track in cut["tracks"] if (track.get("type") or track["cut"].get("type")) != "PaddingCut"]
    if len(heard) != 1:
        raise RowFault("bad_manifest_row", f"MixedCut {cut['id']} mixes {len(heard)} cuts, which lie in no one file")
    track: Fields = heard[0]["cut"]
    return {"type": heard[0].get("type") or "MonoCut", **track, "id": cut["id"]}


def _whole(recording: Fields) -> Fields:
    return _utterance(recording, 0.0, None, {}, recording["id"])


def _supervision(recording: Fields, origin: float, said: Fields, channel: Any = None) -> Fields:
    chosen = said.get("channel") if channel is None else channel
    return _utterance(recording, origin + said["start"], said["duration"], {**said, "channel": chosen}, said["id"])


def _utterance(recording: Fields, start: float, duration: float | None, said: Fields, name: str) -> Fields:
    seconds = float(recording["duration"])
    span: Fields = {"duration": seconds}
    if duration is not None and (start > ROUNDING_S or abs(duration - seconds) > ROUNDING_S):
        # Lhotse's own sums leave -1e-17 and the like.
        span = {"start": max(0.0, round(start, 9)), "end": min(round(start + duration, 9), seconds)}
    return {
        "id": name,
        "audio": _source(recording, said.get("channel")),
        **span,
        "reference": said.get("text"),
        "speaker": said.get("speaker"),
        "language": _language(said.get("language")),
        "recording_id": recording["id"],
    }


def _source(recording: Fields, channel: Any) -> str:
    changed = [one.get("name") for one in recording.get("transforms") or []]
    if set(changed) - _HARMLESS:
        raise RowFault("bad_manifest_row", f"recording {recording['id']} is transformed when read: {changed}")
    wanted = channel if isinstance(channel, list) else [] if channel is None else [channel]
    sources = recording["sources"]
    if wanted and len(sources) > 1:  # a file for each channel
        sources = [source for source in sources if set(wanted) <= set(source["channels"])]
    if len(sources) != 1:
        raise RowFault("bad_manifest_row", f"recording {recording['id']} lies in {len(sources)} files, not one")
    (source,) = sources
    if source["type"] not in _FILES:
        raise UserError(f"recording {recording['id']} is a {source['type']}, not a file or URL")
    if wanted and len(wanted) < len(source["channels"]):
        raise RowFault(
            "bad_manifest_row", f"channel {wanted} of {len(source['channels'])}: write each to a file of its own"
        )
    return str(source["source"])


def _language(name: Any) -> str | None:
    """ISO 639-1 where lhotse's recipes write English names; others as they are."""
    return {"English": "en", "english": "en"}.get(name, name) if isinstance(name, str) else None
