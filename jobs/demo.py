"""`make demo`: the main job on real human speech, and its result. Everything it fetches or makes is in .demo/."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from demo_speech import fetch
from spire_ray.cli import main as spire_ray

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from bundle import make_bundle

FOLDER = Path(".demo")
CLIPS = 40
SHOWN = 6
LANGUAGES = ["de", "fr"]


def main() -> int:
    """Fetch the speech, make a bundle of random weights, run `spire-ray speech-to-text`, show a table."""
    manifest = fetch(FOLDER / "speech", CLIPS)
    bundle = FOLDER / "random-bundle"
    if not (bundle / "spire.json").is_file():
        make_bundle(bundle)
    out = FOLDER / "out"
    command = ["speech-to-text", str(manifest), str(out), "--checkpoint", str(bundle), "--languages", *LANGUAGES]
    command += ["--max-tokens", "24", "--shard-minutes", "1"]
    print(f"$ spire-ray {' '.join(command)}", flush=True)
    if code := spire_ray(command):
        return code
    joined = FOLDER / "demo.parquet"
    if not joined.exists() and (code := spire_ray(["export", str(out), str(joined)])):
        return code
    _show(joined)
    return 0


def _show(joined: Path) -> None:
    table = Table(title="Real human speech; random weights, so the text means nothing: its way here is the real one")
    for column in ("clip", "s", "what was said", "units", "transcript", *LANGUAGES):
        table.add_column(column, no_wrap=True)
    for row in pq.read_table(joined).slice(0, SHOWN).to_pylist():
        texts = {translation["language"]: translation["text"] for translation in row["translations"]}
        texts_shown = [_cut(text) for text in (row["transcript"], *(texts[language] for language in LANGUAGES))]
        seconds, units = f"{row['duration_s']:.1f}", str(len(row["units"]))
        table.add_row(_cut(row["id"]), seconds, _cut(row["reference"], 34), units, *texts_shown)
    Console(width=134).print(table)
    print(f"All of it: {joined} (one row per utterance) and the tables in {FOLDER / 'out'}.")


def _cut(text: str, chars: int = 18) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
