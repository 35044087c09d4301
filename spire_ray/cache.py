"""Converted weights, made once: pickles are converted in a child process and kept under the SHA-256 of their source."""

import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Literal

from spire_ray.errors import UserError

TIMEOUT_S = 900  # HuBERT-large, 1.3 GB, takes under a minute from a local disk
# Isolated mode leaves out the folder this package may be run from, so the child is told it.
_CHILD = "import sys, runpy; sys.path.append(sys.argv.pop(1)); runpy.run_module('spire_ray.convert', None, '__main__')"

Kind = Literal["kmeans", "encoder"]


def convert_in_child(kind: Kind, source: Path, target: Path) -> str:
    """Runs `spire_ray.convert` in an isolated child process and returns the SHA-256 of the safetensors file it wrote.

    The child sees none of this process's environment, so none of its credentials. UserError with the child's one line.
    """
    command = [sys.executable, "-I", "-c", _CHILD, str(Path(__file__).parents[1]), kind, str(source), str(target)]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    try:
        child = subprocess.run(
            command, env={**kept, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"converting {source} took more than {TIMEOUT_S} s") from None
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        raise UserError(lines[-1] if lines else f"converting {source} ended with code {child.returncode}")
    return child.stdout.strip()


def cached_codebook(pickle_path: Path) -> Path:
    """The codebook file converted from a k-means pickle, converting it the first time. UserError."""
    return _cached("kmeans", pickle_path, pickle_path, ".safetensors")


def cached_encoder(folder: Path) -> Path:
    """The safetensors folder converted from an encoder folder with only pytorch_model.bin. UserError."""
    return _cached("encoder", folder, folder / "pytorch_model.bin", "")


def _cached(kind: Kind, source: Path, pickled: Path, suffix: str) -> Path:
    try:
        with pickled.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as fault:
        raise UserError(f"{pickled}: {fault.strerror}") from None
    folder = Path(os.environ.get("SPIRE_RAY_CACHE") or Path.home() / ".cache" / "spire_ray") / kind
    target = folder / f"{sha256}{suffix}"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise UserError(f"{folder}: {fault.strerror}; set SPIRE_RAY_CACHE to a folder that can be written") from None
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    try:
        convert_in_child(kind, source, temporary)
        try:
            temporary.rename(target)
        except OSError:
            # Another process was faster; a folder, unlike a file, cannot be replaced by renaming.
            if not target.exists():
                raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
    return target
