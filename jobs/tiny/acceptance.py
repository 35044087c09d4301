"""What spire-tiny is worth: the real job over sentences and voices it has never met, against the grammar's references.

    .venv/bin/python jobs/tiny/acceptance.py /tmp/tiny/test/manifest.jsonl /tmp/tiny/accepted
    .venv/bin/python jobs/tiny/acceptance.py /tmp/tiny/human/manifest.jsonl /tmp/tiny/accepted-human --speech-only

It runs `spire-ray speech-to-text` (transcripts and nine languages, from the speech) and `spire-ray translate` (the same
sentences as text, into the nine languages), prints the scores and writes them to OUT/scores.json. A second time it
only reads what is there. Words are compared in lower case, without punctuation and with hyphens as spaces; a
translation counts as exact when every character is right. chrF is sacrebleu's, which is not among the project's
dependencies: `uv pip install sacrebleu==2.6.0`.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jiwer
import pyarrow.parquet as pq
import sacrebleu
from letters import spoken
from sentences import LANGUAGES

from spire_ray.cli import main as spire_ray


def run(manifest: Path, out: Path, checkpoint: str, speech_only: bool) -> None:
    """The two commands; what they have done already they do not do again. SystemExit when one fails."""
    text = ["--checkpoint", checkpoint, "--languages", *LANGUAGES]
    speech = text[:2] if speech_only else text
    commands = [["speech-to-text", str(manifest), str(out / "speech"), *speech]]
    if not speech_only:
        sentences = out / "sentences.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"id": row["id"], "text": row["text"]}) + "\n" for row in rows_of(manifest)]
        sentences.write_text("".join(lines))
        commands.append(["translate", str(sentences), str(out / "text"), "--from", "en", *text])
    for command in commands:
        if code := spire_ray(command):
            sys.exit(code)


def rows_of(manifest: Path) -> list[dict[str, Any]]:
    """The lines of a manifest of corpus.py or human_speech.py."""
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def scores(manifest: Path, out: Path) -> dict[str, Any]:
    """Everything that is measured, as it is written to scores.json."""
    rows = {row["id"]: row for row in rows_of(manifest)}
    heard = {row["utterance_id"]: row["text"] or "" for row in _table(out / "speech" / "transcripts")}
    found: dict[str, Any] = {"utterances": len(rows)} | _transcripts(rows, heard)
    found["speed"] = _speed(out / "speech")
    for name, folder in (("speech", out / "speech"), ("text", out / "text")):
        if not (folder / "translations").is_dir():
            continue
        said: dict[str, dict[str, str]] = {}
        for row in _table(folder / "translations"):
            said.setdefault(row["target_language"], {})[row["utterance_id"]] = row["text"] or ""
        found[name] = {code: _translations(rows, code, said[code]) for code in LANGUAGES if code in said}
    return found


def _transcripts(rows: Mapping[str, Mapping[str, Any]], heard: Mapping[str, str]) -> dict[str, Any]:
    def rate(keys: Iterable[str]) -> float:
        pairs = [(spoken(rows[key]["text"]), spoken(heard[key])) for key in keys]
        return round(float(jiwer.wer([wanted for wanted, _ in pairs], [said for _, said in pairs])), 4)

    speakers = sorted({row["speaker"] for row in rows.values()})
    return {
        "hours": round(sum(row["duration"] for row in rows.values()) / 3600, 4),
        "wer": rate(rows),
        "wer_of": {one: rate(key for key, row in rows.items() if row["speaker"] == one) for one in speakers},
        "exact": round(sum(spoken(row["text"]) == spoken(heard[key]) for key, row in rows.items()) / len(rows), 4),
    }


def _translations(rows: Mapping[str, Mapping[str, Any]], code: str, said: Mapping[str, str]) -> dict[str, float]:
    wanted = {key: _references(row)[code] for key, row in rows.items()}
    exact = sum(said[key] == text for key, text in wanted.items()) / len(wanted)
    chrf = sacrebleu.corpus_chrf([said[key] for key in wanted], [list(wanted.values())]).score
    return {"chrf": round(chrf, 2), "exact": round(exact, 4)}


def _references(row: Mapping[str, Any]) -> dict[str, str]:
    return {each["language"]: each["text"] for each in row["references"]}


def _speed(out: Path) -> dict[str, float]:
    """Real-time factors: of the two stages and of both, one after the other. Loading the models is apart."""
    summary = json.loads((out / "run.json").read_text())
    seconds = {stage: summary[stage]["work_seconds"] for stage in ("units", "text")}
    audio = summary["units"]["audio_hours"] * 3600
    speeds = {f"rtfx_{stage}": round(audio / each, 1) for stage, each in seconds.items()}
    return speeds | {"rtfx": round(audio / sum(seconds.values()), 1)}


def _table(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return found


def show(found: Mapping[str, Any]) -> None:
    """Print the scores."""
    voices = ", ".join(f"{name} {rate:.1%}" for name, rate in found["wer_of"].items())
    print(f"{found['utterances']} utterances, {found['hours']:.2f} h: WER {found['wer']:.1%} ({voices}), ", end="")
    print(f"{found['exact']:.1%} without a mistake")
    print("RTFx {rtfx} (units {rtfx_units}, text {rtfx_text})".format(**found["speed"]))
    for name in ("speech", "text"):
        for code, figures in found.get(name, {}).items():
            print(f"{name} to {code}: chrF {figures['chrf']:.1f}, exact {figures['exact']:.1%}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--speech-only", action="store_true", help="transcripts alone: there are no references")
    arguments = parser.parse_args()
    run(arguments.manifest, arguments.out, arguments.checkpoint, arguments.speech_only)
    found = scores(arguments.manifest, arguments.out)
    (arguments.out / "scores.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found)


if __name__ == "__main__":
    main()
