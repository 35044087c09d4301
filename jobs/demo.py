"""`make demo`: the main job with spire-tiny on held-out clips and real human speech, and what came out of it.

Everything it fetches or makes is in .demo/.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from demo_speech import SourceUnavailable
from spire_ray.checkpoints import LLM, TINY, TINY_FOLDER, resolve
from spire_ray.cli import main as spire_ray

sys.path.append(str(Path(__file__).parent / "tiny"))
from human_speech import write as fetch_human_speech
from letters import spoken

FOLDER = Path(".demo")
HUMAN = 20  # sentences, joined from prompts
SHOWN = 8  # of each kind
LANGUAGES = ["de", "fr"]
WHAT_IT_IS = """\
spire-tiny has {megabytes:.0f} MB and knows what it was taught: English sentences about numbers, dates, clock times and
prices and some forty travel phrases, mostly in synthetic voices, and their translations. Anything else comes out wrong.
For all other speech take the published weights, on a machine with a GPU that reaches the Hugging Face hub:
  spire-ray speech-to-text CORPUS OUT --checkpoint SpireFull --languages de fr"""


def main() -> int:
    """Write the manifest, run `spire-ray speech-to-text`, show a table."""
    rows = _clips() + _human_speech()
    # Another corpus or another model is another run.
    out = FOLDER / f"{TINY}-{resolve(TINY, need=LLM).revision[:8]}-{len(rows)}"
    manifest = out.with_suffix(".jsonl")
    FOLDER.mkdir(exist_ok=True)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["speech-to-text", str(manifest), str(out), "--checkpoint", TINY, "--languages", *LANGUAGES]
    print(f"$ spire-ray {' '.join(command)}", flush=True)
    if code := spire_ray(command):
        return code
    joined = out.with_suffix(".parquet")
    if not joined.exists() and (code := spire_ray(["export", str(out), str(joined)])):
        return code
    found = pq.read_table(joined).to_pylist()
    _show(found)
    _tell(found, out)
    print(f"All of it: {joined} (one row per utterance) and the tables in {out}.")
    return 0


def _clips() -> list[dict[str, Any]]:
    folder = TINY_FOLDER / "clips"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [_row(folder, row, "clip") for row in rows]


def _human_speech() -> list[dict[str, Any]]:
    folder = FOLDER.absolute() / "human"
    manifest = folder / "manifest.jsonl"
    try:
        if not manifest.exists():
            fetch_human_speech(folder, HUMAN)
    except SourceUnavailable as fault:
        print(f"without human speech: {fault}", file=sys.stderr)
        return []
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [_row(folder, row, "human") for row in rows if row["id"].startswith("joined")]


def _row(folder: Path, row: dict[str, Any], kind: str) -> dict[str, Any]:
    text = {"id": f"{kind}-{row['id']}", "text": row["text"], "speaker": row["speaker"]}
    return text | {"audio": str(folder / row["audio"]), "duration": row["duration"]}


def _show(found: Sequence[dict[str, Any]]) -> None:
    table = Table(title="Clips: synthetic voices and sentences it never met. Human: prompts of one speaker, joined")
    for column in ("clip", "s", "what was said", "transcript", *LANGUAGES, "WER"):
        table.add_column(column, no_wrap=True)
    for kind in ("clip", "human"):
        for row in [row for row in found if row["id"].startswith(kind)][:SHOWN]:
            texts = {translation["language"]: translation["text"] for translation in row["translations"]}
            shown = [row["reference"], row["transcript"], *(texts[language] for language in LANGUAGES)]
            cut = [_cut(text or "", 28) for text in shown]
            table.add_row(_cut(row["id"], 14), f"{row['duration_s']:.1f}", *cut, f"{_wer([row]):.0%}")
    Console(width=164).print(table)


def _tell(found: Sequence[dict[str, Any]], out: Path) -> None:
    for kind, what in (("clip", "clips in held-out voices"), ("human", "sentences of a human voice")):
        if chosen := [row for row in found if row["id"].startswith(kind)]:
            print(f"{len(chosen)} {what}: WER {_wer(chosen):.1%}")
    summary = json.loads((out / "run.json").read_text())
    hours, stages = summary["units"]["audio_hours"], [summary[stage] for stage in ("units", "text")]
    if seconds := sum(stage["work_seconds"] for stage in stages):
        units, text = (f"{stage['rtfx']:,.0f}" for stage in stages)
        print(
            f"{hours:.3f} h of speech, RTFx {hours * 3600 / seconds:,.0f} (units {units}, text {text}), models loaded"
        )
    size = sum(path.stat().st_size for path in TINY_FOLDER.rglob("*.safetensors"))
    print(f"\n{WHAT_IT_IS.format(megabytes=size / 1e6)}\n")


def _wer(rows: Sequence[dict[str, Any]]) -> float:
    references, heard = ([spoken(row[name] or "") for row in rows] for name in ("reference", "transcript"))
    return float(jiwer.wer(references, heard))


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
