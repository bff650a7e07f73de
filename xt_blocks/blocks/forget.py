"""Forgetting attention: a gate of each token scales down what came before it (FoX, arXiv:2503.02130).

A head's score of query i and key j falls by the logarithms of its gates from j + 1 to i. That is F_i - F_j, with F the
running sum: a product of further features of queries and keys, which every kernel has.
Axes: b batch, h heads, g key-value heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import apply

INITIAL = 5.0
"""The gate's bias at first: it is nearly open, and a token forgets by the distance, as with ALiBi."""


def forget_gate(dim: int, heads: int) -> nn.Linear:
    """From a token to the logits of its gates."""
    layer = nn.Linear(dim, heads)
    nn.init.constant_(layer.bias, INITIAL)
    return layer


def log_gates(layer: nn.Module, x: Tensor, real: Tensor | None) -> Tensor:
    """`x: (b, n, dim)` → (b, n, h) of at least float32; zeros where `real: (b, n)` is false, as of no token."""
    logits = apply(layer, x)
    logs = F.logsigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    return logs if real is None else logs * real[..., None]


def with_forgetting(q: Tensor, k: Tensor, logs: Tensor, scale: float, place: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries and keys with further features, whose product times `scale` is F_i - F_j.

    Args:
        q: (b, h, i, d)
        k: (b, g, m + j, d); the m memory key-values in front are not forgotten.
        logs: (b, j, h) of `log_gates`.
        place: (1,) int, index of the single query among the keys; None: queries are the last ones.
    """
    sums = logs.cumsum(dim=1).transpose(1, 2)  # (b, h, j)
    own = sums[..., sums.shape[2] - q.shape[2] :] if place is None else sums.index_select(2, place)
    groups, factor = k.shape[1], 1 / scale
    shared = q.shape[1] // groups
    parts = _parts(sums, k.dtype)
    # one feature of a key for each query head that reads it
    of_keys = torch.unflatten(torch.stack(parts, dim=-1), 1, (groups, shared)).movedim(2, -1).flatten(3)
    which = torch.eye(shared, device=q.device, dtype=q.dtype).mul_(factor).repeat(groups, len(parts))
    chosen = which[None, :, None].expand(q.shape[0], -1, q.shape[2], -1)
    queries = torch.cat((q, torch.stack(_parts(own, q.dtype), dim=-1), chosen), dim=-1)
    ones = k.new_full((1,), factor).expand(*of_keys.shape[:3], len(parts))
    further = F.pad(torch.cat((ones, -of_keys), dim=-1), (0, 0, k.shape[2] - of_keys.shape[2], 0))
    return queries, torch.cat((k, further), dim=-1)


def _parts(sums: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Tensors of this type that add up to `sums`: in a low precision one alone would lose differences."""
    parts = [sums.to(dtype)]
    while len(parts) < 3 and dtype in (torch.bfloat16, torch.float16):
        parts.append((sums - sum(part.to(sums.dtype) for part in parts)).to(dtype))
    return parts
