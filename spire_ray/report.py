"""`spire-ray report OUT`: a run on one HTML page that needs nothing beside itself."""

from collections.abc import Iterable, Mapping
from typing import Any

from spire_ray.codebook_report import unit_numbers
from spire_ray.errors import UserError
from spire_ray.export_audio import flac
from spire_ray.export_target import new_file
from spire_ray.joined import Joined
from spire_ray.outputs import committed
from spire_ray.page import Report, Sample, page
from spire_ray.records import load_json
from spire_ray.report_scores import Scores
from spire_ray.samples import Draw, sounds
from spire_ray.store import Store
from spire_ray.tallies import Row, Tally

MAX_SAMPLES = 200
SAMPLE_BYTES = 9_000_000  # of the page, for sound and pictures: the rest of it is under 1 MB
_CELL, _ENVELOPE = 250, 20_000  # bytes of a picture: for each unit, and for the waveform
_LONGEST_S = 600.0


def write_report(text_run: Store, file: str, samples: int, with_audio: bool) -> None:
    """Count OUT shard by shard and write FILE, a path or URL that does not exist. UserError, with nothing written."""
    if not 0 <= samples <= MAX_SAMPLES:
        raise UserError(f"--samples {samples}: a page takes 0 to {MAX_SAMPLES}")
    joined = Joined(text_run)
    plan = joined.plan
    with new_file(file, text_run.storage_options) as target:
        records = {name: load_json(joined.units_run, f"{name}.json") for name in ("plan", "units")}
        records["text"] = load_json(text_run, "text.json")
        encoding = (records["units"] or {}).get("settings", {})
        tally, draw, scores = Tally(encoding.get("clusters", 0)), Draw(samples), Scores.of(records["text"])
        for shard in range(plan.shards):
            rows = joined.shard(shard)
            tally.add(rows)
            draw.add(rows)
            scores.add(rows)
        runs = _runs(dict.fromkeys([joined.units_run.url, text_run.url]), text_run.storage_options)
        shown = Report(
            place=text_run.url,
            shards=(_done(joined), plan.shards),
            tally=tally,
            units=unit_numbers(tally.usage, tally.runs) if tally.usage.any() else None,
            scores=scores.figures(),
            samples=_samples(draw.chosen(), joined, encoding.get("max_seconds", _LONGEST_S), with_audio),
            with_audio=with_audio,
            speed=_speed(runs),
            provenance=_provenance(records, runs),
        )
        target.write_text(page(shown), encoding="utf-8")


def _done(joined: Joined) -> int:
    """How many shards have a part of every table that there is."""
    stores = {"units": joined.units_run, "transcripts": joined.text_run, "translations": joined.text_run}
    found = [committed(store, table).keys() for table, store in stores.items()]
    return len(set.intersection(*(set(shards) for shards in found if shards))) if any(found) else 0


def _samples(rows: list[Row], joined: Joined, max_seconds: float, with_audio: bool) -> list[Sample]:
    if not with_audio:
        return [Sample(row, None, None, row["error"] or "") for row in rows]
    made, room = [], SAMPLE_BYTES
    for row, sound in zip(rows, sounds(rows, joined.text_run.storage_options, max_seconds), strict=True):
        if isinstance(sound, str):
            made.append(Sample(row, None, None, sound))
            continue
        data = flac(sound)
        room -= len(data) * 4 // 3 + len(row["units"] or ()) * _CELL + _ENVELOPE  # base64 makes four bytes of three
        made.append(Sample(row, sound, data) if room >= 0 else Sample(row, None, None, "not played: the page is full"))
    return made


def _runs(urls: Iterable[str], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    stores = [Store(url, options) for url in urls]
    return [run for store in stores for name in store.find("runs") if (run := load_json(store, f"runs/{name}"))]


def _speed(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each stage on each kind of hardware, over all drivers."""
    sums: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        hardware = run["hardware"]
        kind = ", ".join(hardware["accelerators"]) or hardware["processor"] or hardware["machine"]
        count = f"{hardware['gpus']:g} GPUs" if hardware["gpus"] else f"{hardware['cpus']:g} CPUs"
        for stage, made in run["stages"].items():
            one = sums.setdefault((stage, f"{count}, {kind}"), [0, 0.0, 0.0])
            one[0] += 1
            one[1] += made["audio_hours"]
            one[2] += made["work_seconds"]
    return [
        {
            "stage": stage,
            "hardware": hardware,
            "drivers": int(drivers),
            "hours": hours,
            "seconds": seconds,
            "rtfx": f"{hours * 3600 / seconds:,.1f}" if seconds and hours else "",
        }
        for (stage, hardware), (drivers, hours, seconds) in sorted(sums.items(), reverse=True)
    ]


def _provenance(records: Mapping[str, Any], runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What decided the values, as it is frozen in OUT, and the versions that ran."""
    told = {}
    for name, title in (("plan", "Plan"), ("units", "Units"), ("text", "Text")):
        if found := records[name]:
            told[title] = {"fingerprint": found["fingerprint"], **found["settings"], **found.get("recorded", {})}
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in run["versions"].items():
            versions.setdefault(package, set()).add(version)
    if versions:
        told["Versions"] = {package: ", ".join(sorted(found)) for package, found in sorted(versions.items())}
    return told
