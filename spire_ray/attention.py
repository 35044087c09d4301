"""Self-attention over packed rows, each utterance by itself."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from types import ModuleType
from typing import TypeAlias

import torch
from torch.nn import functional

Attention: TypeAlias = Callable[[torch.Tensor], torch.Tensor]  # packed queries, keys and values [N, 3D] to [N, D]


@cache
def kernel(device: str, dtype: torch.dtype) -> ModuleType | None:
    """Where the variable-length FlashAttention is, if it serves: on CUDA, in half precision, from torch 2.10 on.

    Not imported elsewhere: its import takes 4.4 s of a CPU, of torch's compiler, most of the start of an encoder.
    """
    if device != "cuda" or dtype == torch.float32:
        return None
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return None
    return varlen


def over(lengths: Sequence[int], rows: int, heads: int, device: torch.device, dtype: torch.dtype) -> Attention:
    """Attention for utterances of `lengths` rows packed into `rows`; the rows left over at the end are padding.

    One call of `kernel` where there is one; else utterance by utterance, which is exact everywhere.
    """
    parts = [*lengths, *([rows - sum(lengths)] if rows > sum(lengths) else [])]
    varlen = kernel(device.type, dtype)
    if varlen is None:
        return lambda qkv: each(qkv, parts, heads)
    bounds = torch.tensor([0, *accumulate(parts)], dtype=torch.int32).to(device)
    return lambda qkv: packed(varlen, qkv, bounds, max(parts), heads)


def each(qkv: torch.Tensor, lengths: list[int], heads: int) -> torch.Tensor:
    """Utterance after utterance by torch's scaled dot product."""
    out = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    for part, into in zip(torch.split(qkv, lengths), torch.split(out, lengths), strict=True):
        query, key, value = part.view(len(part), 3, 1, heads, -1).permute(1, 2, 3, 0, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        into.view(len(part), heads, -1).copy_(attended[0].transpose(0, 1))
    return out


def packed(varlen: ModuleType, qkv: torch.Tensor, bounds: torch.Tensor, longest: int, heads: int) -> torch.Tensor:
    """All utterances in one call of `kernel`. bounds: int32 [utterances + 1], where each begins and the last ends."""
    query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
    attended = varlen.varlen_attn(query, key, value, bounds, bounds, longest, longest)
    assert isinstance(attended, torch.Tensor)
    return attended.flatten(1)
