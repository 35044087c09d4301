"""Self-attention over packed rows, each utterance by itself."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import accumulate
from typing import TypeAlias

import torch
from torch.nn import functional

HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None  # from torch 2.10 on

Attention: TypeAlias = Callable[[torch.Tensor], torch.Tensor]  # packed queries, keys and values [N, 3D] to [N, D]


def over(lengths: Sequence[int], rows: int, heads: int, device: torch.device, dtype: torch.dtype) -> Attention:
    """Attention for utterances of `lengths` rows packed into `rows`; the rows left over at the end are padding.

    One variable-length FlashAttention on CUDA in half precision, which is what that kernel takes; else utterance by
    utterance, which is exact everywhere.
    """
    parts = [*lengths, *([rows - sum(lengths)] if rows > sum(lengths) else [])]
    if device.type != "cuda" or dtype == torch.float32 or not HAS_VARLEN:
        return lambda qkv: each(qkv, parts, heads)
    bounds = torch.tensor([0, *accumulate(parts)], dtype=torch.int32).to(device)
    return lambda qkv: packed(qkv, bounds, max(parts), heads)


def each(qkv: torch.Tensor, lengths: list[int], heads: int) -> torch.Tensor:
    """Utterance after utterance by torch's scaled dot product."""
    out = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    for part, into in zip(torch.split(qkv, lengths), torch.split(out, lengths), strict=True):
        query, key, value = part.view(len(part), 3, 1, heads, -1).permute(1, 2, 3, 0, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        into.view(len(part), heads, -1).copy_(attended[0].transpose(0, 1))
    return out


def packed(qkv: torch.Tensor, bounds: torch.Tensor, longest: int, heads: int) -> torch.Tensor:
    """All utterances in one kernel. bounds: int32 [utterances + 1], where each begins and the last ends."""
    # Where it is needed: its import takes 4.4 s of a CPU, of torch's compiler, which is most of an encoder's start.
    from torch.nn.attention import varlen

    query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
    attended = varlen.varlen_attn(query, key, value, bounds, bounds, longest, longest)
    assert isinstance(attended, torch.Tensor)
    return attended.flatten(1)
