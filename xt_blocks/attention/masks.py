"""Which query sees which key: every mask of a forward pass, resolved once.

Owns the reading of masks (boolean, True = attend). The kernel gets an `Attend` and asks nothing more. A row
that sees nothing is opened so that its softmax is finite, and its output is set to zero: what was masked leaves
no trace in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Attend:
    """A resolved mask.

    Attributes:
        allowed: (batch or 1, 1, queries or 1, keys) bool, True = attend; None: everything, or what `causal` says.
        causal: the plain triangle, which a fused kernel needs no mask for.
        empty: (batch or 1, 1, queries or 1, 1) bool, the rows that see nothing; None: there is none.
    """

    allowed: Tensor | None = None
    causal: bool = False
    empty: Tensor | None = None


def check_mask(name: str, mask: Tensor | None, of: Tensor | None) -> None:
    """Raise ValueError unless `mask` is boolean and (batch, seq) of `of: (batch, seq, ...)`."""
    if mask is None or of is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be boolean, True = attend, not {mask.dtype}")
    if mask.shape != of.shape[:2]:
        raise ValueError(f"{name} must be {tuple(of.shape[:2])}, not {tuple(mask.shape)}")


class Masks:
    """The masks of one forward pass.

    Args:
        queries: tokens in this call.
        past: tokens before them whose keys are cached.
        mask: (batch, past + queries) bool, which tokens are real; None: all.
        context_mask: (batch, context) bool; None: all.
        device: where the masks are made.
    """

    def __init__(
        self,
        queries: int,
        past: int = 0,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.queries, self.past = queries, past
        self.mask, self.context_mask = mask, context_mask
        self.device = device
        self._known: dict[str, Attend] = {}

    def tokens(self, causal: bool) -> Attend:
        """Self-attention's mask."""
        name = "causal" if causal else "both"
        if name not in self._known:
            self._known[name] = self._tokens(causal)
        return self._known[name]

    def context(self) -> Attend:
        """Cross-attention's mask: only the context's own hides any of the context."""
        if "context" not in self._known:
            self._known["context"] = self._padded(self.context_mask, None)
        return self._known["context"]

    def _tokens(self, causal: bool) -> Attend:
        if not causal or self.queries == 1:  # one query is the newest token and sees all before it
            return self._padded(self.mask, None)
        if self.mask is None and self.past == 0:
            return Attend(causal=True)
        keys = self.past + self.queries
        triangle = torch.ones(self.queries, keys, dtype=torch.bool, device=self.device).tril(self.past)
        return self._padded(self.mask, triangle)

    @staticmethod
    def _padded(mask: Tensor | None, triangle: Tensor | None) -> Attend:
        """`mask: (batch, keys)` and `triangle: (queries, keys)` together."""
        if mask is None:
            return Attend(allowed=None if triangle is None else triangle[None, None])
        allowed = mask[:, None, None, :] if triangle is None else mask[:, None, None, :] & triangle
        empty = ~allowed.any(dim=-1, keepdim=True)
        return Attend(allowed=allowed | empty, empty=empty)
