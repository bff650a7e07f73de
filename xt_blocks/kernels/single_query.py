"""Values mixed for a single query, in about the time that it takes to read them.

That is a product of a vector and a matrix for each head, which MKL reads at half of the memory's speed on some
processors. It is a weighted sum of rows of a table too, as an embedding bag is, whose kernel reads at all of it.
Axes: b batch, h heads, j keys, d features of a value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import onednn

Bags = tuple[Tensor, Tensor]
"""Rows of a table, and where among them each bag begins."""


def mixed(weights: Tensor, v: Tensor, known: dict[tuple[int, ...], Bags]) -> Tensor:
    """`weights @ v`.

    Args:
        weights: (b, h, 1, j)
        v: (b, h, j, d), of a cache that may have room for more.
        known: what the blocks of a forward pass have found out about tables of a size.

    Returns:
        (b, h, 1, d)
    """
    if not _serves(weights, v):
        return weights @ v
    batch, heads, keys, features = v.shape
    bags, room = batch * heads, v.stride(1) // features
    size = bags, room, keys
    if size not in known:
        starts = torch.arange(bags)
        known[size] = (starts[:, None] * room + torch.arange(keys)).flatten(), starts * keys
    rows, offsets = known[size]
    table = v.as_strided(((bags - 1) * room + keys, features), (features, 1))
    out: Tensor = torch.embedding_bag(table, rows, offsets, False, 0, False, weights.reshape(-1))[0]
    return out.view(batch, heads, 1, features)


def _serves(weights: Tensor, v: Tensor) -> bool:
    """Whether the kernel is the faster one, knows the type, and all rows are of one table."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not onednn.BEATS_MKL or onednn.watched():
        return False
    if type(v) is not Tensor or not v.is_cpu or not v.numel() or not v.dtype == weights.dtype == torch.float32:
        return False
    batch, heads, _, features = v.shape
    apart = v.stride(1)
    return v.stride()[2:] == (features, 1) and apart % features == 0 and (batch == 1 or v.stride(0) == heads * apart)
