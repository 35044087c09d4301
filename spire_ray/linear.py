"""Matrix products of the encoder, by the library that does them fastest without rounding further."""

from typing import TypeAlias

import torch
from torch.nn import functional

# Under about 4 rows BLAS takes other kernels, which sum in another order: an utterance of one frame would get other
# features alone than in a batch. From there on the rows came out the same bits in every batch tried (MKL, oneDNN).
MIN_ROWS = 16

Affine: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]  # weight, bias


def for_products(affine: Affine) -> Affine:
    """An affine map as `linear` is fastest with: float32 weights on a CPU are reordered for oneDNN, where torch has it.

    oneDNN's float32 product is torch's own to 4e-7 and 1.2 times as fast as MKL's on an AMD EPYC (Zen 4), 2.4 times on
    another. It does not round to fewer bits unless `torch.backends.mkldnn` is told to. Always one and the same product
    on one machine, not the faster of two in a trial: units must not depend on a trial.
    """
    weight, bias = affine
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return affine
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight), bias
    except (AttributeError, RuntimeError):  # an operator of torch's own compiler: other builds may not have it
        return affine


def linear(x: torch.Tensor, affine: Affine, gelu: bool = False) -> torch.Tensor:
    """Rows [n, in] to [n, out], each the same bits whatever rows lie beside it; `gelu` (erf form) after it."""
    weight, bias = affine
    rows = len(x)
    if rows < MIN_ROWS:
        x = functional.pad(x, (0, 0, 0, MIN_ROWS - rows))
    if weight.is_mkldnn:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none")
    else:
        y = functional.linear(x, weight, bias)
        y = functional.gelu(y) if gelu else y
    return y[:rows]


def as_matrix(convolution: Affine) -> Affine:
    """A convolution weight [C_out, C_in, k] as the matrix [C_out, k * C_in] for windows of rows [k, C_in]."""
    weight, bias = convolution
    return weight.permute(0, 2, 1).flatten(1).contiguous(), bias


def stack(parts: list[Affine]) -> Affine:
    """Affine maps of the same input as one."""
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts if bias is not None])
