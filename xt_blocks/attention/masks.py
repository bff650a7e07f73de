"""Which query sees which key: every mask of a forward pass, resolved once.

Owns the reading of masks (boolean, True = attend). The kernel gets an `Attend` and asks nothing more. A row
that sees nothing is opened so that its softmax is finite, and its output is set to zero: what was masked leaves
no trace in it.

Keys stand in this order: learned memories, which everyone sees; tokens of the past; the tokens of this call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
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

    def everywhere(self, scores: Tensor) -> Tensor | None:
        """`allowed`, the plain triangle written out, for `scores: (..., queries, keys)`."""
        if self.allowed is not None or not self.causal:
            return self.allowed
        return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()


def check_mask(name: str, mask: Tensor | None, of: Tensor | None) -> None:
    """Raise ValueError unless `mask` is boolean and (batch, seq) of `of: (batch, seq, ...)`."""
    if mask is None or of is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be boolean, True = attend, not {mask.dtype}")
    if mask.shape != of.shape[:2]:
        raise ValueError(f"{name} must be {tuple(of.shape[:2])}, not {tuple(mask.shape)}")


class Sight(NamedTuple):
    """What decides a self-attention's mask, apart from the tokens: blocks alike in it share one.

    Attributes:
        causal: no token sees a later one.
        reach: how far back a token sees; None: to the start.
        memories: learned keys in front of the tokens'.
    """

    causal: bool
    reach: int | None = None
    memories: int = 0


class Masks:
    """The masks of one forward pass.

    Args:
        queries: tokens in this call.
        past: tokens before them whose keys there are.
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
        self._known: dict[object, Attend] = {}

    def tokens(self, sight: Sight) -> Attend:
        """Self-attention's mask."""
        if sight not in self._known:
            self._known[sight] = self._tokens(sight)
        return self._known[sight]

    def context(self, memories: int = 0) -> Attend:
        """Cross-attention's mask: only the context's own hides any of the context."""
        key = ("context", memories)
        if key not in self._known:
            self._known[key] = self._resolved(self.context_mask, None, memories)
        return self._known[key]

    def _tokens(self, sight: Sight) -> Attend:
        # one query is the newest token and sees all before it
        causal = sight.causal and self.queries > 1
        if causal and self.mask is None and self.past == 0 and sight.reach is None and not sight.memories:
            return Attend(causal=True)
        return self._resolved(self.mask, self._pairs(causal, sight.reach), sight.memories)

    def _pairs(self, causal: bool, reach: int | None) -> Tensor | None:
        """(queries, past + queries) bool by place alone; None: all."""
        keys = self.past + self.queries
        pairs = None
        if causal:
            pairs = torch.ones(self.queries, keys, dtype=torch.bool, device=self.device).tril(self.past)
        if reach is not None and reach < keys - 1:
            near = torch.ones(self.queries, keys, dtype=torch.bool, device=self.device).triu(self.past - reach)
            pairs = near if pairs is None else pairs & near
        return pairs

    @staticmethod
    def _resolved(mask: Tensor | None, pairs: Tensor | None, memories: int) -> Attend:
        """`mask: (batch, keys)` and `pairs: (queries, keys)` together, behind memories that all see."""
        if mask is None:
            allowed = None if pairs is None else F.pad(pairs, (memories, 0), value=True)[None, None]
            return Attend(allowed)
        allowed = mask[:, None, None, :] if pairs is None else mask[:, None, None, :] & pairs
        if memories:
            return Attend(F.pad(allowed, (memories, 0), value=True))
        empty = ~allowed.any(dim=-1, keepdim=True)
        return Attend(allowed | empty, empty=empty)
