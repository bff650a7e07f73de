"""Tables of learned vectors."""

from __future__ import annotations

import torch
from torch import nn


def embedding(rows: int, dim: int, std: float) -> nn.Embedding:
    """An nn.Embedding whose vectors are drawn once, normal with this standard deviation.

    On the meta device there is nothing to draw, and drawing there would load torch's compiler.
    """
    table = nn.Embedding(rows, dim, _weight=torch.empty(rows, dim))
    if not table.weight.is_meta:
        nn.init.normal_(table.weight, std=std)
    return table
