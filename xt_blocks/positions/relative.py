"""The positions of the tokens of a forward pass, and the attention biases computed from their distances."""

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
        consecutive: each position is one more than the one before, so that an index implies a position.
    """

    queries: Tensor
    keys: Tensor
    consecutive: bool = True


def consecutive(seq: int, past: int, device: torch.device | str, first: int = 0) -> Positions:
    """Consecutive positions, the first key at `first`."""
    keys = torch.arange(first, first + past + seq, device=device, dtype=torch.int64)
    return Positions(keys[past:], keys)


def positions_at(pos: Tensor, before: Tensor | None, past: int) -> Positions:
    """Positions from the caller.

    Args:
        pos: (seq,) or (batch, seq) int
        before: (past,) or (batch, past) int of the tokens before; None: consecutive, up to the first.
        past: number of tokens before.
    """
    if before is None:
        before = pos[..., :1] + torch.arange(-past, 0, device=pos.device, dtype=torch.int64)
    if before.ndim < pos.ndim:
        before = before.expand(pos.shape[0], -1)
    elif pos.ndim < before.ndim:
        pos = pos.expand(before.shape[0], -1)
    return Positions(pos, torch.cat((before, pos), dim=-1), consecutive=False)


@dataclass(frozen=True)
class RelativeBias:
    """What positions add to the attention score of each query and key.

    Consecutive tokens have seq + keys - 1 distances in all: each bias is computed once, and readers lay it along its
    diagonal. No tensor is saved for the backward pass here: a checkpointed block that is recomputed finds what its
    first run made, and has to save as many tensors.

    Attributes:
        values: (heads, seq + keys - 1), from the last query's distance to the first key down to the first query's to
            the last key; or of any positions (batch or 1, heads, seq, keys).
        seq: queries.
        keys: past keys and those of this pass.
    """

    values: Tensor
    seq: int
    keys: int
    _bands: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def by_distance(self) -> bool:
        return self.values.ndim == 2

    def __add__(self, other: RelativeBias) -> RelativeBias:
        """The sum of two biases for the same tokens."""
        return RelativeBias(self.values + other.values, self.seq, self.keys)

    def after(self, count: int) -> RelativeBias:
        """The bias of all keys but the first `count`."""
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
        """(heads, rows, seq + keys - 1): the bias of `rows` consecutive queries; any others are a slice of it.

        For queries from index s on, key j has column j - s + seq - 1.
        """
        if rows not in self._bands:
            line = F.pad(self.values, (rows - 1, 0)).contiguous()
            heads, count = line.shape
            windows = line.as_strided((heads, rows, count - rows + 1), (count, 1, 1))
            self._bands[rows] = windows.flip(-2)
        return self._bands[rows]


def scores_bias(module: nn.Module, positions: Positions) -> RelativeBias:
    """The bias of tokens at these positions by a module: distances (...) → (..., heads)."""
    queries, keys = positions.queries, positions.keys
    seq, total = queries.shape[-1], keys.shape[-1]
    if positions.consecutive:
        distances = torch.arange(-seq, total, device=keys.device, dtype=torch.int64).flip(0)[:-1]
        return RelativeBias(module(distances).transpose(0, 1), seq, total)
    bias = module(queries[..., :, None] - keys[..., None, :]).movedim(-1, -3)
    return RelativeBias(bias if bias.ndim == 4 else bias[None], seq, total)
