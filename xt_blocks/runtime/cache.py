"""What decoding keeps between steps, keyed by the graph's nodes.

Every node has its own state, so a block that is dropped, tied to another, or in a parallel branch cannot take
another's. The token shift around a layer has a state of its own beside the layer's.

A step's shapes grow with the tokens. `Cache.fix_shapes` makes them those of the longest sequence instead: the position
of a token is then a tensor, and torch.compile compiles a step only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from blockdsl.graph.state import Kept, widest_window

from ..kernels import compat
from ..kernels.masks import joined_masks
from ..kernels.tensors import whole_numbers
from .fixed import FixedShapes
from .sequence import SequenceState
from .state import Change, NodeState, Progress, RowState, changed


class Cache(Progress):
    """The state of one batch of sequences while they are decoded.

    Made by `Stack.new_cache`. `stack(x, cache=cache)` reads it and adds x to it. A copy (`copy.deepcopy` too) is
    independent.

    Args:
        batch, max_len: rows, and the capacity in tokens.
        kept: node → what is kept for it.

    Attributes:
        length: places of the stream seen so far.
        positions: (length,) or (batch, length) int, their positions; None: consecutive.
        mask: (batch, length) bool, which of the places are real; None: all.
        sequence: which of the places are tokens, and what is known of them; for the model around the stack.
        context_mask: (batch, context) bool of the context seen first; None: all.
        condition: (batch, dim_condition) or (batch, 1, dim_condition), each row's, for steps that are given none; None:
            no pass was given one.
        fixed: the place of the next token, once shapes are fixed; None: after the others. The attributes above that
            grow with the tokens are unused then.
        window: how many places before a step's own any block attends to; None: all.
        nodes: node → its state, where its kind keeps any.
        shifts: node → the tail of its token shift, where it has one.
        keeps: whether a pass leaves something in it, so that no part of the pass may run again.
    """

    keeps = True

    def __init__(self, batch: int, max_len: int, kept: Mapping[str, Kept]) -> None:
        super().__init__(batch, max_len)
        self.positions: Tensor | None = None
        self.mask: Tensor | None = None
        self.context_mask: Tensor | None = None
        self.condition: Tensor | None = None
        self.sequence = SequenceState()
        self.window = widest_window(kept.values())
        self.nodes = {node: NodeState(self, own) for node, own in kept.items() if own.pieces}
        self.shifts = {node: RowState(self, own.shift) for node, own in kept.items() if own.shift is not None}

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.like.device

    def check_capacity(self, batch: int, new: int) -> None:
        """Raise ValueError unless `new` more tokens of `batch` rows fit."""
        if batch != self.batch:
            raise ValueError(f"the cache holds {self.batch} rows, not {batch}")
        if self.fixed is not None:
            if new != 1:
                raise ValueError(f"the cache's shapes are fixed for steps of one token, not of {new}")
            return
        if self.length + new > self.max_len:
            raise ValueError(f"the cache is for {self.max_len} tokens and holds {self.length}; {new} more do not fit")

    def begin(self, x: Tensor, past: int, carried: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Start a pass over `x: (batch, seq, dim)`, after `past` places.

        Args:
            carried: node → pieces of earlier segments, from which a first pass continues.
        """
        if not self.length:
            self.like = x.new_empty(0)
            for node, state in self.nodes.items():
                for name, piece in state.rows().items():
                    piece.begin_with(carried.get(node, {}).get(name))
        self.end, self.queries = past + x.shape[1], x.shape[1]

    def fix_shapes(self) -> Cache:
        """From now on take one token a step, always with the same shapes; returns the cache.

        `torch.compile(model, fullgraph=True)` then compiles a step once, and with mode="reduce-overhead" it is one
        CUDA graph. Keys stay in their places whatever the length, and places without a token are masked; windows are
        masks too. Steps take no masks: all further tokens are real. The caller has to stay within the capacity.

        Raises:
            ValueError: the cache is still empty; the prompt goes first.
        """
        if not self.length:
            raise ValueError("the cache is empty: its shapes are fixed after the first step, which reads the prompt")
        if self.fixed is not None:
            return self
        for state in self._states():
            state.fix_shapes()
        real = torch.ones(self.batch, self.max_len, dtype=torch.bool, device=self.device)
        if self.mask is not None:
            real[:, : self.length] = self.mask
        positions = None
        if self.positions is not None:
            positions = self.positions.new_zeros(*self.positions.shape[:-1], self.max_len)
            positions[..., : self.length] = self.positions
        place, first = (torch.tensor([n], device=self.device, dtype=torch.int64) for n in (self.length, self.first))
        self.fixed = FixedShapes(place, real, positions, first)
        self.sequence.fix_shapes(self.fixed.place, self.max_len)
        self.length = self.end = self.max_len  # as an int it would specialise a compiled step
        if real.is_cuda:  # a CUDA graph writes to tensors at fixed addresses
            for t in (real, place, first, positions, self.condition, *self.tensors()):
                if t is not None:
                    compat.mark_static_address(t)
        return self

    def forget(self, places: int) -> None:
        """Forget the first places of the stream, which no block attends to any more; there is capacity for as many.

        Args:
            places: how many, an even number, at most those that are farther from the next token than `window`.

        Raises:
            ValueError: a block still attends to them, or a prefix of the tokens is among them.
        """
        held = self.length if self.fixed is None else int(self.fixed.place)
        if self.window is None or not 0 <= places <= held - self.window:
            most = 0 if self.window is None else max(0, held - self.window)
            raise ValueError(f"{places} places cannot be forgotten: {most} of {held} are out of every block's reach")
        if places % 2:
            raise ValueError(f"places are forgotten by twos, not {places}: a state is kept by the parity of its place")
        if self.sequence.prefix:
            raise ValueError("places cannot be forgotten: memory tokens or prepended embeddings are among them")
        if not places:
            return
        for state in self._states():
            state.forget(places)
        self.first += places
        self.sequence.forget(places)
        if self.fixed is not None:
            self.fixed.forget(places)
            return
        self.length -= places
        self.mask, self.positions = (None if t is None else t[..., places:] for t in (self.mask, self.positions))

    def advance(self, seen: Tensor | None, context_mask: Tensor | None, positions: Tensor | None) -> None:
        """Finish the pass.

        Args:
            seen: (batch, end) bool, which places are real; None: all.
            context_mask: (batch, context) bool; None: all.
            positions: (end,) or (batch, end) int; None: consecutive.
        """
        if self.fixed is not None:
            self.fixed.place += 1
        else:
            self.length, self.mask, self.context_mask, self.positions = self.end, seen, context_mask, positions

    def seen(self, mask: Tensor | None, new: int, device: torch.device) -> Tensor | None:
        """(batch, length + new) bool: the mask of the tokens so far and of the `new` ones; None: all are real."""
        return joined_masks(self.mask, self.length, mask, new, self.batch, device)

    def tensors(self) -> list[Tensor]:
        """All state of nodes."""
        return [t for state in self._states() for t in state.tensors()]

    def bytes(self) -> int:
        """Bytes of all state of nodes; `BlockGraph.kv_cache_bytes` computes it beforehand."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def _states(self) -> list[NodeState | RowState]:
        return [*self.nodes.values(), *self.shifts.values()]

    # Copies ------------------------------------------------------------------------------------------------------

    def copy(self) -> Cache:
        """An independent copy."""
        return self.changed(lambda t, axis: t.clone())

    def grow(self, max_len: int) -> None:
        """Make the capacity `max_len` tokens, at least as many as before; shapes must not be fixed yet."""
        if self.fixed is not None or max_len < self.max_len:
            raise ValueError(
                f"the cache is for {self.max_len} tokens, and can only become larger before its shapes are fixed"
            )
        self.max_len = max_len
        for state in self.nodes.values():
            state.grow()

    def select(self, rows: Tensor) -> Cache:
        """A copy with these rows of the batch, `rows: (n,) int`, repeats allowed: for a beam search."""
        rows = whole_numbers("rows", rows)
        out = self.changed(lambda t, axis: t.index_select(axis, rows))
        out.batch = rows.shape[0]
        return out

    def reorder(self, rows: Tensor) -> Cache:
        """What `select` gives; with fixed shapes this cache itself, since a compiled step reads the same tensors."""
        chosen, fixed = self.select(rows), self.fixed
        if fixed is None or chosen.fixed is None:
            return chosen
        for own, new in zip(self.tensors(), chosen.tensors(), strict=True):
            own.copy_(new)
        fixed.real.copy_(chosen.fixed.real)
        further = ((fixed.positions, chosen.fixed.positions), (self.condition, chosen.condition))
        for one, other in further:
            if one is not None and other is not None:
                one.copy_(other)
        self.context_mask, self.sequence = chosen.context_mask, replace(chosen.sequence, place=fixed.place)
        return self

    def changed(self, change: Change) -> Cache:
        """A copy whose tensors are `change(tensor, batch axis)` of its own; those without a batch axis are cloned."""
        out, rest = copy(self), (self.mask, self.context_mask, self.positions, self.condition)
        out.mask, out.context_mask, out.positions, out.condition = (changed(t, change) for t in rest)
        out.sequence = self.sequence.changed(change)
        if (fixed := self.fixed) is not None:
            place, positions = fixed.place.clone(), changed(fixed.positions, change)
            out.fixed = FixedShapes(place, change(fixed.real, 0), positions, fixed.first.clone())
            out.sequence.place = place
        out.nodes = {node: state.changed(change, out) for node, state in self.nodes.items()}
        out.shifts = {node: state.changed(change, out) for node, state in self.shifts.items()}
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        return self.copy()
