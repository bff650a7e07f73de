"""Decoding by hand: the intermediates of one pass are the cache of the next.

    y, seen = stack(x, return_hiddens=True)
    y2, seen = stack(torch.cat((x, more), dim=1), cache=seen, return_hiddens=True)  # y2: of `more` only

Intermediates stay as they are, so several sequences may go on from the same ones. A pass keeps no cache for this: the
first step runs it once more, with the weights of then. Loops that know their length use `new_cache`, which copies
nothing.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .cache import Cache
from .intermediates import Intermediates
from .memories import Memories

_STEP = 128
"""Capacity grows by so many tokens at a time."""


def check_cache(cache: object) -> None:
    """Raise TypeError unless it is what a pass takes as its cache, or None."""
    if not isinstance(cache, Cache | Intermediates | NoneType):
        made = "one of new_cache(), or the Intermediates of an earlier pass"
        raise TypeError(f"cache must be {made}, not {type(cache).__name__}")


class NewTokens(NamedTuple):
    """The part of a step's arguments that is of its new tokens, by the names of the forward pass."""

    x: Tensor
    mask: Tensor | None
    attn_mask: Tensor | None
    pos: Tensor | None

    @classmethod
    def of(
        cls,
        held: int,
        x: Tensor,
        mask: Tensor | None,
        attn_mask: Tensor | None,
        pos: Tensor | None,
        self_attn_context_mask: Tensor | None,
    ) -> NewTokens:
        """
        Args:
            held: tokens of the earlier passes.
            x: (batch, seq, ...), all of the sequence with new tokens at its end, or one new token.
            mask, attn_mask, pos, self_attn_context_mask: of the same tokens.

        Raises:
            ValueError: x has no new token.
        """
        seq = x.shape[1]
        if seq <= held and seq != 1:
            wanted = f"all of the sequence, more than {held} tokens, or one new token"
            raise ValueError(f"the intermediates in cache= hold {held} tokens: give {wanted}, not {seq} tokens")
        new = seq - held if seq > held else 1
        if self_attn_context_mask is not None:
            keys = self_attn_context_mask[:, None, None]
            attn_mask = keys.expand(-1, 1, new, -1) if attn_mask is None else attn_mask[..., -new:, :] & keys
        return cls(
            x[:, -new:],
            None if mask is None else mask[:, -new:],
            None if attn_mask is None else attn_mask[..., -new:, :],
            None if pos is None else pos[..., -new:],
        )


def check_earlier(seen: Intermediates, mask: Tensor | None, real: Tensor | None, new: int, **given: Any) -> None:
    """Raise ValueError if a step says something else of what earlier passes have read.

    Args:
        mask: (batch, seq) bool of the step.
        real: (batch, earlier tokens) bool, as earlier passes had it; None: all.
        new: how many tokens are new.
        given: what only a first pass reads, by name; None may stand for the same again.
    """
    if mask is not None and mask.ndim == 2 and (held := mask.shape[1] - new) > 0:
        front = mask[:, :held]
        if not (front.all() if real is None else torch.equal(front, real)):
            raise ValueError("mask differs from that of an earlier pass at tokens that it has read")
    for name, value in given.items():
        if value is not None and not _alike(value, seen.given.get(name)):
            raise ValueError(f"{name} differs from that of the first pass, which alone reads it: leave it out")


def _alike(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other.to(one))
    parts = [isinstance(x, Memories | list | tuple) for x in (one, other)]
    return all(parts) and len(one) == len(other) and all(map(_alike, one, other))


def growing_capacity(tokens: int) -> int:
    """Of a cache for so many tokens that more may follow."""
    return -(-tokens // _STEP) * _STEP
