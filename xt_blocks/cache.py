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
        length: places of the stream seen so far.
        prefix: how many of them are no tokens of the sequence: memories, memory tokens and prepended embeddings.
        order: (batch, places) int, where the first of the places come from, of prefix and tokens one behind the
            other; None: they stand so.
        end: what length will be behind the pass that is running.
        positions: (length,) or (batch, length) int, where they stand; None: one behind the other.
        mask: (batch, length) bool, which of the places are real; None: all.
        last_position: (1,) or (batch, 1) int, the last token's as the caller gave it; None: positions are counted.
        token_mask: (batch, length - prefix) bool, which of the tokens are, in the sequence's order; None: all.
        context_mask: (batch, context) bool of the context seen first; None: all.
    """

    def __init__(self, batch: int, max_len: int) -> None:
        for name, value in (("batch", batch), ("max_len", max_len)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, not {value!r}")
        self.batch, self.max_len = batch, max_len
        self.length = self.end = self.prefix = 0
        self.positions: Tensor | None = None
        self.order: Tensor | None = None
        self.last_position: Tensor | None = None
        self.mask: Tensor | None = None
        self.token_mask: Tensor | None = None
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
        return joined_masks(self.mask, self.length, mask, new, self.batch, device)

    def seen_tokens(self, mask: Tensor | None, new: int, device: torch.device) -> Tensor | None:
        """`seen` without the prefix: (batch, length - prefix + new)."""
        return joined_masks(self.token_mask, self.length - self.prefix, mask, new, self.batch, device)

    def bytes(self) -> int:
        """Of all keys and values."""
        return sum(slot.bytes() for slot in self._slots.values())


def joined_masks(
    first: Tensor | None, first_len: int, second: Tensor | None, second_len: int, batch: int, device: torch.device
) -> Tensor | None:
    """(batch, first_len + second_len) bool: one mask behind the other, where None is a mask that hides nothing."""
    if first is None and second is None:
        return None
    pair = ((first, first_len), (second, second_len))
    masks = [torch.ones(batch, n, dtype=torch.bool, device=device) if mask is None else mask for mask, n in pair]
    return torch.cat(masks, dim=1)
