"""Pickled weights to safetensors, executing nothing from the pickle. Run in a child process, imported by nothing.

    python -m spire_ray.convert kmeans IN OUT           a joblib dump of sklearn's KMeans or MiniBatchKMeans -> codebook
    python -m spire_ray.convert encoder IN_DIR OUT_DIR  config.json and pytorch_model.bin -> a folder with safetensors

It prints the SHA-256 of the safetensors file it wrote; what it cannot convert is one line on stderr and exit code 2.
An output that is already there is never replaced.
"""

import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from spire_ray.codebook_card import Card, codebook_bytes
from spire_ray.errors import UserError
from spire_ray.kmeans_pickle import read_centroids
from spire_ray.units import MAX_INT16


def convert_kmeans(source: Path, target: Path) -> str:
    """`cluster_centers_` of a joblib dump to a codebook file at `target`. Returns its SHA-256. UserError.

    Of what the centroids were fitted on a dump says nothing, and neither does their card.
    """
    centers = read_centroids(source)
    if centers.ndim != 2 or 0 in centers.shape or centers.dtype.kind != "f":
        raise UserError(f"{source}: cluster_centers_ is {centers.dtype} {centers.shape}, expected float [K, D]")
    if len(centers) > MAX_INT16:
        raise UserError(f"{source} has {len(centers)} centroids; units are stored as int16, at most {MAX_INT16}")
    with np.errstate(over="ignore"):
        centroids = np.ascontiguousarray(centers, dtype="<f4")
    if not np.isfinite(centroids).all():
        raise UserError(f"{source} has centroids that are not finite")
    with source.open("rb") as pickled:
        # No version: what is converted again by a later one stays the same file, and units name it by its bytes.
        card = Card(source=hashlib.file_digest(pickled, "sha256").hexdigest(), made_by="spire_ray convert-codebook")
    data = codebook_bytes(centroids, card)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".tmp-") as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.link(file.name, target)
    return hashlib.sha256(data).hexdigest()


def convert_encoder(source: Path, target: Path) -> str:
    """A transformers folder with pytorch_model.bin to one with model.safetensors. Returns its SHA-256. UserError."""
    import torch
    from safetensors.torch import save_file

    pickled = source / "pytorch_model.bin"
    for path in (source / "config.json", pickled):
        if not path.is_file():
            raise UserError(f"{source} has no {path.name}")
    if target.exists():
        raise FileExistsError(target)
    try:
        # Only the zip format of torch >= 1.6 can be mapped.
        mapped = zipfile.is_zipfile(pickled)
        stored = torch.load(pickled, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as fault:
        raise UserError(f"{pickled} is not a file of plain tensors: {str(fault).splitlines()[0]}") from None
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise UserError(f"{pickled} is not a state dict: a mapping of names to tensors")
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
    try:
        weights = folder / "model.safetensors"
        tensors = {name: value.contiguous().clone() for name, value in stored.items()}
        save_file(tensors, weights, metadata={"format": "pt"})
        weights.chmod(0o644)
        shutil.copyfile(source / "config.json", folder / "config.json")
        with weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        folder.chmod(0o755)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sha256


def main(arguments: list[str]) -> int:
    """The command line above; the exit code."""
    kinds = {"kmeans": convert_kmeans, "encoder": convert_encoder}
    if len(arguments) != 3 or arguments[0] not in kinds:
        print("usage: python -m spire_ray.convert kmeans IN OUT | encoder IN_DIR OUT_DIR", file=sys.stderr)
        return 2
    kind, source, target = arguments
    try:
        print(kinds[kind](Path(source), Path(target).absolute()))
    except UserError as fault:
        print(" ".join(str(fault).split()), file=sys.stderr)
        return 2
    except FileExistsError:
        print(f"{target} is already there; it is not replaced", file=sys.stderr)
        return 2
    except OSError as fault:
        print(f"{fault.filename}: {fault.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
