"""A run directory as the commands leave it, of real speech with made-up units and texts, some of them hostile."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from spire_ray import outputs
from spire_ray.checkpoints import TINY_FOLDER
from spire_ray.frozen import freeze
from spire_ray.locations import etag_of, locate
from spire_ray.plan import write_plan
from spire_ray.store import Store
from spire_ray.tables import PLAN, TRANSCRIPTS, TRANSLATIONS, UNITS, from_rows

CLIPS = TINY_FOLDER / "clips"
CLUSTERS = 60
SHARDS = 3
HOSTILE = (
    "</title></style><script>document.title = 'owned'</script>",
    "<img src=http://127.0.0.1:9/x.png onerror=\"document.title = 'owned'\">",
    "\"'><svg onload=\"document.title='owned'\">",
    "{{7*7}} ${7*7} <!-- ]]> &amp; &lt;b&gt;",
)
Row = dict[str, Any]


def planned_rows() -> list[Row]:
    """The clips of the package, and three that cannot be read."""
    rows = []
    for line in (CLIPS / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        path = CLIPS / told["audio"]
        fs, name = locate(str(path))
        rows.append(
            {
                "utterance_id": told["id"],
                "audio_uri": name,
                "duration_s": told["duration"],
                "etag": etag_of(fs, fs.info(name)),
                "reference": told["text"],
                "references": [one for one in told["references"] if one["language"] in ("de", "zh")],
                "source_language": "en",
            }
        )
    for name in ("gone <b>&", "silence", "noise"):
        rows.append({"utterance_id": name, "audio_uri": f"/nowhere/{name}.wav", "duration_s": 2.0})
    rows[0]["utterance_id"] += HOSTILE[0]
    rows[1]["reference"] = HOSTILE[1]
    return rows


def unit_row(row: Row, rng: np.random.Generator) -> Row:
    """Random units, few of them often; the last five of the codebook never."""
    name = {"utterance_id": row["utterance_id"]}
    if not row["audio_uri"].startswith("/nowhere"):
        seconds = soundfile.info(row["audio_uri"]).duration
        frames = int(seconds * 50)
        drawn = np.minimum(rng.geometric(0.08, frames) - 1, CLUSTERS - 6).repeat(rng.integers(1, 5, frames))[:frames]
        runs = [(int(unit), len(list(same))) for unit, same in groupby(drawn)]
        made = {"units": [unit for unit, _ in runs], "run_lengths": [length for _, length in runs]}
        return {**name, **made, "num_frames": frames, "duration_s": seconds, "speech_ratio": 0.8}
    return {**name, "error": "silent: nothing over -60 dBFS" if row["utterance_id"] == "silence" else "missing: gone"}


def text_row(row: Row, index: int, reference: str | None, rng: np.random.Generator) -> Row:
    """The reference with words left out, or something hostile; flagged now and then; one is an error."""
    name = {"utterance_id": row["utterance_id"]}
    if row["audio_uri"].startswith("/nowhere"):
        return {**name, "error": "no_units: missing"}
    if index == 11:
        return {**name, "error": "engine_crash: twice"}
    words = [word for word in (reference or "nothing").split() if rng.random() < 0.8]
    text = HOSTILE[index % len(HOSTILE)] if index in (2, 3, 4, 5) else " ".join(words)
    flags = ["repetition", "too_fast"] if index % 7 == 3 else []
    told = {"finish_reason": "stop", "avg_logprob": -float(rng.random()), "prompt_tokens": 9, "generated_tokens": 4}
    return {**name, "text": text, "flags": flags, **told}


def make_run(folder: Path) -> Store:
    """All tables of a run in three shards, and what drivers write beside them."""
    rng = np.random.default_rng(0)
    rows = sorted(planned_rows(), key=lambda row: str(row["utterance_id"]).encode())
    shards = [[dict(row, shard=n) for row in rows[n::SHARDS]] for n in range(SHARDS)]
    store = Store(str(folder))
    plan = write_plan(
        store, [from_rows(some, PLAN) for some in shards], {"corpus": "/data/<corpus>", "shard_minutes": 1}
    )
    units = {"clusters": CLUSTERS, "codebook": "c" * 64, "layer": 2, "max_seconds": 120.0, "plan": plan.fingerprint}
    model = {"checkpoint": "tiny", "source_language": "en", "beam": 1}
    text = {"languages": ["de", "zh"], "transcripts": True, "method": "direct", "units": "u", **model}
    marks = {"units": freeze(store, "units.json", units), "text": freeze(store, "text.json", text)}
    index = {row["utterance_id"]: n for n, row in enumerate(rows)}
    for shard, some in enumerate(shards):
        tables: dict[str, tuple[pa.Schema, list[Row]]] = {
            "units": (UNITS, [unit_row(row, rng) for row in some]),
            "transcripts": (
                TRANSCRIPTS,
                [text_row(row, index[row["utterance_id"]], row.get("reference"), rng) for row in some],
            ),
            "translations": (TRANSLATIONS, [made for row in some for made in translations(row, index, rng)]),
        }
        for name, (schema, made) in tables.items():
            mark = marks["units" if name == "units" else "text"]
            outputs.commit(store, name, from_rows(made, schema), shard, 0, mark)
    for number in (1, 2):
        store.create(f"runs/driver-{number}.json", json.dumps(driver(number)).encode())
    return store


def translations(row: Row, index: dict[str, int], rng: np.random.Generator) -> list[Row]:
    """To both languages."""
    references = {one["language"]: one["text"] for one in row.get("references", ())}
    return [
        {
            **text_row(row, index[row["utterance_id"]] + shift, references.get(language), rng),
            "target_language": language,
            "method": "direct",
        }
        for shift, language in enumerate(("de", "zh"), 1)
    ]


def driver(number: int) -> Row:
    """What one of two drivers did."""
    stage = {"audio_hours": 0.01 * number, "work_seconds": 2.0}
    hardware = {"machine": "x86_64", "processor": "Some <CPU>", "cpus": 2.0, "gpus": 0, "accelerators": []}
    return {
        "id": f"driver-{number}",
        "versions": {"python": f"3.{10 + number}", "spire_ray": "0.1.0"},
        "hardware": hardware,
        "stages": {"units": stage, "text": {**stage, "work_seconds": 8.0}},
    }


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, for the tests of a file."""
    folder = tmp_path_factory.mktemp("run") / "out"
    make_run(folder)
    return folder
