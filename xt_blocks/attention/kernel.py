"""The attention core, and the one place that decides how it is computed.

Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from .masks import Attend
from .scores import TalkingHeads, keep_largest


class Scores(NamedTuple):
    """What an attention saw on its way.

    Attributes:
        before: (b, h, i, j) the scores before masking.
        weights: (b, h, i, j) behind the softmax, a row of zeros where nothing is seen.
    """

    before: Tensor
    weights: Tensor


def fused(q: Tensor, k: Tensor, v: Tensor, attend: Attend, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ · scale) v by torch's fused kernel, which never holds the scores.

    Args:
        q: (b, h, i, d); k: (b, h, j, d); v: (b, h, j, dv).
        dropout: of the attention weights; 0 outside training.

    Returns:
        (b, h, i, dv)
    """
    plain = attend.causal and attend.bias is None
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=attend.added(q.dtype), dropout_p=dropout, is_causal=plain, scale=scale
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
) -> tuple[Tensor, Scores]:
    """The same with the scores in hand, for options that read or change them.

    Args:
        q, k, v: as for `fused`.
        scores: (b, h, i, j) of an earlier block, added to these (RealFormer, arXiv:2012.11747).
        talking_heads, sparse_topk: see `scores`.

    Returns:
        (b, h, i, dv), and the scores with what positions add to them and before masking.
    """
    own = (q * scale) @ k.transpose(-1, -2)  # scaled first: the bare product overflows float16
    if scores is not None:
        own = own + scores
    if talking_heads is not None:
        own = talking_heads.mix_scores(own)
    if attend.bias is not None:  # each head's own, not mixed
        own = own + attend.bias_in(own.dtype)
    allowed = attend.everywhere(own)
    masked = own if allowed is None else own.masked_fill(~allowed, float("-inf"))
    if sparse_topk is not None:
        masked = keep_largest(masked, sparse_topk)
    weights = masked.softmax(dim=-1)
    if attend.empty is not None:
        weights = weights.masked_fill(attend.empty, 0.0)
    mixed = F.dropout(weights, dropout)
    if talking_heads is not None:
        mixed = talking_heads.mix_weights(mixed)
    return mixed @ v, Scores(own, weights)
