"""FlexAttention (Dong et al., arXiv:2412.05496) for biases by distance and windows on a GPU.

torch compiles what changes a score into the fused kernel, which then reads one value a distance and skips the blocks
of keys that no query sees; its other fused kernels read a mask of every pair.
Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import compat
from .masks import Attend

FEWEST = 512
"""Queries from which on it is worth its compilation: a mask of every pair is small below."""


def serves(q: Tensor, v: Tensor, attend: Attend, dropout: float) -> bool:
    """Whether it can be used, and has something to win."""
    if attend.queries < FEWEST or q.device.type != "cuda" or dropout:
        return False
    biased = attend.bias is not None and attend.bias.by_distance
    if attend.pairs is not None or not (biased or (attend.bias is None and attend.reach is not None)):
        return False
    fits = q.shape[-1] == v.shape[-1] and q.shape[-1] in (16, 32, 64, 128)
    return fits and _compiled() is not None


def attention(q: Tensor, k: Tensor, v: Tensor, attend: Attend, scale: float) -> Tensor:
    """softmax(q kᵀ · scale + bias) v, of `q: (b, h, i, d)`, `k, v: (b, h, j, d)` → (b, h, i, d)."""
    flex = _compiled() if q.device.type == "cuda" else compat.flex_attention().flex_attention
    out: Tensor = flex(q, k, v, score_mod=_bias(attend), block_mask=block_mask(attend, q, k), scale=scale)
    return out


def block_mask(attend: Attend, q: Tensor, k: Tensor) -> Any:
    """Which blocks of keys each block of queries needs; made once for all blocks of a forward pass."""
    if attend.blocks is None:
        rows = None if attend.mask is None else q.shape[0]
        sizes = rows, None, q.shape[2], k.shape[2]
        attend.blocks = compat.flex_attention().create_block_mask(_sees(attend), *sizes, device=str(q.device))
    return attend.blocks


def _sees(attend: Attend) -> Any:
    causal, reach, past, memories, mask = attend.causal, attend.reach, attend.past, attend.memories, attend.mask

    def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        token, place = j - memories, i + past
        seen = (token <= place) if causal else (token == token)
        if reach is not None:
            seen = seen & (token >= place - reach)
        if mask is not None:
            seen = seen & mask[b, token.clamp(min=0)]
        return seen | (token < 0)

    return sees


def _bias(attend: Attend) -> Any:
    if attend.bias is None:
        return None
    values, last, memories = attend.bias.values.contiguous(), attend.queries - 1, attend.memories

    def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        token = j - memories
        return torch.where(token < 0, score, score + values[h, (token - i + last).clamp(min=0)])

    return biased


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """The compiled kernel, tried once on a GPU; None where it can't be made, which is told."""
    if compat.flex_attention() is None:
        return None
    compiled = torch.compile(compat.flex_attention().flex_attention)
    x = torch.zeros(1, 1, 128, 16, device="cuda")
    try:
        compiled(x, x, x)  # type: ignore[no-untyped-call]
    except Exception as error:  # torch and its compiler have no one type for what is missing
        reason = str(error).strip().splitlines()[:1]
        warnings.warn(f"FlexAttention can't be compiled here, so masks of all pairs are made: {reason}", stacklevel=2)
        return None
    return compiled
