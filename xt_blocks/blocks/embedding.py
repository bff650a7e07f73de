"""Tables of learned vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import linear

SMALL_STD = 1e-5
"""Of vectors that are scaled to unit length: the smaller they are, the faster a step turns them."""


class Embedding(nn.Embedding):
    """A table whose vectors are drawn normal with a standard deviation of its own, on `reset_parameters` too.

    Args:
        rows, dim: how many vectors, and their features.
        std: what they are drawn with.
    """

    def __init__(self, rows: int, dim: int, std: float) -> None:
        self.std = std
        super().__init__(rows, dim)

    def reset_parameters(self) -> None:
        """Draw the vectors. On the meta device there is nothing to draw, and drawing would load torch's compiler."""
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, std=self.std)

    def scores(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., rows), its products with the vectors in the table."""
        return linear(x, self.weight)


def unit_length(x: Tensor) -> Tensor:
    """`x` with its last axis scaled to length one, computed in float32 where x has less.

    Of embedded tokens that is FixNorm (Nguyen & Salazar, arXiv:1910.05895): only the directions of the table's vectors
    count then; see SMALL_STD.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.normalize(exact, dim=-1).to(x.dtype)
