"""Dropout of features in training (Srivastava et al., JMLR 15, 2014), by torch's numbers or row by row."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..kernels.batch_rows import draws_by_row, kept_by_row
from .part import ALONE


class FeatureDropout(nn.Dropout):
    """torch's own, of which a rank may have some of the features: what is dropped is drawn for those of all parts.

    Attributes:
        part: which of the features it has.
    """

    part = ALONE

    def forward(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, features)` → the same shape."""
        if not self.training or not self.p or (self.part is ALONE and not draws_by_row()):
            return super().forward(x)
        return x * self.factors(x.shape, x)

    def factors(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """What features of this shape, (batch, seq, ..., features), are multiplied by: 0, or 1 / (1 - p)."""
        whole = (*shape[:-1], shape[-1] * self.part.count)
        kept = kept_by_row(whole, self.p, like.device, tokens=1)
        drawn = super().forward(like.new_ones(whole)) if kept is None else kept.to(like.dtype) / (1 - self.p)
        return drawn.narrow(-1, self.part.index * shape[-1], shape[-1])
