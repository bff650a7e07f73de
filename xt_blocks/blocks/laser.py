"""LASER: attention to the exponentials of values, and the logarithm of the weighted sum (arXiv:2411.03493).

Gradients then reach values whose weights are small. Axes: b batch, h heads, g key-value heads, n tokens, m sources.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exponentials(q: Tensor, k: Tensor, v: Tensor, c: float) -> tuple[Tensor, Tensor, Tensor]:
    """The exponentials of values bounded by c, and queries and keys in the same type; they overflow float16."""
    if v.dtype == torch.float16:
        q, k, v = q.float(), k.float(), v.float()
    return q, k, ((v / c).tanh() * c).exp()


def logarithms(sums: Tensor) -> Tensor:
    """`sums: (b, h, n, dv)`, not negative → the logarithms, and zeros of a query that sees nothing."""
    return (sums + (sums == 0)).log()
