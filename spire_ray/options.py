"""Every command of `spire-ray` and its options: `--help` reads from here."""

import argparse
from pathlib import Path
from typing import NoReturn

from spire_ray import __version__, result_options
from spire_ray.result_options import OUT_HELP, storage_option

DESCRIPTION = """\
Speech corpora to Parquet tables of units, transcripts and translations with SPIRE, as a batch job on Ray.

Run the same command again after any interruption: what has been committed is kept, the rest is done."""
EPILOG = """\
examples:
  spire-ray speech-to-text /data/LibriSpeech/test-clean out --checkpoint SpireFull --languages de fr
  spire-ray tokenize s3://corpora/train.jsonl s3://results/units
  spire-ray generate s3://results/units --to s3://results/base --checkpoint SpireBase
  spire-ray translate wiki.de.txt out-en --from de --languages en --checkpoint TowerFull
  spire-ray submit --address http://head:8265 tokenize s3://corpora/train.jsonl s3://results/units

exit codes: 0 done, 1 stopped by a fault of the machine, 2 wrong input or settings, 75 interrupted: run it again; 130 of
a followed `submit` that was left: the job goes on"""
CORPUS_HELP = (
    "a folder of audio, a manifest (JSONL, CSV, TSV, Parquet), or Parquet with audio bytes; a path or any fsspec URL"
)


class _Parser(argparse.ArgumentParser):
    """One that tells of a mistake in one line, as all of this program does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; `{self.prog} --help` tells more\n")


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = _Parser(
        "spire-ray", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"spire-ray {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")

    one = command("speech-to-text", "audio to units, transcripts and translations")
    _corpus_and_out(one)
    _text_options(one)
    _translation_options(one)
    _audio_options(one)
    _ray_options(one, encoders=True)

    one = command("tokenize", "audio to units only")
    _corpus_and_out(one)
    source = one.add_argument_group("encoder and codebook", "SPIRE's by default")
    source.add_argument("--checkpoint", metavar="NAME", help="take those of this checkpoint or bundle folder")
    source.add_argument("--encoder", metavar="DIR_OR_NAME", help="a transformers HuBERT folder or hub name")
    source.add_argument("--layer", type=_positive(int), metavar="N", help="its layer, counted from 1 (22)")
    source.add_argument(
        "--codebook", metavar="FILE", help="safetensors with the tensor `centroids`, or a k-means pickle"
    )
    _audio_options(one)
    _ray_options(one, encoders=True)

    one = command("plan", "what a corpus comes to: hours, lengths, shards, cost; and its plan, for the other commands")
    _corpus_and_out(one)
    one.add_argument("--dry-run", action="store_true", help="write nothing")
    cost = one.add_argument_group("cost", "from speeds that were measured; audio seconds per second of one GPU")
    cost.add_argument("--like", metavar="OUT0", help="as fast as this earlier run was")
    cost.add_argument("--rtfx-units", type=_positive(float), metavar="X", help="of making units")
    cost.add_argument("--rtfx-text", type=_positive(float), metavar="X", help="of making all the text")
    cost.add_argument("--price-per-hour", type=_positive(float), metavar="P", help="of one GPU, in any currency")
    _planning_options(one.add_argument_group("audio"))
    _ray_options(one)

    one = command("generate", "units already there to transcripts and translations")
    one.add_argument("out", metavar="OUT", help=f"{OUT_HELP} that holds the units")
    one.add_argument("--to", metavar="OUT2", help="write the text to another run directory, sharing OUT's units")
    _text_options(one)
    _translation_options(one)
    _ray_options(one)

    one = command("translate", "a text corpus to translations")
    one.add_argument(
        "corpus", metavar="TEXT", help="JSONL or Parquet with a text column, or a .txt with a sentence a line"
    )
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    one.add_argument("--from", dest="source_language", required=True, metavar="LANG", help="its language, ISO 639-1")
    few = one.add_argument_group("prompt", "base models need examples")
    few.add_argument("--shots", type=int, choices=[0, 5], default=0, help="examples before each text (0)")
    few.add_argument("--examples", metavar="FILE", help="where five are drawn from: a text corpus with references")
    _text_options(one, languages_required=True)
    _ray_options(one)

    one = command("retry", "do error rows again, after their cause was mended")
    one.add_argument("out", metavar="OUT", help=OUT_HELP)
    _ray_options(one)

    result_options.add(command)

    one = command("fit-codebook", "k-means on the features of a corpus: a codebook of your own")
    one.add_argument("corpus", metavar="CORPUS", help=CORPUS_HELP)
    one.add_argument("target", metavar="CODEBOOK.safetensors", help="the file to write; it must not exist")
    one.add_argument("--clusters", type=int, required=True, metavar="K", help="how many units: 2 to 32767")
    one.add_argument(
        "--frames",
        type=_positive(int),
        default=10_000_000,
        metavar="N",
        help="frames of 20 ms to fit on; 5 %% as many, and at most 200,000, are held out (10,000,000)",
    )
    one.add_argument("--seed", type=int, default=0, metavar="S", help="another one samples other frames (0)")
    source = one.add_argument_group("encoder", "SPIRE's by default")
    source.add_argument("--checkpoint", metavar="NAME", help="take that of this checkpoint or bundle folder")
    source.add_argument("--encoder", metavar="DIR_OR_NAME", help="a transformers HuBERT folder or hub name")
    source.add_argument("--layer", type=_positive(int), metavar="N", help="its layer, counted from 1 (22)")
    _audio_options(one)
    _ray_options(one, parts=False)  # nor encoders: a holder of frames has the rest of each GPU

    one = command("codebook-report", "what a codebook was fitted on, and how units use it: a table, a picture, JSON")
    one.add_argument("codebook", type=Path, metavar="CODEBOOK.safetensors")
    one.add_argument("out", nargs="?", metavar="UNITS_OUT", help="a run directory with units made by it")
    one.add_argument("--json", type=Path, metavar="FILE", help="the numbers (CODEBOOK.report.json)")
    one.add_argument("--png", type=Path, metavar="FILE", help="the picture, of units (CODEBOOK.report.png)")

    one = command(
        "submit", "a command above as a job of a Ray cluster, followed to its end; after Ctrl-C (130) it goes on"
    )
    one.add_argument("--address", metavar="http://HEAD:8265", help="the cluster's job API (RAY_API_SERVER_ADDRESS)")
    one.add_argument("--no-wait", action="store_true", help="return when the job is there")
    one.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND …", help="the command with its options")

    one = command("convert-codebook", "a published k-means pickle to safetensors, executing nothing from it")
    one.add_argument("source", type=Path, metavar="KMEANS_MODEL", help="joblib pickle of an sklearn k-means estimator")
    one.add_argument("target", type=Path, metavar="OUT.safetensors", help="the file to write; it must not exist")
    return top


def _corpus_and_out(one: argparse.ArgumentParser) -> None:
    one.add_argument("corpus", metavar="CORPUS", help=CORPUS_HELP)
    one.add_argument("out", metavar="OUT", help=OUT_HELP)


def _text_options(one: argparse.ArgumentParser, languages_required: bool = False) -> None:
    group = one.add_argument_group("text")
    group.add_argument("--checkpoint", required=True, metavar="NAME", help="SpireFull, SpireBase, …, tiny, or a folder")
    none = "" if languages_required else "; without it transcripts only"
    group.add_argument(
        "--languages",
        nargs="+",
        default=[],
        required=languages_required,
        metavar="LANG",
        help=f"target languages, ISO 639-1{none}",
    )
    group.add_argument("--max-tokens", type=_positive(int), default=256, metavar="N", help="longest answer (256)")
    group.add_argument(
        "--beam",
        type=_positive(int),
        default=1,
        metavar="N",
        help="beam search; 4 costs 6 to 10 times as much (1: greedy)",
    )
    engine = one.add_argument_group("engine")
    engine.add_argument("--quantization", choices=["fp8"], help="of the weights, on GPUs (none)")
    engine.add_argument("--tensor-parallel", type=_positive(int), default=1, metavar="N", help="GPUs to one engine (1)")
    engine.add_argument(
        "--deterministic", action="store_true", help="an answer does not depend on what else is in the engine; slower"
    )


def _translation_options(one: argparse.ArgumentParser) -> None:
    group = one.add_argument_group("translation")
    group.add_argument(
        "--translate",
        choices=["direct", "self-cascade", "multi-turn"],
        default="direct",
        help="from the units; from the model's own transcript; or in a second turn after the transcript (direct)",
    )
    group.add_argument(
        "--prompt-variant",
        choices=["no-space", "space"],
        default="no-space",
        help="`\\nGerman:` or `\\n German:` after the units (no-space)",
    )


def _audio_options(one: argparse.ArgumentParser) -> None:
    group = one.add_argument_group("audio")
    _planning_options(group)
    group.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        help="of the encoder (float32 on CPUs, float16 with a float32 residual on GPUs)",
    )


def _planning_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--segment",
        metavar="HOW",
        help="cut recordings: vad (at pauses, up to 25 s), fixed:SECONDS (at the quietest point before), none (none)",
    )
    group.add_argument(
        "--shard-minutes", type=_positive(float), metavar="M", help="audio in a shard (60 with GPUs, 10 without)"
    )
    group.add_argument(
        "--max-seconds", type=_positive(float), default=120.0, metavar="S", help="longer is too_long (120)"
    )


def _ray_options(one: argparse.ArgumentParser, parts: bool = True, encoders: bool = False) -> None:
    group = one.add_argument_group("Ray")
    group.add_argument("--address", metavar="HOST:PORT", help="a running Ray cluster (this machine alone)")
    if parts:
        wanted = "take {} of the cluster, and ask its autoscaler for those that it has not (all there are)"
        group.add_argument("--gpus", type=_positive(int), default=0, metavar="N", help=wanted.format("N GPUs"))
        group.add_argument("--cpus", type=_positive(int), default=0, metavar="N", help=wanted.format("N CPUs"))
        group.add_argument(
            "--part", default="1/1", metavar="N/M", help="do every M-th shard; M drivers at once share OUT (1/1)"
        )
    if encoders:
        group.add_argument(
            "--gpus-per-encoder",
            type=_share,
            default=1.0,
            metavar="X",
            help="share of a GPU that an encoder reserves: 0.5 puts two on each (1)",
        )
    one.set_defaults(part="1/1", gpus_per_encoder=1.0, gpus=0, cpus=0)
    storage_option(one)


def _share(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 1")
    return value


def _positive(kind: type[int] | type[float]) -> "type[int] | type[float]":
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse.__name__ = kind.__name__  # argparse names it in its message
    return parse  # type: ignore[return-value]
