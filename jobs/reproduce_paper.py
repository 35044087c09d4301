"""The tables of SPIRE's paper again, by its protocol: greedy, 256 tokens, Whisper's normaliser, sacrebleu, COMET-22.

    python jobs/reproduce_paper.py asr --data DATA --out OUT     # transcription
    python jobs/reproduce_paper.py st --data DATA --out OUT      # speech translation, direct and self-cascade
    python jobs/reproduce_paper.py mt --data DATA --out OUT      # text translation: zero-shot, of SpireBase five-shot
    python jobs/reproduce_paper.py asr --data spire_ray/tiny/clips --out OUT --checkpoints tiny    # here, without a GPU

What must lie in DATA is said in jobs/paper_sets.py; each set that does not is named in the end and left out. The same
command again does what is missing. Units are made once for all checkpoints. The figures of every run, with their
intervals and signatures, are in OUT/TABLE.json.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import paper_sets
from paper_sets import Absent, Speech, Text
from spire_ray.checkpoints import NAMED, Checkpoint, resolve
from spire_ray.cli import main as spire_ray
from spire_ray.errors import UserError
from spire_ray.evaluate import ALL, Evaluation, evaluate
from spire_ray.evaluation_report import as_json
from spire_ray.store import Store

METHODS = ("direct", "self-cascade")
# Published by others than the authors, whose own tables are in their paper.
PUBLISHED = {
    ("CoVoST-2", "SpireFull", "direct", "de", "BLEU"): 18.3,
    ("CoVoST-2", "SpireFull", "direct", "zh", "BLEU"): 18.4,
}
PUBLISHED_BY = "published: Hearing to Translate, arXiv 2512.16378, SpireFull with beam 5 (here: --beam 5)"


@dataclass
class Reproduction:
    """One table under way."""

    data: Path
    out: Path
    checkpoints: Sequence[str]
    address: str | None = None
    comet: str | None = None
    beam: int = 1
    rows: list[list[str]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)  # for the JSON
    unmeasured: dict[str, None] = field(default_factory=dict)
    published: bool = False

    def asr(self) -> None:
        """Transcripts of each set by each checkpoint that hears."""
        for corpus, checkpoint, units in self._heard(paper_sets.asr(self.data)):
            out = self.out / "asr" / corpus.name / _name(checkpoint)
            self._run("generate", units, "--to", out, "--checkpoint", checkpoint.name, *self._search())
            self._measure(out, corpus.name, checkpoint, "")

    def st(self) -> None:
        """Translations of each set: from the units, and of the checkpoint's own transcript."""
        for corpus, checkpoint, units in self._heard(paper_sets.st(self.data, self.out / "sets")):
            for method in METHODS:
                if method == "self-cascade" and checkpoint.prompt_style == "raw":
                    self._say(
                        f"{_name(checkpoint)}, self-cascade: a base model translates text with five examples alone"
                    )
                    continue
                out = self.out / "st" / corpus.name / f"{_name(checkpoint)}-{method}"
                words = ["--checkpoint", checkpoint.name, "--translate", method, "--languages", *corpus.languages]
                self._run("generate", units, "--to", out, *words, *self._search())
                self._measure(out, corpus.name, checkpoint, method)

    def mt(self) -> None:
        """Translations of text: zero-shot, of base models five-shot."""
        for corpus in paper_sets.mt(self.data, self.out / "sets"):
            if isinstance(corpus, Absent):
                self._say(f"{corpus.name}: {corpus.why}")
                continue
            for checkpoint in self._resolved():
                shots: list[object] = []
                if checkpoint.prompt_style == "raw":
                    if corpus.examples is None:
                        self._say(f"{_name(checkpoint)} on {corpus.name}, five-shot: DATA/flores/dev is not there")
                        continue
                    shots = ["--shots", 5, "--examples", corpus.examples]
                self._translate(corpus, checkpoint, shots)

    def _translate(self, corpus: Text, checkpoint: Checkpoint, shots: Sequence[object]) -> None:
        known = [language for language in corpus.languages if language in checkpoint.languages]
        out = self.out / "mt" / corpus.corpus.stem / _name(checkpoint)
        words = ["--from", corpus.source, "--languages", *known, "--checkpoint", checkpoint.name]
        self._run("translate", corpus.corpus, out, *words, *shots, *self._search())
        self._measure(out, corpus.name, checkpoint, "5-shot" if shots else "0-shot")

    def _heard(self, sets: Iterator[Speech | Absent]) -> Iterator[tuple[Speech, Checkpoint, Path]]:
        """Each set with each checkpoint that hears, and where its units lie."""
        for corpus in sets:
            if isinstance(corpus, Absent):
                self._say(f"{corpus.name}: {corpus.why}")
                continue
            for checkpoint in self._resolved():
                if not checkpoint.speech:
                    self._say(f"{_name(checkpoint)}: it translates text, not speech")
                    continue
                shared = checkpoint.name in NAMED
                units = self.out / "units" / (corpus.name if shared else f"{corpus.name}-{_name(checkpoint)}")
                self._run("tokenize", corpus.corpus, units, "--checkpoint", checkpoint.name)
                yield corpus, checkpoint, units

    def _resolved(self) -> list[Checkpoint]:
        return [resolve(name, need=()) for name in self.checkpoints]

    def _search(self) -> list[object]:
        return ["--beam", self.beam] if self.beam > 1 else []

    def _run(self, command: str, *words: object) -> None:
        address = ["--address", self.address] if self.address else []
        given = [command, *map(str, words), *address]
        print(f"$ spire-ray {' '.join(given)}", flush=True)
        if code := spire_ray(given):
            sys.exit(code)

    def _measure(self, out: Path, name: str, checkpoint: Checkpoint, how: str) -> None:
        try:
            found = evaluate(Store(str(out)), comet=self.comet, worst=0)
        except UserError as fault:
            self._say(f"{name}: {fault}")
            return
        self.told.append({"set": name, "checkpoint": _name(checkpoint), "how": how, **as_json(found)})
        self._add_rows(found, name, _name(checkpoint), how)
        for remark in found.remarks:
            self._say(f"{name}: {remark}" if "reference" in remark else remark)

    def _add_rows(self, found: Evaluation, name: str, checkpoint: str, how: str) -> None:
        for task in found.tasks:
            # The transcripts of a cascade are those of the first table.
            if how and task.name == "transcripts":
                continue
            part = task.parts[ALL]
            cells = []
            for metric, score in task.scored(part).items():
                around = score.interval
                shown = "none" if score.value is None else f"{score.value:.2f}"
                shown += f" ±{(around.high - around.low) / 2:.2f}" if around else ""
                theirs = PUBLISHED.get((name, checkpoint, how, task.language, metric))
                self.published |= theirs is not None
                cells.append(f"{metric} {shown}" + (f" (published {theirs})" if theirs else ""))
            where = [name, checkpoint, how, task.language if how else ""]
            self.rows.append([*where, f"{part.utterances:,}", f"{part.missing.total():,}", "  ".join(cells)])

    def _say(self, line: str) -> None:
        self.unmeasured[line] = None

    def show(self, table: str) -> None:
        """Print the table, and what it does not tell; write the JSON."""
        shown = Table(box=None, pad_edge=False)
        for column in ("set", "checkpoint", "how", "into", "utterances", "missing", "scores"):
            shown.add_column(column, no_wrap=True, justify="right" if column in ("utterances", "missing") else "left")
        for row in self.rows:
            shown.add_row(*row)
        Console(width=200, emoji=False, markup=False).print(shown)
        if self.published:
            print(PUBLISHED_BY)
        for line in self.unmeasured:
            print(f"not measured: {line.replace(' was not measured', '')}")
        told = {"runs": self.told, "not_measured": list(self.unmeasured)}
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"{table}.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _name(checkpoint: Checkpoint) -> str:
    return Path(checkpoint.name).name


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 2 when there was nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["asr", "st", "mt"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoints", nargs="+", default=list(NAMED), metavar="NAME")
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster")
    parser.add_argument("--comet", metavar="PYTHON", help="that has unbabel-comet")
    parser.add_argument("--beam", type=int, default=1, metavar="N")
    given = vars(parser.parse_args(arguments))
    table = given.pop("table")
    reproduction = Reproduction(**given)
    getattr(reproduction, table)()
    reproduction.show(table)
    return 0 if reproduction.rows else 2


if __name__ == "__main__":
    sys.exit(main())
