"""Padding in the blocks that carry a state along the sequence.

A row's real tokens are moved to its front, so that a mask with holes, padding on the left and padding on the right
are one case: padding comes last, where a causal layer has only to keep it out of the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RealTokens:
    """Where the real tokens of a batch are.

        real = RealTokens.of(mask, seq)
        x = real.first(x)                  # then the layer's arithmetic, in which tokens from real.count on are padding
        y = real.back(y)

    Attributes:
        count: (batch,) int64, real tokens of each row; None: all are.
        mask: (batch, seq) bool, True = a real token, in the order of `first`; None: all are.
    """

    count: Tensor | None = None
    mask: Tensor | None = None
    _order: Tensor | None = None  # (batch, seq): the places in the order of `first`
    _places: Tensor | None = None  # (batch, seq): where `first` puts the token of each place
    _real: Tensor | None = None  # (batch, seq) bool, by place

    @classmethod
    def of(cls, mask: Tensor | None, seq: int) -> RealTokens:
        """`mask: (batch, seq) bool`, True = a real token; None: all are."""
        if mask is None:
            return cls()
        count = mask.sum(dim=1, dtype=torch.int64)
        order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
        real_before, padding_before = mask.cumsum(1) - 1, mask.logical_not().cumsum(1) - 1
        places = torch.where(mask, real_before, count[:, None] + padding_before)
        first = torch.arange(seq, device=mask.device, dtype=torch.int64) < count[:, None]
        return cls(count, first, order, places, mask)

    def first(self, x: Tensor) -> Tensor:
        """(batch, seq, ...): each row's real tokens in their order, then zeros: a NaN in padding reaches no product."""
        return x if self._order is None else self.only(x.gather(1, _like(self._order, x).expand_as(x)))

    def piece(self, at: slice) -> RealTokens:
        """Of the tokens at these places in the order of `first`."""
        if self.count is None or self.mask is None:
            return self
        mask = self.mask[:, at]
        return RealTokens((self.count - at.start).clamp(0, mask.shape[1]), mask)

    def last(self, before: Tensor, x: Tensor) -> Tensor:
        """(batch, n, features): the last n real tokens of `before: (batch, n, features)` and then `x`, in the order of
        `first`."""
        n = before.shape[1]
        if self.count is None:
            joined = torch.cat((before, x[:, -n:]), dim=1) if n else before
            return joined[:, joined.shape[1] - n :]
        at = self.count[:, None] + torch.arange(n, device=x.device, dtype=torch.int64)
        return torch.cat((before, x), dim=1).gather(1, _like(at, x).expand(-1, -1, x.shape[-1]))

    def back(self, y: Tensor) -> Tensor:
        """(batch, seq, ...) in the order of `first` → each token at its own place, zeros at padding."""
        if self._places is None or self._real is None:
            return y
        return y.gather(1, _like(self._places, y).expand_as(y)).masked_fill(~_like(self._real, y), 0.0)

    def only(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, ...)` in the order of `first`, with zeros at padding."""
        return x if self.mask is None else x.masked_fill(~_like(self.mask, x), 0.0)


def _like(of_tokens: Tensor, x: Tensor) -> Tensor:
    """(batch, seq) → (batch, seq, 1, ...) with as many axes as x."""
    return of_tokens.reshape(*of_tokens.shape, *(1,) * (x.ndim - 2))
