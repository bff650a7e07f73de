"""Normalisation by name, as the graph's nodes have it."""

from __future__ import annotations

from torch import nn


def norm(name: str | None, dim: int) -> nn.Module:
    """LayerNorm (arXiv:1607.06450) or RMSNorm (arXiv:1910.07467) over the last axis, or none."""
    if name is None:
        return nn.Identity()
    return nn.RMSNorm(dim, eps=1e-8) if name == "rmsnorm" else nn.LayerNorm(dim)
