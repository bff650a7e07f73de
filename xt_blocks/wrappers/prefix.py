"""What stands in front of a sequence and is no part of it: memory tokens and prepended embeddings.

Where padding stands between the prefix and a row's first token, it changes places with the prefix: the prefix stands
right before the row's first token, as it does in a row without padding. So whatever goes by place (relative
positions, windows, token shift) gives a padded row the values of the row alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Prefix:
    """Where the places of a prefix and of the tokens behind it are in the stream.

    Args:
        length: of the prefix; 0: nothing is moved.
        mask: (batch, length + seq) bool of prefix and tokens, True = real; None: all are.

    Attributes:
        length: of the prefix.
        mask: (batch, length + seq) bool, in the stream's order; None: all are real.
    """

    def __init__(self, length: int, mask: Tensor | None) -> None:
        self.length = length
        self._order: Tensor | None = None  # (batch, length + seq), the place that comes to stand at each
        self._first: Tensor | None = None  # (batch, 1), each row's first real token
        if length and mask is not None:
            before = F.pad(mask[:, length:].cumsum(dim=-1) == 0, (length, 0), value=True)
            self._first = mask[:, length:].int().argmax(dim=-1, keepdim=True)
            self._order = (mask | ~before).int().argsort(dim=-1, stable=True)  # the hidden ones before it to the front
        self.mask = None if mask is None else self.arranged(mask)

    def arranged(self, x: Tensor) -> Tensor:
        """`x: (batch, length + seq, ...)`, prefix and tokens, in the stream's order."""
        return x if self._order is None else _taken(x, self._order)

    def restored(self, x: Tensor) -> Tensor:
        """The other way round."""
        return x if self._order is None else _taken(x, self._order.argsort(dim=-1))

    def positions(self, pos: Tensor) -> Tensor:
        """Positions of all places: those of the prefix count down from the row's first real token's.

        Args:
            pos: (seq,) or (batch, seq), the tokens' positions.

        Returns:
            (length + seq,) or (batch, length + seq), in the stream's order.
        """
        first = pos.new_zeros(1) if self._first is None else self._first
        pos = pos.expand(*first.shape[:-1], -1) if pos.ndim == 1 else pos
        places = torch.arange(-self.length, pos.shape[-1], device=pos.device) - first
        counted_down = pos.gather(-1, first.expand(*pos.shape[:-1], 1)) + places
        return torch.where(places < 0, counted_down, F.pad(pos, (self.length, 0)))


def _taken(x: Tensor, order: Tensor) -> Tensor:
    rest = x.shape[2:]
    return x.gather(1, order.reshape(*order.shape, *(1 for _ in rest)).expand(*order.shape, *rest))
