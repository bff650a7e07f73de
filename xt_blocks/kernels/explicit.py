"""Attention with its scores written out: the plain form, which every other kernel is held to.

Axes: b batch, h heads, g key-value heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .contract import Kernel
from .request import Request, Result, Scores
from .scores.softmax import softmax_of
from .scores.spec import ScoreStage


def run(request: Request) -> Result:
    return compute(request, products, weighted_sum)


def compute(
    request: Request,
    products: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    weighted_sum: Callable[[Tensor, Tensor], Tensor],
) -> Result:
    """All steps between `products`, q kᵀ with an earlier block's scores, and the `weighted_sum` of values."""
    q, k, _, mask, spec, *_ = request
    own = products(q * spec.scale, k, spec.residual)  # scaled first: the bare product overflows float16
    for modifier in spec.at(ScoreStage.SCORES):
        own = modifier.apply(own)
    bias, hidden = mask.whole_bias(own.dtype), mask.hidden(own.dtype)
    if bias is not None:
        own = own + bias
    masked = own if hidden is None else own + hidden
    for modifier in spec.at(ScoreStage.MASKED):
        masked = modifier.apply(masked)
    weights = softmax_of(spec).apply(masked)
    if mask.empty is not None:
        weights = weights.masked_fill(mask.empty, 0.0)
    seen = Scores(own, weights) if request.keep_scores else None
    for modifier in spec.at(ScoreStage.WEIGHTS):
        weights = modifier.apply(weights)
    return weighted_sum(weights, request.v), seen


def products(q: Tensor, k: Tensor, scores: Tensor | None) -> Tensor:
    """(b, h, i, j): q kᵀ, with an earlier block's scores added."""
    own = by_key_head(q, k)
    if scores is None:
        return (own @ k.transpose(-1, -2)).view(*q.shape[:3], k.shape[2])
    before = by_key_head(scores, k).flatten(0, 1)
    added = torch.baddbmm(before, own.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
    return added.view(*q.shape[:3], k.shape[2])


def weighted_sum(weights: Tensor, v: Tensor) -> Tensor:
    """`weights: (b, h, i, j)`, `v: (b, g, j, dv)` → (b, h, i, dv)."""
    return (by_key_head(weights, v) @ v).view(*weights.shape[:3], v.shape[3])


def by_key_head(x: Tensor, k: Tensor) -> Tensor:
    """`x: (b, h, i, ...)` → (b, g, h/g·i, ...): what reads the same head of `k: (b, g, j, d)`, which is not copied."""
    return x if x.shape[1] == k.shape[1] else x.reshape(x.shape[0], k.shape[1], -1, x.shape[3])


KERNEL = Kernel("explicit", run)
