"""What decoding keeps between steps, keyed by the graph's nodes.

Every node has its own slot, so a block that is dropped, tied to another, or in a parallel branch cannot take
another's state. Keys and values are allocated once, for the longest sequence, or for the window of a node that has one.

A step's shapes grow with the tokens. `Cache.fix_shapes` makes them those of the longest sequence instead: where a token
goes is then a tensor, and torch.compile takes a step once for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from blockdsl.graph.windows import room

from ..kernels import compat
from ..kernels.masks import joined_masks
from .sequence import SequenceState


class Slot:
    """One node's state. Self-attention extends it, cross-attention fills it once, a token shift keeps a tail.

    Args:
        window: how many tokens before a step's own it keeps; None: all.
    """

    def __init__(self, cache: Cache, window: int | None = None) -> None:
        self._cache, self.window = cache, window
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._begin = 0  # the place of the first key that is kept
        self._replaced: tuple[int, int, Tensor, Tensor] | None = None
        self._tails: dict[int, Tensor] = {}
        self._ring: Tensor | None = None
        self.filled = False

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens' `k, v: (batch, heads, new, dim_head)`; returns those of all tokens so far.

        With a window these are the queries' own and so many before, and with fixed shapes those of all places.
        """
        if self._keys is None or self._values is None:
            self._keys, self._values = self._room(k), self._room(v)
        if self._cache.fixed is not None:
            place = self._cache.fixed.place
            return self._keys.index_copy_(2, place, k), self._values.index_copy_(2, place, v)
        start, end = self._cache.length, self._cache.end
        first = 0
        if self.window is not None:
            self._undo_failed(start)
            first = max(0, end - self._cache.queries - self.window)
            if end - self._begin > self._keys.shape[2]:
                if end - first > self._keys.shape[2] or first > start:  # memories may be out of sight at once
                    return self._replace(k, v, first)
                self._move_to(first)
        begin = self._begin
        self._keys[:, :, start - begin : end - begin] = k
        self._values[:, :, start - begin : end - begin] = v
        return self._keys[:, :, first - begin : end - begin], self._values[:, :, first - begin : end - begin]

    def _room(self, new: Tensor) -> Tensor:
        """Once, for the longest sequence, in the type that the projections give (autocast's, where it is on)."""
        return new.new_zeros(new.shape[0], new.shape[1], room(self.window, self._cache.max_len), new.shape[3])

    def _move_to(self, first: int) -> None:
        """Take what is kept from place `first` on to the front."""
        past, kept = first - self._begin, self._cache.length - first
        for t in self.stored():
            t[:, :, :kept] = t[:, :, past : past + kept].clone()
        self._begin = first

    def _replace(self, k: Tensor, v: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """A step of more tokens than there is room for: attend to them as they are, and keep the last in a new room.

        The old one stays for a step that failed and is run again.
        """
        assert self.window is not None
        start, end, old = self._cache.length, self._cache.end, self.stored()
        self._replaced = (start, self._begin, *old)
        past = slice(first - self._begin, start - self._begin)
        k, v = (torch.cat((t[:, :, past], new), dim=2)[:, :, first - end :] for t, new in zip(old, (k, v), strict=True))
        kept = min(self.window, k.shape[2])
        self._keys, self._values, self._begin = self._room(k), self._room(v), end - kept
        for t, new in zip(self.stored(), (k, v), strict=True):
            t[:, :, :kept] = new[:, :, new.shape[2] - kept :]
        return k, v

    def _undo_failed(self, start: int) -> None:
        if self._replaced is not None:
            if self._replaced[0] == start:
                _, self._begin, self._keys, self._values = self._replaced
            self._replaced = None

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
        if self._cache.fixed is not None and self._ring is not None:
            place = self._cache.fixed.place
            tail = self._ring.index_select(1, (place + torch.arange(-length, 0, device=x.device)) % (length + 1))
            self._ring.index_copy_(1, place % (length + 1), x)
            return tail
        before = self._cache.length
        kept = self._tails.get(before)
        tail = x.new_zeros(x.shape[0], length, x.shape[2]) if kept is None else kept
        after = torch.cat((tail, x), dim=1)[:, -length:].clone()
        self._tails = {before: tail, self._cache.end: after}
        return tail

    def fix_shapes(self) -> None:
        """See `Cache.fix_shapes`. A window has all places then, and a tail becomes a ring, each token at its place."""
        length = self._cache.length
        window, self.window, self._replaced = self.window, None, None
        if self._keys is not None and window is not None:
            kept = slice(self._begin, length)
            shown = [t[:, :, : length - self._begin] for t in self.stored()]
            self._keys, self._values = (self._room(t) for t in shown)
            for t, old in zip(self.stored(), shown, strict=True):
                t[:, :, kept] = old
            self._begin = 0
        if (tail := self._tails.get(length)) is not None:
            places = torch.arange(length - tail.shape[1], length, device=tail.device) % (tail.shape[1] + 1)
            self._ring = torch.cat((tail, torch.zeros_like(tail[:, :1])), dim=1)
            self._ring.index_copy_(1, places, tail)
            self._tails = {}

    def tensors(self) -> list[Tensor]:
        """Those that steps of fixed shapes read and write."""
        return [t for t in (self._keys, self._values, self._ring) if t is not None]

    def bytes(self) -> int:
        """Of keys and values."""
        return sum(t.numel() * t.element_size() for t in (self._keys, self._values) if t is not None)


@dataclass
class Fixed:
    """Where the next token goes in a cache of fixed shapes, and what is known of all places.

    Attributes:
        place: (1,) int64
        real: (batch, max_len) bool, which places hold a real token, or will.
        positions: (max_len,) or (batch, max_len) int; None: a place says it.
    """

    place: Tensor
    real: Tensor
    positions: Tensor | None

    def seen(self) -> Tensor:
        """(batch, max_len) bool: which places the token at `place` may see."""
        return self.real & (self._places() <= self.place)

    def placed(self, pos: Tensor | None) -> tuple[Tensor, Tensor]:
        """The position of the token at `place`, `pos` or that behind the last one's, and those of all places.

        Places that hold nothing yet have the token's. (1,) or (batch, 1), and (max_len,) or (batch, max_len).
        """
        if self.positions is None:
            return self.place, self._places().minimum(self.place)
        if pos is None:
            pos = self.positions.index_select(-1, self.place - 1) + 1
        pos = pos.expand(*self.positions.shape[:-1], 1)
        self.positions.index_copy_(-1, self.place, pos)
        return pos, torch.where(self._places() <= self.place, self.positions, pos)

    def _places(self) -> Tensor:
        return torch.arange(self.real.shape[1], device=self.real.device)


class Cache:
    """The state of one batch of sequences while they are decoded.

    Made by `Stack.new_cache`. `stack(x, cache=cache)` reads it, and adds x to it.

    Attributes:
        batch, max_len: the rows, and the longest sequence there is room for.
        length: places of the stream seen so far.
        end: what length will be behind the pass that is running.
        queries: how many tokens of that pass attend; the others are memories in front of the first.
        positions: (length,) or (batch, length) int, where they stand; None: one behind the other.
        mask: (batch, length) bool, which of the places are real; None: all.
        sequence: which of the places are tokens, and what is known of those; a model's business.
        context_mask: (batch, context) bool of the context seen first; None: all.
        device: where the tokens are.
        fixed: where the next token goes, once shapes are fixed; None: behind the others. What grows with the tokens
            stays as it is then.
    """

    def __init__(self, batch: int, max_len: int, windows: Mapping[str, int] | None = None) -> None:
        for name, value in (("batch", batch), ("max_len", max_len)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, not {value!r}")
        self.batch, self.max_len = batch, max_len
        self.length = self.end = self.queries = 0
        self.positions: Tensor | None = None
        self.mask: Tensor | None = None
        self.context_mask: Tensor | None = None
        self.device: torch.device | None = None
        self.fixed: Fixed | None = None
        self.sequence = SequenceState()
        self.windows = windows or {}
        self._slots: dict[str, Slot] = {}

    def slot(self, node: str) -> Slot:
        if node not in self._slots:
            self._slots[node] = Slot(self, self.windows.get(node))
        return self._slots[node]

    def check_room(self, batch: int, new: int) -> None:
        """Before a pass over `new` more tokens."""
        if batch != self.batch:
            raise ValueError(f"the cache holds {self.batch} rows, not {batch}")
        if self.fixed is not None:
            if new != 1:
                raise ValueError(f"the cache's shapes are fixed for steps of one token, not of {new}")
            return
        if self.length + new > self.max_len:
            raise ValueError(
                f"the cache has room for {self.max_len} tokens and holds {self.length}; {new} more do not fit"
            )

    def fix_shapes(self) -> Cache:
        """From now on take one token a step, always with the same shapes; returns the cache.

        `torch.compile(model, fullgraph=True)` then compiles a step once, and with mode="reduce-overhead" it is one
        CUDA graph. Keys have their places, whatever the length, and what no token has reached yet is masked; windows
        are masks too. Steps take no masks: all further tokens are real. That there is room is for the caller to see to.

        Raises:
            ValueError: the cache holds nothing yet; the prompt goes in first.
        """
        if not self.length:
            raise ValueError("the cache is empty: its shapes are fixed behind the first step, which reads the prompt")
        if self.fixed is not None:
            return self
        for slot in self._slots.values():
            slot.fix_shapes()
        real = torch.ones(self.batch, self.max_len, dtype=torch.bool, device=self.device)
        if self.mask is not None:
            real[:, : self.length] = self.mask
        positions = None
        if self.positions is not None:
            positions = self.positions.new_zeros(*self.positions.shape[:-1], self.max_len)
            positions[..., : self.length] = self.positions
        self.fixed = Fixed(torch.tensor([self.length], device=self.device), real, positions)
        self.sequence.fix_shapes(self.fixed.place, self.max_len)
        self.length = self.end = self.max_len  # a number of tokens would bind a compiled step to it
        if real.is_cuda:  # a CUDA graph writes to tensors that stay where they are
            for t in (real, self.fixed.place, *(t for slot in self._slots.values() for t in slot.tensors())):
                compat.mark_static_address(t)
        return self

    def seen(self, mask: Tensor | None, new: int, device: torch.device) -> Tensor | None:
        """(batch, length + new) bool: the mask of the tokens so far and of the `new` ones; None: all are real."""
        return joined_masks(self.mask, self.length, mask, new, self.batch, device)

    def bytes(self) -> int:
        """Of all keys and values."""
        return sum(slot.bytes() for slot in self._slots.values())
