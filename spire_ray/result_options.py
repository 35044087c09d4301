"""Options of the commands that read a finished run: show, export, and what is made of its tables."""

import argparse
from collections.abc import Callable
from pathlib import Path

from spire_ray import dataset_options

PARQUET = "parquet"
EXPORTS = (PARQUET, "nemo", "lhotse", "webdataset", "huggingface")
TEXTS = ("generated", "reference")  # of an export
OUT_HELP = "the run directory: a path or any fsspec URL"


def add(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Their parsers. `command`: makes one, from its name and what it is for."""
    one = command("show", "what a run directory holds: counts, hours, errors by reason, speed, a few rows")
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    one.add_argument(
        "--follow", action="store_true", help="first the progress of the drivers at work in it; ends as they end"
    )
    storage_option(one)

    _report(command("report", "a run on one HTML page: hours, errors, flags, units, lengths, scores, samples to hear"))
    _evaluate(command("evaluate", "WER, CER, BLEU, chrF and COMET of a run against the references of its corpus"))
    _export(command("export", "a run as one joined Parquet file, or as what a training toolkit reads"))
    dataset_options.add(command("build-dataset", "a training set of a run's tables: lines or conversations, filtered"))


def _report(one: argparse.ArgumentParser) -> None:
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    one.add_argument("--html", dest="target", default="report.html", metavar="FILE", help="it must not exist")
    one.add_argument("--samples", type=int, default=20, metavar="N", help="how many utterances to show (default 20)")
    one.add_argument("--no-audio", action="store_true", help="no sound in the page, and none is read")
    storage_option(one)


def _export(one: argparse.ArgumentParser) -> None:
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    one.add_argument("target", metavar="FILE", help="the file or folder to write; it must not exist")
    one.add_argument(
        "--format",
        choices=EXPORTS,
        default=PARQUET,
        help="parquet: a file with all of an utterance in a row; nemo: a manifest; lhotse: cuts, FILE.jsonl.gz; "
        "webdataset: a folder of tar shards with the audio; huggingface: a folder of Parquet with the audio and a card",
    )
    one.add_argument(
        "--text",
        choices=TEXTS,
        help="which text to learn, its translations with it: what the run generated (the default) or the references",
    )
    one.add_argument(
        "--languages", nargs="*", metavar="LANGUAGE", help="translations to take (default: those that the run made)"
    )
    storage_option(one)


def _evaluate(one: argparse.ArgumentParser) -> None:
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    one.add_argument(
        "--normalizer",
        choices=["whisper", "basic", "none"],
        default="whisper",
        help="before words are compared: Whisper's English rules, its basic ones, none (whisper)",
    )
    one.add_argument("--comet", metavar="PYTHON", help="measure COMET-22 by this python, which has unbabel-comet")
    one.add_argument("--worst", type=int, default=10, metavar="N", help="utterances to list of each task (10)")
    one.add_argument("--json", type=Path, metavar="FILE", help="the result as JSON too; FILE must not exist")
    one.add_argument("--markdown", type=Path, metavar="FILE", help="and as Markdown")
    storage_option(one)


def storage_option(one: argparse.ArgumentParser) -> None:
    """--storage-options, which every command on CORPUS or OUT has."""
    one.add_argument(
        "--storage-options",
        default="{}",
        metavar="JSON",
        help="fsspec's options for CORPUS and OUT, such as an endpoint; credentials come from the environment",
    )
