"""What decoding keeps about the tokens of a sequence, besides the state of the stack's nodes.

The stream may have a prefix before the tokens: segment memories, memory tokens, prepended embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..kernels.masks import joined_masks
from .state import Change, changed


@dataclass
class SequenceState:
    """The tokens of one batch of sequences so far; a model updates it after each pass.

    Attributes:
        length: tokens so far.
        prefix: places of the stream before them.
        order: (batch, places) int, which place of the prefix followed by the tokens is at each of the stream's first
            places; None: the same.
        mask: (batch, length) bool, True = a real token, in the sequence's order; None: all are, or
            shapes are fixed.
        last_position: (1,) or (batch, 1) int, the last token's, if the caller gives positions; None: they are counted.
        place: (1,) int64, the next token's in a cache with fixed shapes; None: after the others.
        padding: (batch, 1) int, how many tokens of left padding each row has, once shapes are fixed; None: none.
    """

    length: int = 0
    prefix: int = 0
    order: Tensor | None = None
    mask: Tensor | None = None
    last_position: Tensor | None = None
    place: Tensor | None = None
    padding: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether no pass has run yet."""
        return self.length + self.prefix == 0

    def extended(self, mask: Tensor | None, x: Tensor) -> Tensor | None:
        """(batch, length + seq) bool: the mask of the tokens so far and of `x: (batch, seq, ...)`; None: all are real.

        Args:
            mask: (batch, seq) bool
        """
        if self.length == 0:
            return mask
        return joined_masks(self.mask, self.length, mask, x.shape[1], x.shape[0], x.device)

    def next_positions(self, x: Tensor) -> Tensor | None:
        """(seq,) or (batch, seq) int: positions of x after the last one from the caller; None: they are counted."""
        if self.last_position is None:
            return None
        return self.last_position + torch.arange(1, x.shape[1] + 1, device=x.device, dtype=torch.int64)

    def counted_positions(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(seq,) int, or (batch, seq) counted from each row's first real token: positions of `x: (batch, seq, ...)`.

        Args:
            mask: (batch, length + seq) bool, as `extended` gives it.
        """
        if self.place is not None:
            positions, padding = self.place - self.prefix, self.padding
        else:
            positions = torch.arange(self.length, self.length + x.shape[1], device=x.device, dtype=torch.int64)
            padding = None if mask is None else _padding(mask)
        return positions if padding is None else (positions - padding).clamp(min=0)

    def advance(
        self, seq: int, mask: Tensor | None, pos: Tensor | None, prefix: int = 0, order: Tensor | None = None
    ) -> None:
        """After a pass over `seq` more tokens.

        Args:
            mask: (batch, length + seq) bool, as `extended` gave it.
            pos: the tokens' positions, (seq,) or (batch, seq); None: they are counted.
            prefix, order: of a first pass.
        """
        if self.place is not None:
            if pos is not None and self.last_position is not None:
                self.last_position.copy_(pos)
            return
        if self.empty:
            self.prefix, self.order = prefix, order
        self.length, self.mask = self.length + seq, mask
        self.last_position = None if pos is None else pos[..., -1:]

    def forget(self, places: int) -> None:
        """See `Cache.forget`; positions are then counted from the first place that is left."""
        if self.place is None:
            self.length -= places
            self.mask = None if self.mask is None else self.mask[:, places:]

    def changed(self, change: Change) -> SequenceState:
        """See `Cache.changed`."""
        rest = (self.order, self.mask, self.last_position, self.padding)
        order, mask, last_position, padding = (changed(t, change) for t in rest)
        return replace(self, order=order, mask=mask, last_position=last_position, padding=padding)

    def fix_shapes(self, place: Tensor, max_len: int) -> None:
        """See `Cache.fix_shapes`: from now on nothing grows."""
        self.place, self.length = place, max_len - self.prefix
        self.padding, self.mask = None if self.mask is None else _padding(self.mask), None
        if self.last_position is not None:
            self.last_position = self.last_position.clone()


def _padding(mask: Tensor) -> Tensor:
    """(batch, 1) int: number of places of `mask: (batch, places)` before the first True."""
    return (mask.cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
