"""Kills real processes with SIGKILL at random moments, two at a time on one OUT: `python tests/race.py [--s3]`.

Each process runs the whole job as in_process.py has it, so that a run takes tens of milliseconds and hundreds of kills
a minute; with --s3 OUT lies on a real S3 server, behind a proxy that counts what it is asked. Whenever a run has been
let finish, the checker looks at OUT and its tables are compared, byte for byte, with those of a run that nothing
happened to; then another OUT is begun. Equal seeds give equal times to kill at.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import s3fs
import soundfile

import checker
import fault_proxy
import s3_server
from conftest import sound
from in_process import run_in_process, small_checkpoint
from spire_ray.cli import main as spire_ray

LANGUAGES = ["de", "fr"]


def forked(work: Callable[[], int]) -> int:
    """A process that does `work` and says nothing; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = work()
    finally:
        os._exit(code)


def start(corpus: Path, out: str) -> int:
    """A process that runs the job on OUT; its id."""
    options = ["--checkpoint", "any", "--languages", *LANGUAGES, "--shard-minutes", "0.02"]
    return forked(lambda: spire_ray(["speech-to-text", str(corpus), out, *options]))


def ended(process: int) -> int:
    """How it ended: 0 when all was well."""
    return os.waitpid(process, 0)[1]


class Disk:
    """Run directories on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def out(self, name: str) -> str:
        """Where a run is to lie."""
        return str(self.folder / name)

    def there(self, name: str) -> Path:
        """Where what lies there can be read."""
        return self.folder / name


class Bucket(Disk):
    """Run directories on S3. This process makes no client: one does not outlive a fork."""

    def out(self, name: str) -> str:
        """A URL."""
        return f"s3://{s3_server.BUCKET}/{name}"

    def there(self, name: str) -> Path:
        """A copy of it."""
        copy = self.folder / name
        shutil.rmtree(copy, ignore_errors=True)
        assert ended(forked(lambda: self._fetch(name, copy))) == 0
        return copy

    def _fetch(self, name: str, copy: Path) -> int:
        fs = s3fs.S3FileSystem()
        root = f"{s3_server.BUCKET}/{name}"
        for path in fs.find(root):
            target = copy / path.removeprefix(f"{root}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(fs.cat_file(path))
        return 0


@contextmanager
def s3(folder: Path) -> Iterator[Path]:
    """An S3 server behind a proxy, in a process of their own, which the environment names in the block.

    Yields the file that has the number of requests of each method afterwards.
    """
    address, count = folder / "environment", folder / "count"

    def serve() -> int:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
        with s3_server.running(folder / "server") as server, fault_proxy.before(server.endpoint) as proxy:
            (folder / "new").write_text(json.dumps(server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}))
            (folder / "new").rename(address)
            try:
                signal.pause()
            finally:
                count.write_text(json.dumps(Counter(one.method for one in proxy.asked)))
        return 0

    process = forked(serve)
    try:
        while not address.exists():
            time.sleep(0.05)
        os.environ |= json.loads(address.read_text())
        yield count
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def contents(out: Path) -> dict[str, bytes]:
    """Every object that must be the same after any number of deaths."""
    kept = ("plan", "units", "transcripts", "translations", "plan.json", "units.json", "text.json")
    return {
        name: path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
        and not path.name.startswith(".tmp-")
        and (name := path.relative_to(out).as_posix()).partition("/")[0] in kept
    }


def main() -> int:
    """The campaign. Exit code 0 when every finished run was whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="an empty one (a temporary one, removed at the end)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="OUT on an S3 server that is started for it")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="race-")))
        if not options.s3:
            return campaign(Disk(folder), options.kills, random.Random(options.seed))
        with s3(folder) as count:
            code = campaign(Bucket(folder), options.kills, random.Random(options.seed))
        asked = json.loads(count.read_text())
        print(f"requests: {', '.join(f'{number} {method}' for method, number in sorted(asked.items()))}")
        return code or int("DELETE" in asked)


def campaign(place: Disk, wanted: int, chance: random.Random) -> int:
    """Kills until there were as many as `wanted`, and lets runs finish in between."""
    corpus = place.folder / "corpus"
    corpus.mkdir()
    for seed, name in enumerate("abc"):
        soundfile.write(corpus / f"{name}.wav", sound(1.0, seed), 16_000, subtype="PCM_16")
    (corpus / "d.wav").write_bytes(b"no sound" * 5000)
    run_in_process(pytest.MonkeyPatch(), small_checkpoint(place.folder / "checkpoint"))
    began = time.monotonic()
    assert ended(start(corpus, place.out("clean"))) == 0
    usual = time.monotonic() - began
    clean = contents(place.there("clean"))
    assert "units/_SUCCESS" in clean

    kills = finished = 0
    while kills < wanted:
        name = f"out-{finished}"
        for _ in range(chance.randint(1, 6)):
            racers = [start(corpus, place.out(name)) for _ in range(2)]
            for racer in racers:
                time.sleep(chance.uniform(0, usual / 2))
                os.kill(racer, signal.SIGKILL)
                kills += os.WIFSIGNALED(ended(racer))
            assert contents(place.there(name)).items() <= clean.items(), "something half, or other, is visible"
        assert [ended(racer) for racer in [start(corpus, place.out(name)) for _ in range(2)]] == [0, 0]
        there = place.there(name)
        assert contents(there) == clean, "a run did not end as the undisturbed one"
        assert checker.main([str(there), "--languages", *LANGUAGES]) == 0
        finished += 1
        print(f"after {time.monotonic() - began:.0f} s: {kills} kills", flush=True)
    print(f"{kills} kills in {time.monotonic() - began:.0f} s, {finished} runs finished, all whole", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
