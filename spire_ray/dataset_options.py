"""The options of `build-dataset`, and what they ask for."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spire_ray.training_sets import Build


def add(one: argparse.ArgumentParser) -> None:
    """Every option of the command."""
    one.add_argument("out", metavar="OUT", help="the run directory: a path or any fsspec URL")
    one.add_argument("dataset", metavar="DATASET", help="the folder to write: a path or any fsspec URL")
    group = one.add_argument_group("examples")
    group.add_argument(
        "--format",
        choices=["pretraining", "instructions"],
        default="instructions",
        help="lines of continued pre-training, or conversations (instructions)",
    )
    group.add_argument(
        "--tasks",
        nargs="+",
        choices=["asr", "st", "multi-turn", "mt"],
        metavar="TASK",
        help="of asr, st, multi-turn, mt (asr st; of pretraining: asr)",
    )
    group.add_argument(
        "--transcripts",
        choices=["reference", "generated"],
        default="reference",
        help="the corpus's, or those that OUT generated (reference)",
    )
    group.add_argument(
        "--translations",
        default="reference",
        metavar="WHICH",
        help="reference, generated, or the OUT of `translate` over the transcripts, joined by id or text (reference)",
    )
    group.add_argument(
        "--text", dest="text_files", nargs="+", default=[], metavar="FILE", help="text lines to mix into pretraining"
    )
    group.add_argument("--text-ratio", type=float, default=1.0, metavar="R", help="of them to a line of speech (1)")
    _filter_options(one)
    _draw_options(one)
    one.add_argument("--jsonl", action="store_true", help="JSONL beside the Parquet parts")
    one.add_argument("--address", metavar="HOST:PORT", help="a running Ray cluster (this machine alone)")
    one.add_argument(
        "--storage-options",
        default="{}",
        metavar="JSON",
        help="fsspec's options for OUT and DATASET, such as an endpoint; credentials come from the environment",
    )


def _filter_options(one: argparse.ArgumentParser) -> None:
    group = one.add_argument_group("filters", "what is lost has its reason in DATASET/dropped")
    group.add_argument("--preset", choices=["spire", "granary"], help="thresholds of SPIRE's authors, or of Granary")
    group.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="BOUND",
        help="such as 'wer<=0.3' 'lid>0.5'; on duration_s, speech_ratio, words, characters_per_second, length_ratio,"
        " character_ratio, script_share, lid, wer, avg_logprob, qe, tokens",
    )
    group.add_argument("--allow-flags", nargs="+", default=[], metavar="FLAG", help="flags that drop nothing (none)")
    group.add_argument(
        "--dedupe",
        nargs="*",
        choices=["units", "text", "near"],
        default=["units"],
        metavar="KIND",
        help="remove equal units, equal texts, near duplicates by MinHash: units, text, near (units)",
    )
    group.add_argument(
        "--scorer", metavar="NAME", help="quality estimation: comet-kiwi, blaser-2-qe or package.module:callable"
    )
    group.add_argument("--scorer-python", metavar="PYTHON", help="the interpreter that has the named scorer's package")
    group.add_argument("--max-tokens", type=int, metavar="N", help="longest example")
    group.add_argument("--checkpoint", metavar="NAME", help="whose tokenizer counts tokens")
    group.add_argument("--tokenizer", metavar="DIR", help="the folder of a tokenizer alone")


def _draw_options(one: argparse.ArgumentParser) -> None:
    group = one.add_argument_group("drawing")
    group.add_argument("--per-language", type=int, metavar="N", help="utterances of each language (all)")
    group.add_argument(
        "--top-k",
        choices=["qe", "avg_logprob", "speech_ratio", "wer"],
        help="the N best by this value, not N at random",
    )
    group.add_argument("--weights", nargs="+", default=[], metavar="CORPUS=W", help="share of a corpus that is kept")
    group.add_argument("--dev", type=float, default=0.0, metavar="SHARE", help="of speakers and recordings (0)")
    group.add_argument("--seed", type=int, default=0, metavar="S", help="another one draws others (0)")


def asked(options: argparse.Namespace) -> "Build":
    """What the options ask for. UserError for what does not go together."""
    from spire_ray import filters
    from spire_ray.checkpoints import LLM, resolve
    from spire_ray.errors import UserError
    from spire_ray.locations import storage_options
    from spire_ray.quality import FLAGS
    from spire_ray.recipe import Recipe, weights_of
    from spire_ray.training_sets import Build

    if options.checkpoint and options.tokenizer:
        raise UserError("--checkpoint brings its own tokenizer: leave out one of them")
    if options.tokenizer and not Path(options.tokenizer).is_dir():
        raise UserError(f"--tokenizer {options.tokenizer} is not a folder")
    if unknown := sorted(set(options.allow_flags) - set(FLAGS)):
        raise UserError(f"--allow-flags {unknown[0]}: the flags are {', '.join(FLAGS)}")
    bounds = [filters.parse(text) for text in options.keep]
    if options.max_tokens is not None:
        bounds.append(filters.Bound("tokens", "<=", options.max_tokens))
    if any(bound.name == "tokens" for bound in bounds) and not (options.checkpoint or options.tokenizer):
        raise UserError("tokens are counted by a tokenizer: name it by --checkpoint or --tokenizer")
    pretraining = options.format == "pretraining"
    recipe = Recipe(
        format=options.format,
        tasks=tuple(options.tasks or (["asr"] if pretraining else ["asr", "st"])),
        transcripts=options.transcripts,
        translations=options.translations,
        bounds=tuple(bounds),
        preset=options.preset,
        allowed_flags=tuple(options.allow_flags),
        dedupe=tuple(options.dedupe),
        weights=weights_of(options.weights),
        per_language=options.per_language,
        top_k=options.top_k,
        dev=options.dev,
        seed=options.seed,
        text=tuple(options.text_files),
        text_ratio=options.text_ratio,
        scorer=options.scorer,
        jsonl=options.jsonl,
    )
    tokenizer = resolve(options.checkpoint, need=LLM) if options.checkpoint else options.tokenizer
    return Build(
        options.out,
        options.dataset,
        recipe,
        tokenizer,
        options.scorer_python,
        options.address,
        storage_options(options.storage_options),
    )
