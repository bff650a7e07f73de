"""What attention's kernels are asked for, and what they give.

Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .contract import Kernel
from .masks import AttentionMask
from .scores.spec import ScoreSpec


class Scores(NamedTuple):
    """What an attention saw on its way.

    Attributes:
        before: (b, h, i, j) the scores with what positions add to them, before masking.
        weights: (b, h, i, j) after the softmax, a row of zeros where nothing is seen.
    """

    before: Tensor
    weights: Tensor


class Request(NamedTuple):
    """softmax(q kᵀ · scale) v, with what the spec does in between.

    Attributes:
        q: (b, h, i, d)
        k: (b, h, j, d), learned keys first.
        v: (b, h, j, dv)
        mask: which query sees which key, and what positions add.
        spec: what is done to scores and weights.
        flash: False asks for the scores in hand.
        keep_scores: give the Scores too.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: AttentionMask
    spec: ScoreSpec
    flash: bool = True
    keep_scores: bool = False

    def needs_scores(self) -> str | None:
        """Why the scores must be in hand, which no fused kernel has; None: they need not."""
        if not self.flash:
            return "flash=false asks for the scores in hand"
        if self.keep_scores:
            return "the scores are to be kept"
        return "scores of an earlier block are added" if self.spec.residual is not None else None


Result = tuple[Tensor, Scores | None]
"""(b, h, i, dv), and the Scores of a request that keeps them."""

AttentionKernel = Kernel[Request, Result]
