"""Memory key-values: learned keys and values that every query attends to (Sukhbaatar et al., arXiv:1907.01470)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class MemoryKeyValues(nn.Module):
    """Learned key-values before those of tokens: num_mem_kv in each key-value head.

    Args:
        o: the options of an attention block.
    """

    def __init__(self, o: Any) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(o.kv_heads, o.num_mem_kv, o.dim_head))
        self.values = nn.Parameter(torch.randn(o.kv_heads, o.num_mem_kv, o.value_dim_head))

    def forward(self, k: Tensor, v: Tensor, normed: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
        """`k: (batch, heads, tokens, dim_head)`, `v` likewise → the same, the learned ones first.

        Args:
            normed: qk_norm of keys, if it is on.
        """
        keys = self.keys if normed is None else normed(self.keys)
        before = [own.expand(k.shape[0], -1, -1, -1).to(k.dtype) for own in (keys, self.values)]
        return torch.cat((before[0], k), dim=2), torch.cat((before[1], v), dim=2)
