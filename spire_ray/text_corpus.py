"""A text corpus to planned rows: a sentence a line, or a manifest with a column of text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from spire_ray import manifest, tables
from spire_ray.errors import RowFault, UserError
from spire_ray.locations import locate, patiently
from spire_ray.parquet import open_parquet
from spire_ray.prompts import SHOTS, Example
from spire_ray.utterances import bad_row, checked_id, tables_of


def read_text_corpus(
    corpus: str,
    *,
    source_language: str,
    target_language: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Everything in a text corpus as rows of PLANNED, with `text` and `source_language`, unsorted.

    `corpus`: .txt (a sentence a line), JSONL, CSV, TSV or Parquet with a column of manifest.NAMES["source"]. Ids are
    the manifest's, else `line-<n>`, n counted from 0 and padded, so that the order of ids is the order of lines. A row
    without text has the error `empty`. A plain column of NAMES["target"] is a reference in `target_language`.
    UserError: as in read_corpus.
    """
    fs, path = locate(corpus, storage_options)
    try:
        info = patiently(corpus, lambda: fs.info(path))
    except FileNotFoundError:
        raise UserError(f"corpus {corpus} does not exist") from None
    kind = "" if info["type"] == "directory" else patiently(corpus, lambda: manifest.kind_of(fs, path))
    if kind not in ("txt", "jsonl", "csv", "tsv", "psv", "parquet"):
        raise UserError(f"text corpus {corpus} is not a file of the types read: .txt, JSONL, CSV, TSV, Parquet")

    def read() -> pa.Table:
        with manifest.opened(fs, path) as file:
            if kind == "parquet":
                open_parquet(file, path)
                file.seek(0)
            rows = _text_rows(list(manifest.records(file, kind)), source_language, target_language)
            return pa.concat_tables(tables_of(rows, corpus))

    return patiently(corpus, read)


def read_examples(
    file: str, source_language: str, languages: Sequence[str], storage_options: Mapping[str, Any] | None = None
) -> dict[tuple[str, str], tuple[Example, ...]]:
    """The examples of five-shot prompts, by source and target language: `file` is a text corpus with references.

    UserError where a pair of `source_language` and one of `languages` has fewer than five.
    """
    only = languages[0] if len(languages) == 1 else None
    rows = read_text_corpus(
        file, source_language=source_language, target_language=only, storage_options=storage_options
    ).to_pylist()
    found: dict[tuple[str, str], list[Example]] = {}
    for row in rows:
        for reference in row["references"] or []:
            # A line break would end the example: the next line is the next language.
            if row["error"] is None and reference["language"] in languages and reference["text"].strip():
                pair = (row["source_language"], reference["language"])
                found.setdefault(pair, []).append((_line(row["text"]), _line(reference["text"])))
    for target in languages:
        if (count := len(found.get((source_language, target), []))) < SHOTS:
            raise UserError(f"{file} has {count} examples from {source_language} to {target}: {SHOTS} are needed")
    return {pair: tuple(examples) for pair, examples in found.items()}


def _line(text: str) -> str:
    return " ".join(text.split())


def _text_rows(records: list[manifest.Record], language: str, target_language: str | None) -> Iterator[dict[str, Any]]:
    if records and not any("source" in manifest.parts(tuple(record.values)).columns for record in records):
        names = dict.fromkeys(name for record in records[:1000] for name in record.values)
        there, accepted = ", ".join(names) or "none", ", ".join(manifest.NAMES["source"])
        raise UserError(f"the text corpus has no text column: its columns are {there}; accepted are {accepted}")
    width = max(6, len(str(len(records) - 1)))
    for number, record in enumerate(records):
        try:
            if record.problem:
                raise RowFault("bad_manifest_row", record.problem)
            yield _text_row(record, f"line-{number:0{width}}", language, target_language)
        except RowFault as fault:
            yield bad_row(number, record.where, fault.detail, language)


def _text_row(record: manifest.Record, line_id: str, language: str, target_language: str | None) -> dict[str, Any]:
    values, found = record.values, manifest.parts(tuple(record.values))
    references = manifest.translations(values, found)
    if (target := manifest.text(values, found.columns.get("target"))) is not None:
        references.append({"language": target_language, "text": target})
    source = manifest.text(values, found.columns.get("source"))
    return {
        "utterance_id": checked_id(manifest.text(values, found.columns.get("id")) or line_id),
        "corpus": manifest.text(values, found.columns.get("corpus")),
        "text": source,
        "source_language": manifest.text(values, found.columns.get("language")) or language,
        "references": references or None,
        "error": tables.error("empty", f"{record.where} has no text") if not (source or "").strip() else None,
    }
