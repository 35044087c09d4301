"""The codebook: K centroids of HuBERT features, and the nearest of them for every frame, which is the frame's unit."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional

from spire_ray.codebook_card import UNKNOWN, read_card
from spire_ray.errors import UserError
from spire_ray.units import MAX_INT16

_ROWS = 8_192  # frames scored at once: 160 MB of float32 scores at K = 5000
_MIN_ROWS = 16  # as in hubert.py: under a few rows BLAS sums in another order


@dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids float32 [K, D] and the SHA-256 (hex) of the file they came from."""

    centroids: torch.Tensor
    sha256: str
    path: Path

    @cached_property
    def mean(self) -> torch.Tensor:
        """The mean centroid [D].

        Subtracted from both sides it leaves distances as they are and makes the scores small, so that rounding does
        not decide between neighbours.
        """
        return self.centroids.double().mean(dim=0).float()

    @cached_property
    def centred(self) -> torch.Tensor:
        """Centroids less their mean [K, D]."""
        return self.centroids - self.mean

    @cached_property
    def squares(self) -> torch.Tensor:
        """Squared norms of the centred centroids [K]."""
        return self.centred.double().square().sum(dim=1).float()

    def to(self, device: torch.device | str) -> "Codebook":
        """The same codebook on `device`."""
        return Codebook(self.centroids.to(device), self.sha256, self.path)


def codebook_shape(path: Path) -> tuple[int, int]:
    """(K, D) from the header alone. UserError unless the file is safetensors with one float32 [K, D] `centroids`."""
    if not path.is_file():
        raise UserError(f"there is no codebook {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            if names != ["centroids"]:
                raise UserError(f"codebook {path} has tensors {names}, expected one named centroids")
            header = file.get_slice("centroids")
            shape, dtype = header.get_shape(), header.get_dtype()
    except SafetensorError:
        raise UserError(
            f"codebook {path} is not a safetensors file; a k-means pickle is converted by: spire-ray convert-codebook"
        ) from None
    if dtype != "F32" or len(shape) != 2 or 0 in shape:
        raise UserError(f"codebook {path}: centroids are {dtype} {shape}, expected F32 [K, D]")
    if shape[0] > MAX_INT16:
        raise UserError(f"codebook {path} has {shape[0]} centroids; units are stored as int16, at most {MAX_INT16}")
    return shape[0], shape[1]


def load_codebook(path: Path) -> Codebook:
    """The codebook of a safetensors file, on the CPU.

    UserError as `codebook_shape`, when a value is not finite, and when its card is of other centroids.
    """
    codebook_shape(path)
    with safe_open(path, framework="pt", device="cpu") as file:
        centroids = file.get_tensor("centroids")
    if not torch.isfinite(centroids).all():
        raise UserError(f"codebook {path} has centroids that are not finite")
    card = read_card(path)
    if card is not None and card.sha256 not in (UNKNOWN, hashlib.sha256(centroids.numpy().tobytes()).hexdigest()):
        raise UserError(f"codebook {path} is damaged: its centroids have not the SHA-256 that its card names")
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return Codebook(centroids, sha256, path)


@torch.inference_mode()
def assign(features: torch.Tensor, codebook: Codebook, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The unit of every frame: int64 [T] for features [T, D] on the codebook's device; of equals the lowest index.

    The unit is argmin over c of |c|^2 - 2 x.c, as sklearn's KMeans.predict has it. `dtype` (default: that of the
    features) is what the products are computed in; below float32 the two best are compared again in float32.
    """
    dtype = dtype or features.dtype
    choose = _nearest if dtype == torch.float32 else _nearest_of_two
    parts = [choose(part.float() - codebook.mean, codebook, dtype) for part in torch.split(features, _ROWS)]
    return torch.cat(parts)


def _nearest(x: torch.Tensor, codebook: Codebook, dtype: torch.dtype) -> torch.Tensor:
    rows = len(x)
    padded = functional.pad(x, (0, 0, 0, max(_MIN_ROWS - rows, 0)))
    return torch.addmm(codebook.squares, padded, codebook.centred.T, alpha=-2)[:rows].argmin(dim=1)


def _nearest_of_two(x: torch.Tensor, codebook: Codebook, dtype: torch.dtype) -> torch.Tensor:
    products = half_products(x.to(dtype), codebook.centred.to(dtype))
    best = torch.topk(codebook.squares - 2 * products, min(2, len(codebook.centroids)), dim=1, largest=False).indices
    best = best.sort(dim=1).values
    again = codebook.squares[best] - 2 * torch.einsum("td,tkd->tk", x, codebook.centred[best])
    return best.gather(1, again.argmin(dim=1, keepdim=True))[:, 0]


def half_products(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Products float32 [n, K] of half-precision x [n, D] and centroids [K, D]."""
    if x.is_cuda:
        return torch.mm(x, centroids.T, out_dtype=torch.float32)
    # The CPU has no half product with a float32 result; float32 products of the rounded operands are the same numbers.
    return x.float() @ centroids.float().T
