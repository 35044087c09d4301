"""Whether this tree can be released, as `make release-check` asks: `python tests/release_check.py --release ENV`.

Builds sdist and wheel, looks at what is in them, runs the steps of cluster/Dockerfile (its CPU variant, but for apt) in
an environment of its own, puts the wheel there, and runs it from a folder that is not this one. ENV has twine. Needs a
package index, or uv's cache of one. Prints a line for each thing that holds; stops with exit code 1 at the first that
does not.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from spire_ray import __version__

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
MAX_MEGABYTES = 25  # the weights of spire-tiny are 16
MAX_WER = 0.25  # of the package's clips, which `make demo` transcribes at 0.08
GPU_IMAGE = ["--python-platform", "x86_64-manylinux_2_36", "--python-version", "3.12"]  # Debian 12 has glibc 2.36
TYPED = "from spire_ray.units import from_text\n\nunits: {wanted} = from_text('')\n"
NUMBERS = "import numpy as np\nfrom numpy.typing import NDArray\n\n"
HEARD = """
import json, re, sys
import jiwer, pyarrow.parquet as pq, spire_ray
from pathlib import Path
folder = Path(spire_ray.__file__).parent / "tiny" / "clips"
said = {row["id"]: row["text"] for row in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}
plain = lambda text: re.sub(r"[^a-z ]", "", (text or "").lower().replace("-", " "))
rows = {row["utterance_id"]: row for row in pq.read_table("OUT/transcripts").to_pylist()}
german = pq.read_table("OUT/translations").to_pylist()
assert rows.keys() == said.keys() == {row["utterance_id"] for row in german}
assert all(row["text"] and row["target_language"] == "de" for row in german)
wer = jiwer.wer([plain(said[id_]) for id_ in said], [plain(rows[id_]["text"]) for id_ in said])
print(json.dumps({"clips": len(rows), "wer": wer, "package": spire_ray.__file__}))
"""


def holds(what: str) -> None:
    """Tell of something that was found right."""
    print(f"ok  {what}", flush=True)


def refuse(what: str) -> None:
    """Stop."""
    sys.exit(f"release-check: {what}")


def told(command: Sequence[object], cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """What a command prints. It must end with 0."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        refuse(f"{' '.join(words)}\nended with {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def check_changelog() -> None:
    """Its newest version is this one, with a date, and nothing waits above it."""
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased, _, rest = text.partition("## [Unreleased]")[2].partition("\n## ")
    if unreleased.strip():
        refuse("CHANGELOG.md: what is under [Unreleased] belongs to a version")
    if not re.match(rf"\[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d\n", rest):
        refuse(f"CHANGELOG.md: its newest version is not [{__version__}] - YYYY-MM-DD: {rest.splitlines()[:1]}")
    holds(f"CHANGELOG.md and the package are of version {__version__}")


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made from it, by the locked hatchling."""
    told([BIN / "uv", "build", "--python", BIN / "python", "--no-build-isolation", "--offline", "--out-dir", folder])
    stem = f"spire_ray-{__version__}"
    return folder / f"{stem}.tar.gz", folder / f"{stem}-py3-none-any.whl"


def tracked() -> set[str]:
    """The files of this tree that git knows."""
    return set(told(["git", "ls-files", "-z"]).rstrip("\0").split("\0"))


def check_contents(sdist: Path, wheel: Path) -> None:
    """What git knows of, all of it in the sdist and the package of it in the wheel; nothing else."""
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    if other := packed ^ (tracked() | {"PKG-INFO"}):
        refuse(f"the sdist and git differ: {sorted(other)[:10]}")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"spire_ray-{__version__}.dist-info"
    expected = {name for name in tracked() if name.startswith("spire_ray/")}
    expected |= {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    if other := names ^ expected:
        refuse(f"the wheel and git differ: {sorted(other)[:10]}")
    if not {"spire_ray/py.typed", "spire_ray/tiny/codebook.safetensors"} <= names:
        refuse("the wheel has no py.typed, or no weights")
    for path in (sdist, wheel):
        megabytes = path.stat().st_size / 1e6
        if megabytes > MAX_MEGABYTES:
            refuse(f"{path.name} has {megabytes:.1f} MB, over {MAX_MEGABYTES}")
        holds(f"{path.name}: {megabytes:.1f} MB")


def install_as_the_image(folder: Path, torch_source: str) -> Path:
    """The CPU variant's steps of cluster/Dockerfile, its folders mapped below `folder`. The environment they make.

    Not done: apt, which is the image's. uv's cache and `torch_source` stand for the downloads.
    """
    source, prefix = folder / "src", folder / "spire"
    source.mkdir()
    # How this machine reaches its package index, and nothing that changes what is taken from there.
    network = re.compile(
        "(PIP|UV)_.*(INDEX|LINKS|CERT|TLS|CACHE|HOST).*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|.*_proxy", re.IGNORECASE
    )
    env = {key: value for key, value in os.environ.items() if network.fullmatch(key)} | {"PATH": f"{BIN}:/usr/bin:/bin"}
    for word, rest in dockerfile("python", "cpu"):
        mapped = rest.replace("/opt/spire", str(prefix)).replace("--no-cache ", "")
        mapped = mapped.replace("--torch-backend cpu", torch_source)
        if word == "ENV":
            for key, value in re.findall(r"(\w+)=(\S+)", mapped):
                env[key] = value.replace("$PATH", env["PATH"])
        elif word == "COPY" and rest == ". .":
            for name in filter(in_the_image, tracked()):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        elif word == "COPY":
            shutil.copy(ROOT / rest.split()[0], source)
        elif word == "RUN" and not rest.startswith("apt-get"):
            told(["sh", "-ec", mapped], cwd=source, env=env | {"HOME": os.environ["HOME"]})
            holds(f"RUN {' '.join(rest.split())[:90]}")
    return prefix


def in_the_image(name: str) -> bool:
    """Whether Docker sends a tracked file to the build: .dockerignore names what it sends."""
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    return any(fnmatch(name.partition("/")[0], pattern) for pattern in sent)


def dockerfile(*stages: str) -> list[tuple[str, str]]:
    """The instructions of these stages of cluster/Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "cluster" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    found, stage = [], ""
    for word, _, rest in (line.partition(" ") for line in lines if line.strip()):
        stage = rest.split()[-1] if word == "FROM" else stage
        if stage in stages:
            found.append((word, rest))
    return found


def check_wheel(wheel: Path, prefix: Path, folder: Path) -> None:
    """Installed, it transcribes its own clips in a folder far from this tree, and its types are seen."""
    bin_ = prefix / "bin"
    told([bin_ / "uv", "pip", "install", "--python", prefix, "--no-deps", "--reinstall", "--offline", wheel])
    away = folder / "away"
    away.mkdir()
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PATH": f"{bin_}:/usr/bin:/bin"}
    where = told([bin_ / "python", "-c", "import spire_ray; print(spire_ray.__file__)"], away, env)
    clips = Path(where.strip()).parent / "tiny" / "clips" / "manifest.jsonl"
    told([bin_ / "spire-ray", "speech-to-text", clips, "OUT", "--checkpoint", "tiny", "--languages", "de"], away, env)
    heard = json.loads(told([bin_ / "python", "-c", HEARD], away, env).splitlines()[-1])
    if heard["wer"] > MAX_WER or not heard["package"].startswith(str(prefix)):
        refuse(f"the wheel heard {heard}")
    holds(f"the wheel transcribed and translated {heard['clips']} clips, WER {heard['wer']:.1%}")
    for wanted, right in (("NDArray[np.int16]", True), ("str", False)):
        (away / "three.py").write_text(NUMBERS + TYPED.format(wanted=wanted))
        words = [str(bin_ / "mypy"), "--strict", "three.py"]
        found = subprocess.run(words, cwd=away, env=env, capture_output=True, text=True, check=False)
        if (found.returncode == 0) != right or (not right and "Incompatible types" not in found.stdout):
            refuse(f"mypy, of units as {wanted}: {found.stdout}")
    holds("mypy sees the types of the installed package")


def check_gpu_lock(folder: Path) -> None:
    """requirements-gpu.lock can be installed in the GPU image: for each package there is a wheel with a locked hash."""
    how = ["--dry-run", "--no-config", "--no-deps", "--no-build", "--require-hashes", *GPU_IMAGE]
    told([BIN / "uv", "pip", "install", "--target", folder / "gpu", *how, "--requirements", "requirements-gpu.lock"])
    holds("requirements-gpu.lock resolves for the GPU image")


def main() -> None:
    """Everything, in order."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--release", type=Path, required=True, metavar="ENV", help="the environment that has twine")
    options.add_argument("--torch-source", default="--torch-backend cpu", help="options of uv: where torch comes from")
    given = options.parse_args()
    check_changelog()
    with tempfile.TemporaryDirectory(prefix="spire-ray-release-") as name:
        folder = Path(name)
        sdist, wheel = build(folder / "dist")
        check_contents(sdist, wheel)
        told([given.release / "bin" / "twine", "check", "--strict", sdist, wheel])
        holds("twine check")
        check_gpu_lock(folder)
        check_wheel(wheel, install_as_the_image(folder, given.torch_source), folder)


if __name__ == "__main__":
    main()
