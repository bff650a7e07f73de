"""Attention of a single query, as in a decoding step, in about the time that it takes to read its keys and values.

The weighted sum is a product of a vector and a matrix for each head, which MKL computes at half the memory bandwidth on
some processors. It is also an embedding bag over the rows of a table, whose kernel uses the full bandwidth.
Axes: b batch, h heads, g key-value heads, j keys, d features of a value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import explicit, onednn
from .contract import Kernel
from .request import Request, Result

Tables = dict[tuple[int, ...], tuple[Tensor, Tensor]]
"""By size: the rows of a table, and where each head's rows begin. Each forward pass has its own."""


def supports(request: Request) -> str | None:
    return None if request.mask.queries == 1 else "there is more than one query"


def run(request: Request) -> Result:
    return explicit.compute(request, products, lambda weights, v: weighted_sum(weights, v, request.mask.tables))


def products(q: Tensor, k: Tensor, scores: Tensor | None) -> Tensor:
    """`explicit.products` of one query, which reads the keys in order."""
    if scores is not None or q.shape[1] != k.shape[1]:
        return explicit.products(q, k, scores)
    return torch.bmm(k.flatten(0, 1), q.flatten(0, 1).transpose(1, 2)).view(*q.shape[:3], k.shape[2])


def weighted_sum(weights: Tensor, v: Tensor, known: Tables) -> Tensor:
    """`explicit.weighted_sum` of one query.

    Args:
        weights: (b, h, 1, j)
        v: (b, g, j, d), of a cache that may have space for more.
        known: the Tables of the forward pass, extended here.

    Returns:
        (b, h, 1, d)
    """
    if weights.shape[1] != v.shape[1] or not _is_table(weights, v):
        return explicit.weighted_sum(weights, v)
    batch, heads, keys, features = v.shape
    sums, capacity = batch * heads, v.stride(1) // features
    size = sums, capacity, keys
    if size not in known:
        starts = torch.arange(sums, device="cpu", dtype=torch.int64)
        known[size] = (
            (starts[:, None] * capacity + torch.arange(keys, device="cpu", dtype=torch.int64)).flatten(),
            starts * keys,
        )
    rows, offsets = known[size]
    table = v.as_strided(((sums - 1) * capacity + keys, features), (features, 1))
    out: Tensor = torch.embedding_bag(table, rows, offsets, False, 0, False, weights.reshape(-1))[0]
    return out.view(batch, heads, 1, features)


def _is_table(weights: Tensor, v: Tensor) -> bool:
    """Whether the embedding bag is faster, supports the type, and can read all rows as one table."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not onednn.BEATS_MKL or onednn.followed():
        return False
    if type(v) is not Tensor or not v.is_cpu or not v.numel() or not v.dtype == weights.dtype == torch.float32:
        return False
    batch, heads, _, features = v.shape
    apart = v.stride(1)
    return v.stride()[2:] == (features, 1) and apart % features == 0 and (batch == 1 or v.stride(0) == heads * apart)


KERNEL = Kernel("single query", run, supports)
