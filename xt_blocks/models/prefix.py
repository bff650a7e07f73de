"""The prefix of a sequence in the stream: memory tokens and prepended embeddings.

Padding before a row's first token, of the tokens or of the prepended embeddings, moves to the front of the row, so that
the prefix is right before the row's first token, as in a row without padding. Then everything that depends on places
(relative positions, windows, token shift) gives a padded row the values of the row alone. Masked places between real
ones are not padding and stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.masks import joined_masks
from ..kernels.tensors import check_tensor

if TYPE_CHECKING:
    from ..runtime.sequence import SequenceState
    from .inputs import Inputs


class Prefix:
    """The places before the tokens in the stream, and the order of all of them.

    Args:
        inputs: of the model.
        memory_tokens: (memory, dim), which come first; None: none.

    Attributes:
        memory: number of memory tokens.
        length: memory + prepended; if 0, nothing is moved.
        mask: (batch, length + seq) bool, in the stream's order; None: all are real.
    """

    def __init__(self, inputs: Inputs, memory_tokens: Tensor | None) -> None:
        (batch, seq), device = inputs.x.shape[:2], inputs.x.device
        self._memory_tokens, self._prepended = memory_tokens, inputs.prepend_embeds
        prepended = 0 if inputs.prepend_embeds is None else inputs.prepend_embeds.shape[1]
        self.memory = 0 if memory_tokens is None else len(memory_tokens)
        self.length = self.memory + prepended
        self._order: Tensor | None = None  # (batch, length + seq), the source of each place
        self._tokens: Tensor | None = None  # (batch, seq), which of them are real
        self.mask = inputs.mask
        if self.length:
            mask = joined_masks(inputs.prepend_mask, prepended, inputs.mask, seq, batch, device)
            mask = joined_masks(None, self.memory, mask, prepended + seq, batch, device)
            if mask is not None:
                self._order, self._tokens = self._padding_first(mask), mask[:, self.length :]
                mask = self._arranged(mask)
            self.mask = mask

    def _padding_first(self, mask: Tensor) -> Tensor:
        """(batch, length + seq) int: the places of `mask` (batch, length + seq), padding first."""
        tokens, front = mask[:, self.length :], mask[:, self.memory : self.length]
        later = F.pad(tokens.cumsum(dim=-1) > 0, (self.length, 0))
        gaps = (front.cumsum(dim=-1) > 0) & (front.flip(-1).cumsum(dim=-1).flip(-1) > 0)
        stays = mask | later | F.pad(gaps, (self.memory, tokens.shape[1]))
        return stays.int().argsort(dim=-1, stable=True)

    # Into the stream and back --------------------------------------------------------------

    def prepended(self, embedded: Tensor) -> Tensor:
        """`embedded: (batch, seq, emb_dim)` after the prepended embeddings, (batch, prepended + seq, emb_dim)."""
        if self._prepended is None:
            return embedded
        return torch.cat((self._prepended.to(embedded.dtype), embedded), dim=1)

    def stream(self, x: Tensor) -> Tensor:
        """`x: (batch, prepended + seq, dim)` after the memory tokens, (batch, length + seq, dim), in its order."""
        if self._memory_tokens is not None:
            x = torch.cat((self._memory_tokens.expand(x.shape[0], -1, -1), x), dim=1)
        return self._arranged(x)

    def outputs(self, stream: Tensor) -> Tensor:
        """`stream: (batch, length + seq, dim)` in the sequence's order, without the memory tokens."""
        if self._order is not None:
            stream = _taken(stream, self._order.argsort(dim=-1))
        return stream[:, self.memory :] if self.memory else stream

    def memory_outputs(self, stream: Tensor) -> Tensor | None:
        """`stream: (batch, length + seq, dim)` of the memory tokens alone, (batch, memory, dim), or None."""
        if not self.memory:
            return None
        stream = stream if self._order is None else _taken(stream, self._order.argsort(dim=-1))
        return stream[:, : self.memory]

    def _arranged(self, x: Tensor) -> Tensor:
        return x if self._order is None else _taken(x, self._order)

    # Arguments about tokens, extended to all places -----------------------------------------------------------------

    def attn_mask(self, attn_mask: Tensor, seq: int, before: SequenceState) -> Tensor:
        """An attn_mask of tokens extended to all places; the prefix attends to all and is attended to by all.

        Args:
            attn_mask: (..., seq, keys) bool. Of rank 2, 3 or 4, as the stack takes it.
            seq: tokens of this pass.
            before: the tokens of earlier passes, whose keys come first, and their prefix.

        Returns:
            (..., length + seq, length + keys), in the stream's order; of rank 4 where that differs by row.
        """
        past = attn_mask.shape[-1] - seq
        if before.prefix and past:
            attn_mask = F.pad(attn_mask, (before.prefix, 0), value=True)
            return attn_mask if before.order is None else _keys_taken(attn_mask, before.order)
        if not self.length:
            return attn_mask
        rows = F.pad(attn_mask, (0, 0, self.length, 0), value=True)
        out = torch.cat((rows[..., :past], F.pad(rows[..., past:], (self.length, 0), value=True)), dim=-1)
        order = self.order_after(past)
        if self._order is None or order is None:
            return out
        return _keys_taken(out, order).take_along_dim(self._order[:, None, :, None], dim=2)

    def order_after(self, past: int) -> Tensor | None:
        """(batch, past + length + seq), the source of each place after `past` others; None: unchanged."""
        if self._order is None:
            return None
        before = torch.arange(past, device=self._order.device, dtype=torch.int64).expand(self._order.shape[0], -1)
        return torch.cat((before, self._order + past), dim=1)

    def tokens_mask(self, mask: Tensor) -> Tensor:
        """`mask: (batch, seq)` bool of the tokens for all places (batch, length + seq), in the stream's order."""
        return self._arranged(F.pad(mask, (self.length, 0), value=True))

    def condition(self, condition: Tensor | None, seq: int) -> Tensor | None:
        """A condition (batch, seq, features) of the tokens for all places, zeros for others; one of rows as it is."""
        if condition is None:
            return None
        check_tensor("condition", condition)
        if condition.ndim != 3 or condition.shape[1] == 1 or not self.length:
            return condition
        if condition.shape[1] != seq:
            raise ValueError(f"condition is of {condition.shape[1]} tokens, and there are {seq}")
        return self.vectors(condition)

    def vectors(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, features)` of the tokens for all places, zeros for others."""
        return self._arranged(F.pad(x, (0, 0, self.length, 0))) if self.length else x

    def positions(self, pos: Tensor) -> Tensor:
        """Positions of all places: those of the prefix count down from the row's first real token's.

        Args:
            pos: (seq,) or (batch, seq), the tokens' positions.

        Returns:
            (length + seq,) or (batch, length + seq), in the stream's order.
        """
        if not self.length:
            return pos
        first = pos.new_zeros(1) if self._tokens is None else self._tokens.int().argmax(dim=-1, keepdim=True)
        pos = pos.expand(*first.shape[:-1], -1) if pos.ndim == 1 else pos
        places = torch.arange(-self.length, pos.shape[-1], device=pos.device, dtype=torch.int64) - first
        counted_down = pos.gather(-1, first.expand(*pos.shape[:-1], 1)) + places
        return torch.where(places < 0, counted_down, F.pad(pos, (self.length, 0)))


def _keys_taken(attn_mask: Tensor, order: Tensor) -> Tensor:
    """`attn_mask` (..., seq, keys) of any rank as (batch, heads or 1, seq, keys), its first keys in this order."""
    attn_mask = attn_mask[(None,) * (4 - attn_mask.ndim)].expand(order.shape[0], -1, -1, -1)
    first = attn_mask[..., : order.shape[1]].take_along_dim(order[:, None, None, :], dim=3)
    return torch.cat((first, attn_mask[..., order.shape[1] :]), dim=-1)


def _taken(x: Tensor, order: Tensor) -> Tensor:
    rest = x.shape[2:]
    return x.gather(1, order.reshape(*order.shape, *(1 for _ in rest)).expand(*order.shape, *rest))
