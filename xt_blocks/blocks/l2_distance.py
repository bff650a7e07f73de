"""Scores by distance, -|q - k|²: the product of longer queries and keys, which every kernel has (arXiv:2006.04710)."""

from __future__ import annotations

import torch
from torch import Tensor


def distance_features(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """`q: (b, h, n, d)`, `k: (b, g, m, d)` → both with d + 2 features, whose product is 2 q·k - |q|² - |k|²."""
    of_q, of_k = (x.square().sum(dim=-1, keepdim=True) for x in (q, k))
    return torch.cat((2 * q, -of_q, -torch.ones_like(of_q)), dim=-1), torch.cat(
        (k, torch.ones_like(of_k), of_k), dim=-1
    )
