"""A low-rank term of a linear layer's outputs, for each use of a tied block its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .linear import linear


class LowRank(nn.Module):
    """B·A·x beside a linear layer W·x (Hu et al., arXiv:2106.09685); at first zero.

    Args:
        features: of x.
        sizes: outputs of each part of the layer, as queries, keys and values; each has an A of its own.
        rank: rows of A.
        uses: how many blocks share W, each with matrices of its own.
    """

    def __init__(self, features: int, sizes: Sequence[int], rank: int, uses: int) -> None:
        super().__init__()
        self.sizes, self.rank = [size for size in sizes if size], rank
        bound, parts = features**-0.5, len(self.sizes)
        self.down_weight = nn.Parameter(torch.empty(uses, parts * rank, features).uniform_(-bound, bound))
        self.up_weight = nn.Parameter(torch.zeros(uses, sum(self.sizes), rank))

    def forward(self, x: Tensor, use: int = 0, first: int = 0) -> Tensor:
        """`x: (batch, seq, features)`, for the parts from `first` on → (batch, seq, outputs)."""
        low = linear(x, self.down_weight[use, first * self.rank :])
        up = self.up_weight[use].split_with_sizes(self.sizes)[first:]
        parts = zip(low.chunk(len(up), dim=-1), up, strict=True)
        return torch.cat([linear(part, weight) for part, weight in parts], dim=-1)
