"""Where the tokens of a forward pass stand, and the biases that follow from their distances."""

from __future__ import annotations

from typing import NamedTuple

import torch
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


def scores_bias(module: nn.Module, positions: Positions) -> Tensor:
    """What a bias module adds to the score of each query and key.

    Consecutive positions have seq + keys - 1 distances in all: each is computed once and laid along its diagonal.

    Args:
        module: distance (...) → (..., heads)

    Returns:
        (batch or 1, heads, seq, past + seq)
    """
    queries, keys = positions.queries, positions.keys
    if not positions.consecutive:
        distance = queries[..., :, None] - keys[..., None, :]
        bias = module(distance).movedim(-1, -3)
        return bias if bias.ndim == 4 else bias[None]
    seq, past = queries.shape[-1], keys.shape[-1] - queries.shape[-1]
    distances = torch.arange(-seq, past + seq, device=keys.device).flip(0)  # of the last query and first key, and on
    line = module(distances[:-1]).transpose(0, 1).contiguous()
    heads, count = line.shape
    windows = line.as_strided((heads, seq, past + seq), (count, 1, 1))  # `unfold` would fix the length in an export
    return windows.flip(-2)[None]
