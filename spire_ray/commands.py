"""What each command of `spire-ray` does with its options: one function a command, named like it."""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from spire_ray import codebook_report as usage
from spire_ray import dataset_options, evaluation_report, fit, run, training_sets
from spire_ray.cache import cached_codebook, convert_in_child
from spire_ray.checkpoints import SPIRE_LAYER, Part, resolve
from spire_ray.errors import UserError
from spire_ray.evaluate import evaluate as measure
from spire_ray.export import export as write_export
from spire_ray.fit_plan import check_sizes, new_codebook
from spire_ray.fit_state import FitOptions
from spire_ray.follow import follow
from spire_ray.hub import ENCODER, fetch_codebook, fetch_encoder
from spire_ray.job_part import JobPart
from spire_ray.locations import storage_options
from spire_ray.options import parser
from spire_ray.planning import AudioOptions
from spire_ray.report import write_report
from spire_ray.resources import Wanted
from spire_ray.run import DriverOptions
from spire_ray.settings import Encoding, EngineOptions
from spire_ray.show import print_run, show_run
from spire_ray.store import Store
from spire_ray.submit import submit as submit_job
from spire_ray.submit import without_address
from spire_ray.survey import Survey, rates
from spire_ray.tasks import TextTasks
from spire_ray.text_corpus import read_examples

HERE_ONLY = ("codebook-report", "convert-codebook")  # they read and write files of this machine


def speech_to_text(options: argparse.Namespace) -> None:
    """CORPUS to units, transcripts and translations."""
    run.speech_to_text(
        options.corpus,
        options.out,
        options.checkpoint,
        _tasks(options),
        _audio(options),
        _on(options),
        _engine(options),
    )
    print_run(_store(options), Console(emoji=False))


def tokenize(options: argparse.Namespace) -> None:
    """CORPUS to units."""
    run.tokenize(options.corpus, options.out, _encoding(options), _audio(options), _on(options))
    print_run(_store(options), Console(emoji=False))


def plan(options: argparse.Namespace) -> None:
    """CORPUS to a plan, or to what the plan would be; its hours, lengths and cost."""
    earlier = _store(options, options.like) if options.like else None
    speeds = rates(options.rtfx_units, options.rtfx_text, earlier)
    if options.dry_run:
        found = run.survey(options.corpus, options.out, _audio(options), _on(options))
    else:
        run.plan(options.corpus, options.out, _audio(options), _on(options))
        found = Survey.of_plan(_store(options), options.max_seconds)
    found.show(Console(emoji=False), speeds, options.price_per_hour)
    if options.dry_run and options.segment not in (None, "none"):
        print("these are the recordings: their segments are found when the plan is made", file=sys.stderr)


def generate(options: argparse.Namespace) -> None:
    """Units to transcripts and translations."""
    run.generate(options.out, options.to, options.checkpoint, _tasks(options), _on(options), _engine(options))
    print_run(_store(options, options.to), Console(emoji=False))


def translate(options: argparse.Namespace) -> None:
    """A text corpus to translations."""
    if bool(options.shots) != bool(options.examples):
        raise UserError("--shots 5 and --examples FILE belong together: give both, or neither")
    opened = storage_options(options.storage_options)
    tasks = TextTasks(
        languages=tuple(options.languages),
        method="text",
        transcripts=False,
        source_language=options.source_language,
        max_tokens=options.max_tokens,
        beam=options.beam,
        examples=read_examples(options.examples, options.source_language, options.languages, opened)
        if options.examples
        else {},
    )
    run.translate(options.corpus, options.out, options.checkpoint, tasks, _on(options), _engine(options))
    print_run(_store(options), Console(emoji=False))


def retry(options: argparse.Namespace) -> None:
    """Error rows again."""
    run.retry(options.out, _on(options))
    print_run(_store(options), Console(emoji=False))


def show(options: argparse.Namespace) -> None:
    """What a run directory holds."""
    if options.follow:
        follow(_store(options))
    show_run(_store(options), Console(emoji=False))


def export(options: argparse.Namespace) -> None:
    """One joined Parquet file, or what a training toolkit reads."""
    told = write_export(_store(options), options.target, options.format, options.text, options.languages)
    print(told, file=sys.stderr)


def report(options: argparse.Namespace) -> None:
    """A run on one HTML page."""
    write_report(_store(options), options.target, options.samples, not options.no_audio)
    print(f"written: {options.target}", file=sys.stderr)


def evaluate(options: argparse.Namespace) -> None:
    """Metrics against references."""
    for file, option in ((options.json, "--json"), (options.markdown, "--markdown")):
        if file:
            usage.check_new(file, option)
    if options.json and options.json == options.markdown:
        raise UserError(f"--json and --markdown both name {options.json}: name two files")
    found = measure(_store(options), options.normalizer, options.comet, max(0, options.worst))
    evaluation_report.show(found, Console(emoji=False))
    evaluation_report.write(found, options.json, options.markdown)


def build_dataset(options: argparse.Namespace) -> None:
    """A training set."""
    told = training_sets.build(dataset_options.asked(options))
    training_sets.show(told, Console(emoji=False))


def fit_codebook(options: argparse.Namespace) -> None:
    """CORPUS to a codebook."""
    # Before an encoder is fetched, which may be gigabytes.
    new_codebook(options.target, storage_options(options.storage_options))
    check_sizes(options.clusters, options.frames, options.seed)
    encoder, name, layer = _encoder(options)
    chosen = FitOptions(str(encoder), name, layer, options.clusters, options.frames, options.seed)
    sha256 = fit.fit_codebook(options.corpus, options.target, chosen, _audio(options), _on(options))
    print(f"{options.target}  sha256 {sha256}")


def codebook_report(options: argparse.Namespace) -> None:
    """Usage of a codebook."""
    usage.report(options.codebook, options.out, options.json, options.png, Console(emoji=False))


def submit(options: argparse.Namespace) -> int:
    """A command as a job of a cluster. Returns the job's exit code."""
    words = without_address(options.words)
    if not words or words[0] in (*HERE_ONLY, "submit") or words[0].startswith("-"):
        raise UserError("submit takes a command that works on a corpus or OUT, such as `submit tokenize CORPUS OUT`")
    inner = parser().parse_args(options.words)
    return submit_job(words, inner, options.address or getattr(inner, "address", None), wait=not options.no_wait)


def convert_codebook(options: argparse.Namespace) -> None:
    """A k-means pickle to safetensors."""
    sha256 = convert_in_child("kmeans", options.source, options.target)
    print(f"{options.target}  sha256 {sha256}")


def _tasks(options: argparse.Namespace) -> TextTasks:
    if len(set(options.languages)) != len(options.languages):
        raise UserError(f"--languages names a language twice: {' '.join(options.languages)}")
    return TextTasks(
        languages=tuple(options.languages),
        method=options.translate,
        prompt_variant=options.prompt_variant,
        max_tokens=options.max_tokens,
        beam=options.beam,
    )


def _engine(options: argparse.Namespace) -> EngineOptions:
    return EngineOptions(options.quantization, options.deterministic, options.tensor_parallel)


def _audio(options: argparse.Namespace) -> AudioOptions:
    return AudioOptions(
        shard_minutes=options.shard_minutes,
        max_seconds=options.max_seconds,
        dtype=getattr(options, "dtype", None),
        segment=options.segment,
    )


def _on(options: argparse.Namespace) -> DriverOptions:
    return DriverOptions(
        options.address,
        JobPart.parse(options.part),
        storage_options(options.storage_options),
        options.gpus_per_encoder,
        _wanted(options),
    )


def _wanted(options: argparse.Namespace) -> Wanted:
    """What a run wants of a cluster. UserError where there is none: this machine alone stays as it is."""
    wanted = Wanted(options.cpus, options.gpus)
    if wanted != Wanted() and (options.address or os.environ.get("RAY_ADDRESS") or "local") == "local":
        raise UserError("--gpus and --cpus are asked of a cluster's autoscaler: give its --address")
    return wanted


def _store(options: argparse.Namespace, out: str | None = None) -> Store:
    return Store(out or options.out, storage_options(options.storage_options))


def _encoder(options: argparse.Namespace) -> tuple[Path, str, int]:
    """The encoder to fit a codebook for: its folder, its name as it was given, the layer."""
    if options.checkpoint:
        if options.encoder or options.layer is not None:
            raise UserError("--checkpoint brings its own encoder and layer: leave it out, or leave those out")
        needed: tuple[Part, ...] = ("encoder",)
        found = resolve(options.checkpoint, need=needed)
        if found.encoder is None:
            raise UserError(f"{found.name} translates text, not speech: it has no encoder")
        return found.encoder, Path(options.checkpoint).name, found.layer
    named = options.encoder or ENCODER
    folder = Path(named)
    layer = options.layer or SPIRE_LAYER
    return (folder, folder.resolve().name, layer) if folder.is_dir() else (fetch_encoder(named), named, layer)


def _encoding(options: argparse.Namespace) -> Encoding:
    if options.checkpoint:
        if options.encoder or options.codebook or options.layer is not None:
            raise UserError("--checkpoint brings its own encoder, layer and codebook: leave it out, or leave those out")
        return run.encoding_of(resolve(options.checkpoint, need=("encoder", "codebook")), _audio(options))
    if (options.encoder is None) != (options.codebook is None):
        raise UserError(
            "a codebook belongs to its encoder: give --encoder and --codebook together, or neither for SPIRE's"
        )
    encoder = Path(options.encoder or ENCODER)
    if not encoder.is_dir():
        encoder = fetch_encoder(options.encoder or ENCODER)
    codebook = Path(options.codebook) if options.codebook else fetch_codebook()
    if codebook.is_file() and codebook.suffix != ".safetensors":
        codebook = cached_codebook(codebook)
    return Encoding(str(encoder), str(codebook), options.layer or SPIRE_LAYER, options.dtype, options.max_seconds)
