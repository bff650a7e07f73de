"""The attention core, and the one place that decides how it is computed.

Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .masks import Attend
from .scores import TalkingHeads, keep_largest


def fused(q: Tensor, k: Tensor, v: Tensor, attend: Attend, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ · scale) v by torch's fused kernel, which never holds the scores.

    Args:
        q: (b, h, i, d); k: (b, h, j, d); v: (b, h, j, dv).
        dropout: of the attention weights; 0 outside training.

    Returns:
        (b, h, i, dv)
    """
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=attend.allowed, dropout_p=dropout, is_causal=attend.causal, scale=scale
    )
    return out if attend.empty is None else out.masked_fill(attend.empty, 0.0)


def explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attend: Attend,
    scale: float,
    dropout: float = 0.0,
    scores: Tensor | None = None,
    talking_heads: TalkingHeads | None = None,
    sparse_topk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The same with the scores in hand, for options that read or change them.

    Args:
        q, k, v: as for `fused`.
        scores: (b, h, i, j) of an earlier block, added to these (RealFormer, arXiv:2012.11747).
        talking_heads, sparse_topk: see `scores`.

    Returns:
        (b, h, i, dv) and the scores (b, h, i, j) as they stand before masking.
    """
    own = (q * scale) @ k.transpose(-1, -2)  # scaled first: the bare product overflows float16
    if scores is not None:
        own = own + scores
    if talking_heads is not None:
        own = talking_heads.mix_scores(own)
    allowed = attend.everywhere(own)
    masked = own if allowed is None else own.masked_fill(~allowed, float("-inf"))
    if sparse_topk is not None:
        masked = keep_largest(masked, sparse_topk)
    weights = F.dropout(masked.softmax(dim=-1), dropout)
    if talking_heads is not None:
        weights = talking_heads.mix_weights(weights)
    out = weights @ v
    return (out if attend.empty is None else out.masked_fill(attend.empty, 0.0)), own
