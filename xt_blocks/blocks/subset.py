"""Random parts of sequences."""

from __future__ import annotations

import torch
from torch import Tensor


def random_subset(among: Tensor, count: Tensor) -> Tensor:
    """`count` random places of each row.

    Args:
        among: (batch, seq) bool, the places to choose from.
        count: (batch,) int

    Returns:
        (batch, seq) bool
    """
    order = torch.rand(among.shape, device=among.device, dtype=torch.float32).masked_fill(~among, 2.0)
    rank = order.argsort(dim=-1).argsort(dim=-1)
    return (rank < count[:, None]) & among


def without_share(real: Tensor, share: float) -> Tensor:
    """(batch, seq) bool: each row's real tokens without a random share of them; at least one stays.

    Args:
        real: (batch, seq) bool.
    """
    count = real.sum(dim=1)
    return random_subset(real, (count - (count.float() * share).floor()).clamp(min=1))
