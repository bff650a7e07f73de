"""What stands in front of a sequence and is no part of it: memory tokens and prepended embeddings.

Padding before a row's first token, of the tokens or of the prepended embeddings, goes to the front of the row: the
prefix then stands right before the row's first token, as it does in a row without padding. So whatever goes by place
(relative positions, windows, token shift) gives a padded row the values of the row alone. What is masked between real
ones is no padding and stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from ..runtime.cache import Cache


class Prefix:
    """Where the places of a prefix and of the tokens behind it are in the stream.

    Args:
        memory: how many memory tokens come first.
        prepended: how many embeddings come next.
        mask: (batch, length + seq) bool of prefix and tokens, True = real; None: all are.

    Attributes:
        memory: as given.
        length: memory + prepended; where it is 0, nothing is moved.
        mask: (batch, length + seq) bool, in the stream's order; None: all are real.
    """

    def __init__(self, memory: int, prepended: int, mask: Tensor | None) -> None:
        self.memory, self.length = memory, memory + prepended
        length = self.length
        self._order: Tensor | None = None  # (batch, length + seq), the place that comes to stand at each
        self._tokens: Tensor | None = None  # (batch, seq), which of them are real
        if length and mask is not None:
            tokens, front = mask[:, length:], mask[:, memory:length]
            self._tokens = tokens
            later = F.pad(tokens.cumsum(dim=-1) > 0, (length, 0))
            gaps = (front.cumsum(dim=-1) > 0) & (front.flip(-1).cumsum(dim=-1).flip(-1) > 0)
            stays = mask | later | F.pad(gaps, (memory, tokens.shape[1]))
            self._order = stays.int().argsort(dim=-1, stable=True)  # padding to the front
        self.mask = None if mask is None else self.arranged(mask)

    def arranged(self, x: Tensor) -> Tensor:
        """`x: (batch, length + seq, ...)`, prefix and tokens, in the stream's order."""
        return x if self._order is None else _taken(x, self._order)

    def restored(self, x: Tensor) -> Tensor:
        """The other way round."""
        return x if self._order is None else _taken(x, self._order.argsort(dim=-1))

    def pairs(self, attn_mask: Tensor, seq: int, cache: Cache | None = None) -> Tensor:
        """A mask of pairs of tokens for all places; the prefix sees all and is seen by all.

        Args:
            attn_mask: (..., seq, keys) bool. Of rank 2, 3 or 4, as the stack takes it.
            seq: tokens of this call.
            cache: it may hold a prefix of its own, and keys those of its tokens in front.

        Returns:
            (..., length + seq, length + keys), in the stream's order; of rank 4 where that differs by row.
        """
        past = attn_mask.shape[-1] - seq
        if cache is not None and cache.prefix and past:
            attn_mask = F.pad(attn_mask, (cache.prefix, 0), value=True)
            return attn_mask if cache.order is None else _keys_taken(attn_mask, cache.order)
        if not self.length:
            return attn_mask
        rows = F.pad(attn_mask, (0, 0, self.length, 0), value=True)
        pairs = torch.cat((rows[..., :past], F.pad(rows[..., past:], (self.length, 0), value=True)), dim=-1)
        order = self.order_behind(past)
        if self._order is None or order is None:
            return pairs
        return _keys_taken(pairs, order).take_along_dim(self._order[:, None, :, None], dim=2)

    def order_behind(self, past: int) -> Tensor | None:
        """(batch, past + length + seq), the place that comes to stand at each behind `past` others; None: its own."""
        if self._order is None:
            return None
        before = torch.arange(past, device=self._order.device).expand(self._order.shape[0], -1)
        return torch.cat((before, self._order + past), dim=1)

    def tokens_mask(self, mask: Tensor) -> Tensor:
        """`mask: (batch, seq)` bool of the tokens for all places (batch, length + seq), in the stream's order."""
        return self.arranged(F.pad(mask, (self.length, 0), value=True))

    def positions(self, pos: Tensor) -> Tensor:
        """Positions of all places: those of the prefix count down from the row's first real token's.

        Args:
            pos: (seq,) or (batch, seq), the tokens' positions.

        Returns:
            (length + seq,) or (batch, length + seq), in the stream's order.
        """
        first = pos.new_zeros(1) if self._tokens is None else self._tokens.int().argmax(dim=-1, keepdim=True)
        pos = pos.expand(*first.shape[:-1], -1) if pos.ndim == 1 else pos
        places = torch.arange(-self.length, pos.shape[-1], device=pos.device) - first
        counted_down = pos.gather(-1, first.expand(*pos.shape[:-1], 1)) + places
        return torch.where(places < 0, counted_down, F.pad(pos, (self.length, 0)))


def _keys_taken(pairs: Tensor, order: Tensor) -> Tensor:
    """`pairs` (..., seq, keys) of any rank as (batch, heads or 1, seq, keys), its first keys in this order."""
    pairs = pairs[(None,) * (4 - pairs.ndim)].expand(order.shape[0], -1, -1, -1)
    first = pairs[..., : order.shape[1]].take_along_dim(order[:, None, None, :], dim=3)
    return torch.cat((first, pairs[..., order.shape[1] :]), dim=-1)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    rest = x.shape[2:]
    return x.gather(1, order.reshape(*order.shape, *(1 for _ in rest)).expand(*order.shape, *rest))
