"""Normalisation layers by name, as in the graph's nodes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-8


class ScaleNorm(nn.Module):
    """A learned length for every token (Nguyen & Salazar, arXiv:1910.05895).

    The paper's gain is `weight`·√dim, so that features initially have unit mean square at any width.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim), √dim·x / ‖x‖ times the gain."""
        return F.rms_norm(x, (self.dim,), eps=_EPS) * self.weight


def norm(name: str | None, dim: int) -> nn.Module:
    """LayerNorm (arXiv:1607.06450), RMSNorm (arXiv:1910.07467) or ScaleNorm over the last axis, or none."""
    if name is None:
        return nn.Identity()
    if name == "scalenorm":
        return ScaleNorm(dim)
    return nn.RMSNorm(dim, eps=_EPS) if name == "rmsnorm" else nn.LayerNorm(dim)
