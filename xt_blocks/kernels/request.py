"""The request and the result of attention kernels.

Axes: b batch, h heads, g key-value heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .contract import Kernel
from .masks import AttentionMask
from .scores.spec import ScoreSpec


class Scores(NamedTuple):
    """Scores and weights of an attention.

    Attributes:
        before: (b, h, i, j) the scores with position biases, before masking.
        weights: (b, h, i, j) after the softmax, a row of zeros if all keys are masked.
    """

    before: Tensor
    weights: Tensor

    @property
    def pre_softmax_attn(self) -> Tensor:
        """`before`, as x-transformers has it: with a large negative number where a key is masked."""
        return self.before.masked_fill(self.weights == 0, -torch.finfo(self.before.dtype).max)

    @property
    def post_softmax_attn(self) -> Tensor:
        """`weights`, as x-transformers names them."""
        return self.weights


class Request(NamedTuple):
    """softmax(q kᵀ · scale) v, with the modifiers of the spec.

    Attributes:
        q: (b, h, i, d)
        k: (b, g, j, d), memory key-values first; each head for h / g heads of queries one after another.
        v: (b, g, j, dv)
        mask: which query attends to which key, and position biases.
        spec: modifiers of scores and weights.
        flash: False requires a kernel that holds the scores.
        keep_scores: return the Scores too.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: AttentionMask
    spec: ScoreSpec
    flash: bool = True
    keep_scores: bool = False

    def repeated(self) -> Request:
        """The same with a head of keys and values for each head of queries (Ainslie et al., arXiv:2305.13245)."""
        if (times := self.q.shape[1] // self.k.shape[1]) == 1:
            return self
        return self._replace(k=repeat_heads(self.k, times), v=repeat_heads(self.v, times))

    def needs_scores(self) -> str | None:
        """Why the kernel must hold the scores, which fused kernels do not; None: it need not."""
        if not self.flash:
            return "flash=false asks for the scores in hand"
        if self.keep_scores:
            return "the scores are to be kept"
        return "scores of an earlier block are added" if self.spec.residual is not None else None


def repeat_heads(x: Tensor, times: int) -> Tensor:
    """(b, g, m, d) → (b, g·times, m, d), each head `times` consecutively."""
    if times == 1:
        return x
    return x[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)


Result = tuple[Tensor, Scores | None]
"""(b, h, i, dv), and the Scores of a request that keeps them."""

AttentionKernel = Kernel[Request, Result]
