"""Measurements, one subcommand each.

overhead    what the framework costs: the whole job against the sum of its bare parts, on this machine's CPUs
read        tar shards on an S3 server to waveforms, beside decoding alone, Ray Data's reader and a loop over files
text        the generation actor against vLLM's own LLM.generate, and ten tasks with and without shared prefixes
units       speech to units: the usual ways, the packed encoder, and the whole `spire-ray tokenize`
codebook    k-means against scikit-learn's, on real speech: how good, how fast, and what an iteration costs
plan        a synthetic manifest of many utterances to a plan: seconds, memory
segment     hours of real speech in one file to pieces, by pauses and by length: seconds, memory
resume      a run of 10^5 shards, half done: how long until its first new shard, what the driver holds
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import benchmark_codebook
import benchmark_overhead
import benchmark_plan
import benchmark_read
import benchmark_resume
import benchmark_segment
import benchmark_text
import benchmark_units

sys.path.append(str(Path(__file__).parents[1] / "tests"))


def main() -> int:
    """One measurement: a table on standard output, and its figures in a file where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements = parser.add_subparsers(dest="measurement", required=True, metavar="MEASUREMENT")

    one = measurements.add_parser("overhead", help="the whole job against the sum of its bare parts, on CPUs")
    one.add_argument("--minutes", type=float, default=benchmark_overhead.MINUTES, help="of speech (%(default)g)")
    _file_options(one)
    one.set_defaults(measure=_overhead)

    one = measurements.add_parser("read", help="FLAC in tar shards on an S3 server of this machine to waveforms")
    one.add_argument("--minutes", type=float, default=benchmark_read.MINUTES, help="of speech (%(default)g)")
    _file_options(one)
    one.set_defaults(measure=_read)

    one = measurements.add_parser("text", help="the generation actor against LLM.generate; shared prefixes or none")
    one.add_argument("--utterances", type=int, nargs=2, default=(None, None), metavar=("ASR", "TEN"), help="how many")
    _file_options(one)
    one.set_defaults(measure=_text)

    one = measurements.add_parser("units", help="speech to units: the usual ways, the packed encoder, the whole job")
    benchmark_units.add_options(one)
    _file_options(one)
    one.set_defaults(measure=_units)

    one = measurements.add_parser("codebook", help="k-means against scikit-learn's, on frames of real speech")
    _file_options(one)
    one.set_defaults(measure=_codebook)
    one = measurements.add_parser("plan", help="a synthetic manifest of so many utterances to a plan")
    one.add_argument("--utterances", type=int, nargs="+", default=benchmark_plan.SIZES, metavar="N", help="how many")
    _file_options(one)
    one.set_defaults(measure=_plan)

    one = measurements.add_parser("segment", help="a long recording to pieces, as --segment does")
    one.add_argument("--hours", type=float, default=benchmark_segment.HOURS, help="of speech (%(default)g)")
    _file_options(one)
    one.set_defaults(measure=_segment)

    one = measurements.add_parser("resume", help="a run of many shards, half done: its first new shard, its driver")
    one.add_argument(
        "--shards", type=int, default=benchmark_resume.SHARDS, metavar="N", help="of the run (%(default)s)"
    )
    where = one.add_mutually_exclusive_group()
    where.add_argument("--out", metavar="URL", help="an empty place for the run, in object storage for instance")
    where.add_argument("--s3", action="store_true", help="start an S3 server on this machine and put the run there")
    _file_options(one)
    one.set_defaults(measure=_resume)

    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.work_dir) as folder:
        report, code = options.measure(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps({"measurement": options.measurement, **report}, indent=2) + "\n")
    return int(code)


def _file_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    one.add_argument("--work-dir", type=Path, metavar="DIR", help="where models, sound and tables go meanwhile")


def _overhead(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    report = benchmark_overhead.measure(options.minutes, folder)
    corpus, parameters, texts = report["corpus"], report["parameters"], report["texts"]
    _print_machine(report)
    print(f"cores   {report['threads']['encode']} to each part; load average {report['load_before']} before")
    print(f"models  random, float32: encoder {parameters['encoder']:,} parameters, LLM {parameters['llm']:,}")
    print(f"corpus  {corpus['minutes']:.1f} minutes in {corpus['utterances']} utterances and {corpus['shards']} shards")
    print(
        f"text    {corpus['requests']} requests, {corpus['prompt_tokens']:,} prompt tokens "
        f"({corpus['cached_tokens']:,} in the prefix cache), {corpus['generated_tokens']:,} generated"
    )
    print()
    _print_table(report["rows"], {"name": "", "seconds": "seconds", "rtfx": "RTFx", "ratio": "of bare"})
    print()
    print(f"job / bare: {report['ratio']:.3f} (target: at most {benchmark_overhead.TARGET})")
    started = ", ".join(f"{seconds:.0f} s until {name}" for name, seconds in report["job_startup_seconds"].items())
    print(f"not counted: the job took {report['job_wall_seconds']:.0f} s in all; its models were ready after {started}")
    print(f"units: {len(report['units_differ'])} of {corpus['utterances']} utterances differ from the bare loop's")
    print(f"texts: {texts['equal']} of {texts['of']} equal those of LLM.generate")
    return report, 1 if report["units_differ"] else 0


def _read(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    report = benchmark_read.measure(options.minutes, folder)
    corpus = report["corpus"]
    _print_machine(report)
    print(f"load    {report['load']} before; the S3 server runs on the same CPUs")
    print(f"corpus  {corpus['minutes']} minutes of speech, {corpus['utterances']} FLAC, {corpus['megabytes']} MB\n")
    _print_table(report["rows"], benchmark_read.COLUMNS)
    print(f"\nReadAudio / decoding alone: {report['of_decoding']} (target: at least {report['target']:g})")
    return report, 0


def _text(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    report = benchmark_text.measure(folder, *options.utterances)
    _print_machine(report)
    print(f"threads {report['threads']}; load {report['load_before']} before")
    print(f"model   random, {report['engine']['dtype']}, {report['parameters']:,} parameters")
    print()
    headings = {"requests": "requests", "seconds": "seconds", "tokens_per_second": "tokens/s", "rtfx": "RTFx"}
    _print_table(report["rows"], {"name": "", **headings, "hit_rate": "hit rate"})
    print()
    actor, sharing, targets = report["actor_of_ceiling"], report["sharing_gain"], report["targets"]
    print(f"actor / LLM.generate: {actor:.3f} (target: at least {targets['actor']:g})")
    print(f"side by side / nothing shared: {sharing:.2f} (target: at least {targets['sharing']:g})")
    return report, 0


def _units(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    report = benchmark_units.measure(options.minutes, options.encoder, options.codebook, folder)
    _print_machine(report)
    print(benchmark_units.heading(report) + "\n")
    _print_table(report["rows"], benchmark_units.COLUMNS)
    print("\n" + benchmark_units.verdict(report))
    return report, 0


def _codebook(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    # The frames take minutes to make and stay in a --work-dir.
    report = benchmark_codebook.measure(options.work_dir or folder)
    _print_machine(report)
    print(benchmark_codebook.heading(report) + "\n")
    _print_table(report["rows"], benchmark_codebook.COLUMNS)
    print()
    _print_table(report["costs"], benchmark_codebook.COST_COLUMNS)
    print("\n" + benchmark_codebook.verdict(report))
    return report, 0


def _plan(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    report = benchmark_plan.measure(options.utterances, folder)
    _print_machine(report)
    print()
    headings = {"seconds": "seconds", "cpu_seconds": "CPU seconds", "utterances_per_second": "a second"}
    _print_table(report["rows"], {"name": "", **headings, "shards": "shards", "peak_rss_mb": "peak MB"})
    print(f"\n10^8 utterances, derived: {report['hours_for_10_to_the_8']:g} h")
    return report, 0


def _segment(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    report = benchmark_segment.measure(options.hours, folder)
    _print_machine(report)
    print()
    _print_table(report["rows"], benchmark_segment.COLUMNS)
    return report, 0


def _resume(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    # The run takes minutes to make and stays in a --work-dir.
    report = benchmark_resume.resumed(options.work_dir or folder, options.out, options.s3, options.shards)
    _print_machine(report)
    for name in benchmark_resume.FIGURES:
        print(f"{name.replace('_', ' ')}: {report[name]}")
    return report, 0


def _print_machine(report: Mapping[str, Any]) -> None:
    hardware, versions = report["hardware"], sorted(report["versions"].items())
    print(f"date    {report['date']}")
    print(f"machine {hardware['processor']}, {hardware['cpus']:g} CPUs, {hardware['gpus']:g} GPUs")
    print(f"with    {', '.join(f'{name} {version}' for name, version in versions)}")


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """A Markdown table of `columns` (key: heading); a key that a row lacks is an empty cell."""
    cells = [list(columns.values()), *([str(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns))]
    lines = [[f"{text:{'>' if i else '<'}{widths[i]}}" for i, text in enumerate(line)] for line in cells]
    lines.insert(1, [("-" * (width - 1) + ":") if i else "-" * width for i, width in enumerate(widths)])
    for line in lines:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    sys.exit(main())
