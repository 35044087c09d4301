"""The test sets of SPIRE's paper (arXiv 2503.10620) as they lie in one folder, DATA, and as `spire-ray` takes them.

    DATA/LibriSpeech/test-clean, test-other                      jobs/librispeech.py says more
    DATA/fleurs/data/en_us/test.tsv                              jobs/fleurs.py
    DATA/voxpopuli/transcribed_data/en/asr_test.tsv              jobs/voxpopuli.py
    DATA/cv-corpus-4-2019-12-10/en/covost_v2.en_de.test.tsv      jobs/covost2.py; and en_zh-CN
    DATA/flores/devtest/deu_Latn.devtest                         a sentence a line, in ten files; dev/deu_Latn.dev
    DATA/wmt23/en-de.en, en-de.de                                and five more pairs, by sacrebleu:

    sacrebleu -t wmt23 -l en-de --echo src > DATA/wmt23/en-de.en
    sacrebleu -t wmt23 -l en-de --echo ref > DATA/wmt23/en-de.de

Instead of all that, DATA/manifest.jsonl is a test set of your own: audio, text, references.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

import covost2
import fleurs
import librispeech
import voxpopuli
from spire_ray.published import fleurs as fleurs_records

FLORES = {
    "en": ("eng_Latn",),
    "de": ("deu_Latn",),
    "fr": ("fra_Latn",),
    "nl": ("nld_Latn",),
    "it": ("ita_Latn",),
    "es": ("spa_Latn",),
    "pt": ("por_Latn",),
    "ko": ("kor_Hang",),
    "ru": ("rus_Cyrl",),
    "zh": ("cmn_Hans", "zho_Hans"),  # FLORES+ and FLORES-200
}
WMT23 = ("de", "ru", "zh")
TARGETS = tuple(FLORES)[1:]
OWN = "manifest.jsonl"


@dataclass(frozen=True)
class Speech:
    """Recordings of English with transcripts, and for `languages` translations too."""

    name: str
    corpus: Path
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """Sentences with translations. `examples`: a text corpus for five-shot prompts, where there is one."""

    name: str
    corpus: Path
    source: str
    languages: tuple[str, ...]
    examples: Path | None


@dataclass(frozen=True)
class Absent:
    """A set that is not there, and why."""

    name: str
    why: str


def asr(data: Path) -> Iterator[Speech | Absent]:
    """The sets of the table of transcription."""
    if (data / OWN).is_file():
        yield Speech("own", data / OWN)
        return
    for split in ("test-clean", "test-other"):
        yield _speech(f"LibriSpeech-{split}", Path(librispeech.corpus(str(data / "LibriSpeech"))).with_name(split))
    yield _speech("FLEURS", Path(fleurs.corpus(str(data / "fleurs"))))
    yield _speech("VoxPopuli", Path(voxpopuli.corpus(str(data / "voxpopuli"))))


def st(data: Path, work: Path) -> Iterator[Speech | Absent]:
    """The sets of speech translation. `work`: where the manifest of FLEURS with FLORES+'s references is written."""
    if (data / OWN).is_file():
        rows = _lines(data / OWN)
        languages = sorted({each["language"] for row in rows for each in row.get("references") or []})
        yield Speech("own", data / OWN, tuple(languages)) if languages else Absent("own", "it has no references")
        return
    yield _fleurs_with_flores(data, work)
    # Both tables are one corpus, named by a glob.
    tables = Path(covost2.corpus(str(data / "cv-corpus-4-2019-12-10" / "en")))
    missing = [name for name in ("de", "zh-CN") if not tables.with_name(f"covost_v2.en_{name}.test.tsv").is_file()]
    yield Absent("CoVoST-2", f"{tables} is not there") if missing else Speech("CoVoST-2", tables, ("de", "zh"))


def mt(data: Path, work: Path) -> Iterator[Text | Absent]:
    """The sets of text translation, written to `work` as text corpora with references."""
    if (data / OWN).is_file():
        rows = [
            {"id": row["id"], "text": row["text"], "references": row["references"]}
            for row in _lines(data / OWN)
            if row.get("references")
        ]
        languages = sorted({each["language"] for row in rows for each in row["references"]})
        yield Text("own", _write(work / "own.jsonl", rows), "en", tuple(languages), None)
        return
    devtest, dev = _flores(data, "devtest"), _flores(data, "dev")
    for source, targets in [("en", TARGETS), *((target, ("en",)) for target in TARGETS)]:
        name = f"FLORES {source}"
        examples = _parallel(work / f"flores-dev-{source}.jsonl", dev, source, targets) if dev else None
        if not devtest:
            yield Absent(name, f"{data / 'flores' / 'devtest'} lacks a language")
        else:
            corpus = _parallel(work / f"flores-devtest-{source}.jsonl", devtest, source, targets)
            yield Text(name, corpus, source, targets, examples)
    for source, target in [pair for other in WMT23 for pair in (("en", other), (other, "en"))]:
        yield _wmt(data, work, source, target, bool(dev))


def _wmt(data: Path, work: Path, source: str, target: str, has_examples: bool) -> Text | Absent:
    name = f"WMT23 {source}"
    files = {code: data / "wmt23" / f"{source}-{target}.{code}" for code in (source, target)}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        return Absent(f"{name}-{target}", f"{missing[0]} is not there")
    lines = {code: _sentences(file) for code, file in files.items()}
    corpus = _parallel(work / f"wmt23-{source}-{target}.jsonl", lines, source, (target,))
    # WMT23 has no dev set of its own.
    return Text(name, corpus, source, (target,), work / f"flores-dev-{source}.jsonl" if has_examples else None)


def _speech(name: str, corpus: Path) -> Speech | Absent:
    return Speech(name, corpus) if corpus.exists() else Absent(name, f"{corpus} is not there")


def _fleurs_with_flores(data: Path, work: Path) -> Speech | Absent:
    """FLEURS's recordings; their translations are those of the line of FLORES+ that has the very same English."""
    table, devtest = Path(fleurs.corpus(str(data / "fleurs"))), _flores(data, "devtest")
    if not table.is_file():
        return Absent("FLEURS", f"{table} is not there")
    if not devtest:
        return Absent("FLEURS", f"its references are not there: {data / 'flores' / 'devtest'} lacks a language")
    at = {line: number for number, line in enumerate(devtest["en"])}
    rows = []
    for record in fleurs_records(LocalFileSystem(), str(table)):
        values = record.values
        # Without a problem only: FLEURS as published has none.
        number = None if record.problem else at.get(values["reference"])
        found = [] if number is None else [{"language": code, "text": devtest[code][number]} for code in TARGETS]
        audio = table.parent / str(values["audio"])
        row = {"id": values["audio"], "audio": str(audio.absolute()), "text": values["reference"], "references": found}
        rows.append(row)
    return Speech("FLEURS", _write(work / "fleurs-flores.jsonl", rows), TARGETS)


def _flores(data: Path, split: str) -> dict[str, list[str]]:
    """The lines of each language; empty when one is missing."""
    folder = data / "flores" / split
    files = {
        language: next((file for code in codes if (file := folder / f"{code}.{split}").is_file()), None)
        for language, codes in FLORES.items()
    }
    return {} if None in files.values() else {language: _sentences(file) for language, file in files.items() if file}


def _parallel(file: Path, lines: dict[str, list[str]], source: str, targets: Iterable[str]) -> Path:
    rows = [
        {
            "id": f"{number:05}",
            "text": text,
            "references": [{"language": target, "text": lines[target][number]} for target in targets],
        }
        for number, text in enumerate(lines[source])
    ]
    return _write(file, rows)


def _sentences(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file
