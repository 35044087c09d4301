"""WER and BLEU of a whole run from sums over its shards, so that memory holds the texts of one."""

from collections import Counter
from dataclasses import dataclass, field

import jiwer
import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from spire_ray.tallies import Row, texts_of

_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}  # written without spaces, or with few; others: 13a
_PLAIN = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),  # type: ignore[no-untyped-call]
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


@dataclass
class Scores:
    """Add the shards of a run; then read `figures`."""

    errors: int = 0  # substitutions, deletions, insertions
    words: int = 0  # of the references
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # of BLEU, by language
    pairs: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)

    def add(self, rows: list[Row]) -> None:
        """Texts that have a reference; one that was not generated, though it was to be, counts as an empty one."""
        pairs: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            references = {one["language"]: one["text"] for one in row["references"] or ()}
            references["transcript"] = row["reference"]
            for name, text in texts_of(row):
                if references.get(name):
                    self.missing[name] += text["text"] is None
                    pairs.setdefault(name, []).append((references[name], text["text"] or ""))
        for name, some in pairs.items():
            self.pairs[name] += len(some)
            told, heard = ([pair[side] for pair in some] for side in (0, 1))
            if name == "transcript":
                self._add_words(told, heard)
            else:
                score = bleu(name).corpus_score(heard, [told])
                counted = np.array([*score.counts, *score.totals, score.sys_len, score.ref_len], np.int64)
                self.counts[name] = self.counts.get(name, np.zeros_like(counted)) + counted

    def _add_words(self, told: list[str], heard: list[str]) -> None:
        kept = [(one, other) for one, other in zip(told, heard, strict=True) if _PLAIN(one)[0]]
        if kept:
            made = jiwer.process_words(
                [one for one, _ in kept],
                [other for _, other in kept],
                reference_transform=_PLAIN,
                hypothesis_transform=_PLAIN,
            )
            self.errors += made.substitutions + made.deletions + made.insertions
            self.words += made.hits + made.substitutions + made.deletions

    def figures(self) -> list[tuple[str, str, str, int, int]]:
        """What, by which measure, its value in percent or points, of how many texts, how many of them missing."""
        told = []
        if self.words:
            rate = f"{100 * self.errors / self.words:.1f} %"
            told.append(("transcript", "WER, case and punctuation aside", rate, *self._texts("transcript")))
        for name, counted in sorted(self.counts.items()):
            grams = (len(counted) - 2) // 2
            sizes = int(counted[-2]), int(counted[-1])
            score = BLEU.compute_bleu(counted[:grams].tolist(), counted[grams:-2].tolist(), *sizes, smooth_method="exp")
            told.append((name, f"BLEU, {_TOKENIZERS.get(name, '13a')}", f"{score.score:.1f}", *self._texts(name)))
        return told

    def _texts(self, name: str) -> tuple[int, int]:
        return self.pairs[name], self.missing[name]


def bleu(language: str) -> BLEU:
    """sacrebleu's, with the tokenizer of the language."""
    return BLEU(tokenize=_TOKENIZERS.get(language, "13a"))
