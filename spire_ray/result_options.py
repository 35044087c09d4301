"""Options of the commands that read a finished run: show, export, and what is made of its tables."""

import argparse
from collections.abc import Callable

from spire_ray import dataset_options

OUT_HELP = "the run directory: a path or any fsspec URL"


def add(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Their parsers. `command`: makes one, from its name and what it is for."""
    one = command("show", "what a run directory holds: counts, hours, errors by reason, speed, a few rows")
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    one.add_argument(
        "--follow", action="store_true", help="first the progress of the drivers at work in it, to their end"
    )
    storage_option(one)

    one = command("export", "one Parquet file: id, audio, units, transcript and translations joined")
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    one.add_argument("file", metavar="FILE", help="the file to write; it must not exist")
    storage_option(one)
    dataset_options.add(command("build-dataset", "a training set of a run's tables: lines or conversations, filtered"))


def storage_option(one: argparse.ArgumentParser) -> None:
    """--storage-options, which every command on CORPUS or OUT has."""
    one.add_argument(
        "--storage-options",
        default="{}",
        metavar="JSON",
        help="fsspec's options for CORPUS and OUT, such as an endpoint; credentials come from the environment",
    )
