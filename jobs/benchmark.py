"""Measurements, one subcommand each: python jobs/benchmark.py overhead

overhead    the whole job against the sum of its bare parts, on this machine's CPUs
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import benchmark_overhead

sys.path.append(str(Path(__file__).parents[1] / "tests"))


def main() -> int:
    """One measurement: a table on standard output, and its figures in a file where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements = parser.add_subparsers(dest="measurement", required=True, metavar="MEASUREMENT")

    one = measurements.add_parser("overhead", help="the whole job against the sum of its bare parts, on CPUs")
    one.add_argument("--minutes", type=float, default=benchmark_overhead.MINUTES, help="of speech (%(default)g)")
    one.set_defaults(measure=_overhead)
    _file_options(one)

    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.work_dir) as folder:
        report: dict[str, Any] = {"measurement": options.measurement, "date": time.strftime("%Y-%m-%d")}
        code, measured = options.measure(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(report | measured, indent=2) + "\n")
    return int(code)


def _file_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    one.add_argument("--work-dir", type=Path, metavar="DIR", help="where models, sound and tables go meanwhile")


def _overhead(options: argparse.Namespace, folder: Path) -> tuple[int, dict[str, Any]]:
    report = benchmark_overhead.run(options.minutes, folder)
    hardware, parameters, texts = report["hardware"], report["parameters"], report["texts"]
    _say(f"{hardware['processor']}, {report['threads']['encode']} cores, load {report['load_before']} before")
    _say(", ".join(f"{name} {version}" for name, version in sorted(report["versions"].items())))
    _say(f"encoder {parameters['encoder'] / 1e6:.1f}M parameters, LLM {parameters['llm'] / 1e6:.1f}M, float32")
    corpus = report["corpus"]
    _say(f"{corpus['minutes']:g} minutes of speech, {corpus['utterances']} utterances, {report['shards']} shards")
    _say()
    _table(report["rows"])
    return (1 if report["units_differ"] else 0), report


def _table(rows: list[dict[str, Any]]) -> None:
    pass


def _say(line: str = "") -> None:
    print(line)


if __name__ == "__main__":
    sys.exit(main())
