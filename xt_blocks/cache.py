"""What decoding keeps between steps, keyed by the graph's nodes.

Every node has its own slot, so a block that is dropped, tied to another, or in a parallel branch cannot take
another's state. Keys and values are allocated once, for the longest sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Slot:
    """One node's state. Self-attention extends it, cross-attention fills it once, a token shift keeps a tail."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._tails: dict[int, Tensor] = {}
        self.filled = False

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens' `k, v: (batch, heads, new, dim_head)`; returns those of all tokens so far."""
        if self._keys is None or self._values is None:
            self._keys, self._values = self._room(k), self._room(v)
        start, end = self._cache.length, self._cache.end
        self._keys[:, :, start:end] = k
        self._values[:, :, start:end] = v
        return self._keys[:, :, :end], self._values[:, :, :end]

    def _room(self, new: Tensor) -> Tensor:
        """Once, for the longest sequence, in the type that the projections give (autocast's, where it is on)."""
        return new.new_zeros(new.shape[0], new.shape[1], self._cache.max_len, new.shape[3])

    def store(self, k: Tensor, v: Tensor) -> None:
        """Keep a context's `k, v: (batch, heads, context, dim_head)`."""
        self._keys, self._values, self.filled = k, v, True

    def stored(self) -> tuple[Tensor, Tensor]:
        assert self._keys is not None
        assert self._values is not None
        return self._keys, self._values

    def swap_tail(self, x: Tensor, length: int) -> Tensor:
        """Keep the last `length` tokens of `x: (batch, new, dim)`; returns those kept before, zeros at first.

        A tail is kept by the place it ends at, so that a step that failed can be run again.
        """
        before = self._cache.length
        tail = self._tails.get(before)
        if tail is None:
            tail = x.new_zeros(x.shape[0], length, x.shape[2])
        after = torch.cat((tail, x), dim=1)[:, -length:].clone()
        self._tails = {before: tail, self._cache.end: after}
        return tail

    def bytes(self) -> int:
        """Of keys and values."""
        return sum(t.numel() * t.element_size() for t in (self._keys, self._values) if t is not None)


class Cache:
    """The state of one batch of sequences while they are decoded.

    Made by `Stack.new_cache`. `stack(x, cache=cache)` reads it, and adds x to it.

    Attributes:
        batch, max_len: the rows, and the longest sequence there is room for.
        length: tokens seen so far.
        end: what it will be behind the pass that is running.
        positions: (length,) or (batch, length) int, where they stand; None: one behind the other.
        mask: (batch, length) bool, which of them are real; None: all.
        context_mask: (batch, context) bool of the context seen first; None: all.
    """

    def __init__(self, batch: int, max_len: int) -> None:
        self.batch, self.max_len = batch, max_len
        self.length = self.end = 0
        self.positions: Tensor | None = None
        self.mask: Tensor | None = None
        self.context_mask: Tensor | None = None
        self._slots: dict[str, Slot] = {}

    def slot(self, node: str) -> Slot:
        if node not in self._slots:
            self._slots[node] = Slot(self)
        return self._slots[node]

    def check_room(self, batch: int, new: int) -> None:
        """Before a pass over `new` more tokens."""
        if batch != self.batch:
            raise ValueError(f"the cache holds {self.batch} rows, not {batch}")
        if self.length + new > self.max_len:
            raise ValueError(
                f"the cache has room for {self.max_len} tokens and holds {self.length}; {new} more do not fit"
            )

    def seen(self, mask: Tensor | None, new: int, device: torch.device) -> Tensor | None:
        """(batch, length + new) bool: the mask of the tokens so far and of the `new` ones; None: all are real."""
        if mask is None and self.mask is None:
            return None
        before = self.mask
        if before is None:
            before = torch.ones(self.batch, self.length, dtype=torch.bool, device=device)
        now = torch.ones(self.batch, new, dtype=torch.bool, device=device) if mask is None else mask
        return torch.cat((before, now), dim=1)

    def bytes(self) -> int:
        """Of all keys and values."""
        return sum(slot.bytes() for slot in self._slots.values())
