"""Where the tokens of a forward pass stand, and the biases that follow from their distances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Positions(NamedTuple):
    """Positions of the queries and of all keys, those of the past first.

    Attributes:
        queries: (seq,) or (batch, seq) int
        keys: (past + seq,) or (batch, past + seq) int
        consecutive: every token stands right behind the one before it, so that a place says the position.
    """

    queries: Tensor
    keys: Tensor
    consecutive: bool = True


def consecutive(seq: int, past: int, device: torch.device | str) -> Positions:
    """Tokens that stand one behind the other, the first key at 0."""
    keys = torch.arange(past + seq, device=device)
    return Positions(keys[past:], keys)


def given(pos: Tensor, before: Tensor | None, past: int) -> Positions:
    """Tokens at positions that the caller gives.

    Args:
        pos: (seq,) or (batch, seq) int
        before: (past,) or (batch, past) int of the tokens before; None: they stand right in front of the first.
        past: how many there are.
    """
    if before is None:
        before = pos[..., :1] + torch.arange(-past, 0, device=pos.device)
    if before.ndim < pos.ndim:
        before = before.expand(pos.shape[0], -1)
    elif pos.ndim < before.ndim:
        pos = pos.expand(before.shape[0], -1)
    return Positions(pos, torch.cat((before, pos), dim=-1), consecutive=False)


@dataclass(frozen=True)
class RelativeBias:
    """What positions add to the score of each query and key.

    Consecutive tokens have seq + keys - 1 distances in all: each is computed once, and laid along its diagonal by
    those who read it. Nothing here keeps a tensor for the backward pass: a checkpointed block that runs again finds
    what the first run made, and must keep as many tensors.

    Attributes:
        values: (heads, seq + keys - 1), from the last query's distance to the first key down to the first query's to
            the last key; or of any positions (batch or 1, heads, seq, keys).
        seq: queries.
        keys: those of the past and of this call.
    """

    values: Tensor
    seq: int
    keys: int
    _bands: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def by_distance(self) -> bool:
        return self.values.ndim == 2

    def __add__(self, other: RelativeBias) -> RelativeBias:
        """Both, of the same tokens."""
        return RelativeBias(self.values + other.values, self.seq, self.keys)

    def behind(self, count: int) -> RelativeBias:
        """That of all keys but the first `count`."""
        return RelativeBias(self.values[..., count:], self.seq, self.keys - count)

    def whole(self) -> Tensor:
        """(batch or 1, heads, seq, keys)"""
        if not self.by_distance:
            return self.values
        line = self.values.contiguous()
        heads, count = line.shape
        # `unfold` would fix the length in an export
        return line.as_strided((heads, self.seq, self.keys), (count, 1, 1)).flip(-2)[None]

    def band(self, rows: int) -> Tensor:
        """(heads, rows, seq + keys - 1): the bias of `rows` queries in a row, of which any others are a slice.

        Of queries from place s on, key j has column j - s + seq - 1.
        """
        if rows not in self._bands:
            line = F.pad(self.values, (rows - 1, 0)).contiguous()
            heads, count = line.shape
            windows = line.as_strided((heads, rows, count - rows + 1), (count, 1, 1))
            self._bands[rows] = windows.flip(-2)
        return self._bands[rows]


def scores_bias(module: nn.Module, positions: Positions) -> RelativeBias:
    """The bias that a module, distance (...) → (..., heads), gives tokens at these positions."""
    queries, keys = positions.queries, positions.keys
    seq, total = queries.shape[-1], keys.shape[-1]
    if positions.consecutive:
        distances = torch.arange(-seq, total, device=keys.device).flip(0)[:-1]
        return RelativeBias(module(distances).transpose(0, 1), seq, total)
    bias = module(queries[..., :, None] - keys[..., None, :]).movedim(-1, -3)
    return RelativeBias(bias if bias.ndim == 4 else bias[None], seq, total)
