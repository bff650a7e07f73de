"""The place of the next token in a cache with fixed shapes, as tensors: one compiled step then serves all places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class FixedShapes:
    """The place of the next token, and what is known of all places.

    Attributes:
        place: (1,) int64
        real: (batch, max_len) bool, which places hold a real token, now or later.
        positions: (max_len,) or (batch, max_len) int; None: the places themselves, from `first` on.
        first: (1,) int64, the position of place 0.
    """

    place: Tensor
    real: Tensor
    positions: Tensor | None
    first: Tensor

    def seen(self) -> Tensor:
        """(batch, max_len) bool: which places the token at `place` attends to."""
        return self.real & (self._places() <= self.place)

    def placed(self, pos: Tensor | None) -> tuple[Tensor, Tensor]:
        """The position of the token at `place`, `pos` or the one after the last token's, and those of all places.

        Places without a token get the same position. (1,) or (batch, 1), and (max_len,) or (batch, max_len).
        """
        if self.positions is None:
            return self.place + self.first, self._places().minimum(self.place) + self.first
        if pos is None:
            pos = self.positions.index_select(-1, self.place - 1) + 1
        pos = pos.expand(*self.positions.shape[:-1], 1)
        self.positions.index_copy_(-1, self.place, pos)
        return pos, torch.where(self._places() <= self.place, self.positions, pos)

    def forget(self, places: int) -> None:
        """See `Cache.forget`."""
        self.place -= places
        self.first += places
        move_to_front(self.real, places, -1)
        self.real[:, -places:] = True
        if self.positions is not None:
            move_to_front(self.positions, places, -1)

    def _places(self) -> Tensor:
        return torch.arange(self.real.shape[1], device=self.real.device, dtype=torch.int64)


def move_to_front(t: Tensor, places: int, axis: int) -> None:
    """Move what is from index `places` of an axis on to its front, in place; the end stays as it is."""
    count = t.shape[axis] - places
    t.narrow(axis, 0, count).copy_(t.narrow(axis, places, count).clone())
