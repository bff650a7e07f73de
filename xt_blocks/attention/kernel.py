"""The attention core, and the one place that decides how it is computed.

Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .masks import Attend


def fused(q: Tensor, k: Tensor, v: Tensor, attend: Attend, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √d) v by torch's fused kernel, which never holds the scores.

    Args:
        q: (b, h, i, d); k, v: (b, h, j, d).
        dropout: of the attention weights; 0 outside training.

    Returns:
        (b, h, i, d)
    """
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=attend.allowed, dropout_p=dropout, is_causal=attend.causal)
    return out if attend.empty is None else out.masked_fill(attend.empty, 0.0)


def explicit(
    q: Tensor, k: Tensor, v: Tensor, attend: Attend, dropout: float = 0.0, scores: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same with the scores in hand, for options that read or change them.

    Args:
        q: (b, h, i, d); k, v: (b, h, j, d).
        scores: (b, h, i, j) of an earlier block, added to these (RealFormer, arXiv:2012.11747).

    Returns:
        (b, h, i, d) and the scores (b, h, i, j) before masking.
    """
    own = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # scaled first: the bare product overflows float16
    if scores is not None:
        own = own + scores
    weights = own.masked_fill(~_allowed(attend, own), float("-inf")).softmax(dim=-1)
    out = F.dropout(weights, dropout) @ v
    return (out if attend.empty is None else out.masked_fill(attend.empty, 0.0)), own


def _allowed(attend: Attend, scores: Tensor) -> Tensor:
    """(b or 1, 1, i or 1, j) bool."""
    if attend.allowed is not None:
        return attend.allowed
    everything = scores.new_ones(scores.shape[-2:], dtype=bool)  # type: ignore[call-overload]
    return everything.tril() if attend.causal else everything
