"""Tables of learned vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import linear

SMALL_STD = 1e-5
"""Of vectors that are scaled to unit length: the smaller they are, the faster a step rotates them."""


class Embedding(nn.Embedding):
    """An embedding initialised from a normal distribution with a given standard deviation, on `reset_parameters` too.

    Args:
        rows, dim: number of vectors, and their features.
        std: standard deviation of the initial values.
    """

    def __init__(self, rows: int, dim: int, std: float) -> None:
        self.std = std
        super().__init__(rows, dim)

    def reset_parameters(self) -> None:
        """Draw the vectors; nothing to draw on the meta device, where it would load torch's compiler."""
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, std=self.std)

    def scores(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x: (..., dim)` → (..., rows), its products with the vectors in the table, and `bias: (rows,)`."""
        return linear(x, self.weight, bias)


def unit_length(x: Tensor) -> Tensor:
    """`x` with its last axis scaled to length one, computed in float32 or better.

    For embedded tokens this is FixNorm (Nguyen & Salazar, arXiv:1910.05895): only the directions of the vectors
    matter then; see SMALL_STD.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.normalize(exact, dim=-1).to(x.dtype)
