"""Where a branch joins the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualConnection(nn.Module):
    """Adds a branch's update to the residual, which may be scaled first; or a GRU cell decides between the two.

    Args:
        dim: features of the stream.
        scale: a learned gain for each feature of the residual, initially one (NormFormer, arXiv:2110.09456).
        constant: a fixed factor of the residual (DeepNet, arXiv:2203.00555).
        gate: a GRU cell reads the update, with the residual as its state (GTrXL, arXiv:1910.06764).

    Attributes:
        adds: whether it only adds, so that the stream gains exactly the update.
    """

    def __init__(self, dim: int, scale: bool = False, constant: float = 1.0, gate: bool = False) -> None:
        super().__init__()
        self.constant = float(constant)
        self.scale = nn.Parameter(torch.ones(dim)) if scale else None
        self.gate = nn.GRUCell(dim, dim) if gate else None
        self.adds = not (scale or gate) and self.constant == 1.0

    def forward(self, update: Tensor, x: Tensor) -> Tensor:
        """`update, x: (batch, seq, dim)`, the branch's and the stream's → (batch, seq, dim)."""
        if self.scale is not None:
            x = x * self.scale
        if self.constant != 1.0:
            x = x * self.constant
        if self.gate is None:
            return update + x
        joined = self.gate(update.flatten(0, 1), x.flatten(0, 1))  # each token by itself
        return joined.unflatten(0, update.shape[:2])
