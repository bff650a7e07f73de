"""The state of one node while its sequences are decoded, or between segments of a text.

Owns how pieces are kept: by place, so that a failed step can be run again with the same result. A kind declares its
pieces (`blockdsl.registry.state`); a `Progress` says how far decoding is. The contract with blocks is
`xt_blocks.blocks.state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from blockdsl.errors import UserError, did_you_mean
from blockdsl.graph.state import Kept, capacity
from blockdsl.registry.options import whole
from blockdsl.registry.state import State

from .fixed import FixedShapes, move_to_front

if TYPE_CHECKING:
    from ..blocks.real_tokens import RealTokens

P = TypeVar("P", bound="TokenPieces")

Change = Callable[[Tensor, int], Tensor]
"""(tensor, its batch axis) → another tensor; see `Cache.changed`."""


class Progress:
    """How far the decoding of one batch of sequences is.

    Attributes:
        batch, max_len: the rows, and the longest sequence there is capacity for.
        length: places of the stream seen so far, without those forgotten.
        first: the position of place 0: how many places before it were forgotten.
        end: what length will be after the pass that is running.
        queries: how many tokens of that pass attend; the others are memories before them.
        like: an empty tensor with the stream's dtype and device.
        fixed: where the next token goes, once shapes are fixed; None: after the others.
    """

    def __init__(self, batch: int, max_len: int) -> None:
        self.batch, self.max_len = whole("batch", batch), whole("max_len", max_len)
        self.length = self.end = self.queries = self.first = 0
        self.like = torch.empty(0, device="cpu", dtype=torch.float32)
        self.fixed: FixedShapes | None = None


class RowState:
    """A piece of constant size, kept twice: as it was before the current step, and as it is after it.

    Each half has the place that it belongs to. With fixed shapes the parity of the place selects the half.
    """

    def __init__(self, progress: Progress, piece: State) -> None:
        self._progress, self.piece = progress, piece
        self._halves: Tensor | None = None  # (2, batch, *shape)
        self._places = [0, -1]

    def read(self) -> Tensor:
        """(batch, *shape)"""
        at = self._progress
        if self._halves is None:
            return zeros(self.piece, at.batch, at.like)
        if at.fixed is not None:
            return self._halves.index_select(0, at.fixed.place % 2)[0]
        return self._halves[self._half()]

    def write(self, new: Tensor) -> None:
        """new: (batch, *shape)"""
        at = self._progress
        halves = self._allocated(new)
        if new.shape != halves.shape[1:]:
            raise UserError(f"a state must be {tuple(halves.shape[1:])}, not {tuple(new.shape)}")
        if at.fixed is not None:
            halves.index_copy_(0, (at.fixed.place + 1) % 2, new[None].to(halves.dtype))
            return
        half = 1 - self._half()
        if _in_graph(halves):
            halves = self._halves = halves.clone()
        halves[half], self._places[half] = new, at.end

    def before(self, x: Tensor) -> Tensor:
        """A piece of the last tokens, (batch, tail, dim), in front of `x: (batch, seq, dim)`; then of its last ones."""
        joined = torch.cat((self.read(), x), dim=1)
        self.write(joined[:, x.shape[1] :])
        return joined

    def after(self) -> Tensor:
        """(batch, *shape), as it was written in the current step; a copy without gradient."""
        assert self._halves is not None
        at = self._progress
        half = 1 - self._half() if at.fixed is None else (at.fixed.place + 1) % 2
        return self._halves[half].detach().reshape(self._halves.shape[1:]).clone()

    def begin_with(self, value: Tensor | None) -> None:
        """What the first call reads; None: zeros."""
        self._halves, self._places = None, [0, -1]
        if value is not None:
            self._allocated(value)[0] = value

    def fix_shapes(self) -> None:
        """See `Cache.fix_shapes`."""
        length = self._progress.length
        if self._halves is not None and self._half() != length % 2:
            self._halves = self._halves.flip(0)

    def forget(self, places: int) -> None:
        """See `Cache.forget`."""
        self._places = [place - places for place in self._places]

    def changed(self, change: Change, progress: Progress) -> RowState:
        new = copy(self)
        new._progress, new._places = progress, [*self._places]
        new._halves = None if self._halves is None else change(self._halves, 1)
        return new

    def tensors(self) -> list[Tensor]:
        return [] if self._halves is None else [self._halves]

    def _half(self) -> int:
        if self._progress.length not in self._places:
            raise UserError("a state is read or written that the previous call did not write")
        return self._places.index(self._progress.length)

    def _allocated(self, new: Tensor) -> Tensor:
        if self._halves is None:
            self._halves = zeros(self.piece, self._progress.batch, new).repeat(2, 1, *(1 for _ in self.piece.shape))
        return self._halves


class ContextState:
    """A piece made once, from the context of the first call."""

    def __init__(self) -> None:
        self._value: Tensor | None = None

    def read(self) -> Tensor:
        if self._value is None:
            raise UserError("a state of the context is read before it was written")
        return self._value

    def write(self, new: Tensor) -> None:
        self._value = new

    def changed(self, change: Change) -> ContextState:
        new = ContextState()
        new._value = None if self._value is None else change(self._value, 0)
        return new

    def tensors(self) -> list[Tensor]:
        return [] if self._value is None else [self._value]


class TokenPieces:
    """A node's pieces that grow by token, allocated once, for the longest sequence or for a window.

    Args:
        pieces: by name.
        window: how many tokens before a step's own are kept; None: all.
    """

    def __init__(self, progress: Progress, pieces: Mapping[str, State], window: int | None) -> None:
        self._progress, self._declared, self.window = progress, pieces, window
        self.buffers: dict[str, Tensor] = {}
        self._begin = 0  # the place of the first token that is kept
        self._replaced: tuple[int, int, dict[str, Tensor]] | None = None

    def append(self, **new: Tensor) -> tuple[Tensor, ...]:
        """Write the new tokens' `(batch, ..., new, features)`; returns those of all tokens so far, or of the window."""
        at = self._progress
        written = bool(self.buffers)
        buffers = self.buffers or self._allocate(new)
        if at.fixed is not None:
            return tuple(
                _final(buffers[name].index_copy_(-2, at.fixed.place, t.to(buffers[name].dtype)))
                for name, t in new.items()
            )
        start, end, first = at.length, at.end, 0
        if self.window is not None:
            self._undo_failed(start)
            written, buffers, first = bool(self.buffers), self.buffers, max(0, end - at.queries - self.window)
            size = capacity(self.window, at.max_len)
            if end - self._begin > size:
                if end - first > size or first > start:  # memories may be outside the window at once
                    return self._replace(new, first)
                self._move_to(first)
        begin, out = self._begin, []
        for name, t in new.items():
            buffer = buffers[name]
            if written and _in_graph(buffer):
                buffer = buffers[name] = buffer.clone()
            buffer.narrow(-2, start - begin, end - start).copy_(t)
            out.append(buffer.narrow(-2, first - begin, end - first))
        return tuple(out)

    def grow(self) -> None:
        """See `Cache.grow`."""
        more = capacity(self.window, self._progress.max_len)
        self.buffers = {name: F.pad(t, (0, 0, 0, more - t.shape[-2])) for name, t in self.buffers.items()}

    def fix_shapes(self) -> None:
        """See `Cache.fix_shapes`. A window then has all places."""
        window, self.window, self._replaced = self.window, None, None
        if self.buffers and window is not None:
            length, begin = self._progress.length, max(0, self._begin)
            shown = {name: t.narrow(-2, begin - self._begin, length - begin) for name, t in self.buffers.items()}
            self._allocate(shown)
            for name, t in shown.items():
                self.buffers[name].narrow(-2, begin, length - begin).copy_(t)
            self._begin = 0

    def forget(self, places: int) -> None:
        """See `Cache.forget`."""
        if self._progress.fixed is None:
            self._begin -= places
            if self._replaced is not None:
                start, begin, buffers = self._replaced
                self._replaced = start - places, begin - places, buffers
            return
        for t in self.buffers.values():
            move_to_front(t, places, -2)

    def changed(self: P, change: Change, progress: Progress) -> P:
        new = copy(self)
        new._progress, new.buffers = progress, {name: change(t, 0) for name, t in self.buffers.items()}
        if self._replaced is not None:
            new._replaced = (*self._replaced[:2], {name: change(t, 0) for name, t in self._replaced[2].items()})
        return new

    def _allocate(self, new: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Once, for the longest sequence, in the type that projections give (autocast's) unless the kind fixes it."""
        tokens = capacity(self.window, self._progress.max_len)
        buffers = {}
        for name, t in new.items():
            piece = self._declared.get(name) or unknown(name, self._declared)
            if (shape := (*t.shape[1:-2], *t.shape[-1:])) != piece.shape:
                raise UserError(f"the state '{name}' of a token must be {piece.shape}, not {shape}")
            buffers[name] = t.new_zeros(*t.shape[:-2], tokens, t.shape[-1], dtype=dtype_of(piece, t))
        self.buffers = buffers
        return buffers

    def _move_to(self, first: int) -> None:
        """Move the tokens from place `first` on to the front."""
        past, count = first - self._begin, self._progress.length - first
        for name, t in self.buffers.items():
            kept = t.narrow(-2, past, count).clone()
            self.buffers[name] = t = t.clone() if _in_graph(t) else t
            t.narrow(-2, 0, count).copy_(kept)
        self._begin = first

    def _replace(self, new: Mapping[str, Tensor], first: int) -> tuple[Tensor, ...]:
        """A step of more tokens than the capacity: return them as they are, and keep the last ones in new buffers.

        The old buffers stay in case the step fails and is run again.
        """
        assert self.window is not None
        start, end, old = self._progress.length, self._progress.end, self.buffers
        self._replaced = (start, self._begin, old)
        shown = {}
        for name, t in new.items():
            past = old[name][..., first - self._begin : start - self._begin, :]
            joined = torch.cat((past, t.to(past.dtype)), dim=-2)
            shown[name] = joined[..., max(0, joined.shape[-2] - (end - first)) :, :]
        count = min(self.window, end - first)
        buffers, self._begin = self._allocate(shown), end - count
        for name, t in shown.items():
            buffers[name].narrow(-2, 0, count).copy_(t.narrow(-2, end - first - count, count))
        return tuple(shown.values())

    def _undo_failed(self, start: int) -> None:
        if self._replaced is not None:
            if self._replaced[0] == start:
                _, self._begin, self.buffers = self._replaced
            self._replaced = None


class NodeState(TokenPieces):
    """All pieces of one node, as its layer gets them; see `blocks.state.LayerState`."""

    def __init__(self, progress: Progress, kept: Kept) -> None:
        grows = {name: piece for name, piece in kept.pieces.items() if piece.per == "token"}
        super().__init__(progress, grows, kept.window)
        self.pieces: dict[str, RowState | ContextState] = {
            name: RowState(progress, piece) if piece.per == "row" else ContextState()
            for name, piece in kept.pieces.items()
            if name not in grows
        }

    def read(self, name: str) -> Tensor:
        return (self.pieces.get(name) or unknown(name, self.pieces)).read()

    def write(self, name: str, new: Tensor) -> None:
        (self.pieces.get(name) or unknown(name, self.pieces)).write(new)

    def tail(self, name: str, x: Tensor, real: RealTokens) -> Tensor:
        return _tail(self, name, x, real)

    def after(self) -> dict[str, Tensor]:
        """The pieces of constant size that were written in the current step."""
        return {name: piece.after() for name, piece in self.rows().items()}

    def rows(self) -> dict[str, RowState]:
        """The pieces of constant size."""
        return {name: piece for name, piece in self.pieces.items() if isinstance(piece, RowState)}

    def fix_shapes(self) -> None:
        """See `Cache.fix_shapes`."""
        super().fix_shapes()
        for piece in self.rows().values():
            piece.fix_shapes()

    def forget(self, places: int) -> None:
        """See `Cache.forget`."""
        super().forget(places)
        for piece in self.rows().values():
            piece.forget(places)

    def changed(self, change: Change, progress: Progress) -> NodeState:
        new = super().changed(change, progress)
        new.pieces = {
            name: piece.changed(change, progress) if isinstance(piece, RowState) else piece.changed(change)
            for name, piece in self.pieces.items()
        }
        return new

    def tensors(self) -> list[Tensor]:
        return [*self.buffers.values(), *(t for piece in self.pieces.values() for t in piece.tensors())]


class SegmentState:
    """The state of a layer with pieces per row when nothing is decoded: it goes from one segment to the next.

    Args:
        kept: of the node.
        before: its pieces at the end of the previous segment; empty: there was none.
        like: a tensor with the stream's batch, dtype and device.
    """

    window: int | None = None

    def __init__(self, kept: Kept, before: Mapping[str, Tensor], like: Tensor) -> None:
        self._kept, self._before, self._like = kept, before, like
        self._after: dict[str, Tensor] = {}

    def read(self, name: str) -> Tensor:
        piece = self._kept.pieces.get(name) or unknown(name, self._kept.pieces)
        if name not in self._before:
            return zeros(piece, self._like.shape[0], self._like)
        return self._before[name].to(dtype_of(piece, self._like))

    def write(self, name: str, new: Tensor) -> None:
        piece = self._kept.pieces.get(name) or unknown(name, self._kept.pieces)
        self._after[name] = new.detach().to(dtype_of(piece, new))

    def tail(self, name: str, x: Tensor, real: RealTokens) -> Tensor:
        return _tail(self, name, x, real)

    def append(self, **new: Tensor) -> tuple[Tensor, ...]:
        """Earlier tokens come by the input `memory`, before x."""
        return tuple(new.values())

    def after(self) -> dict[str, Tensor]:
        """What was written, without gradient."""
        return self._after


def _tail(state: NodeState | SegmentState, name: str, x: Tensor, real: RealTokens) -> Tensor:
    before = state.read(name).to(x.dtype)
    state.write(name, real.last(before, x))
    return before


def _in_graph(t: Tensor) -> bool:
    """Whether the backward pass of an earlier step may need a state as it is now, so that a copy has to be written."""
    return torch.is_grad_enabled() or t.requires_grad


class _Final(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.view_as(t)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("a cache with fixed shapes is written in place: for backward(), step without fix_shapes()")


def _final(t: Tensor) -> Tensor:
    """`t`, whose gradient is refused in words."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and t.requires_grad):
        return t
    out: Tensor = _Final.apply(t)  # type: ignore[no-untyped-call]
    return out


def changed(t: Tensor | None, change: Change) -> Tensor | None:
    """`change` of a tensor with a batch axis; one of a single axis, shared by all rows, is cloned."""
    return t if t is None else change(t, 0) if t.ndim == 2 else t.clone()


def zeros(piece: State, batch: int, like: Tensor) -> Tensor:
    """(batch, *shape) of a piece, in its dtype or that of `like`."""
    return like.new_zeros(batch, *piece.shape, dtype=dtype_of(piece, like))


def dtype_of(piece: State, like: Tensor) -> torch.dtype:
    """Of a piece in a model whose stream is `like`; a state of float32 is as exact as the model at least."""
    if piece.dtype is None or (piece.dtype == "float32" and like.dtype == torch.float64):
        return like.dtype
    dtype: torch.dtype = getattr(torch, piece.dtype)
    return dtype


def unknown(name: str, pieces: Mapping[str, object]) -> NoReturn:
    hint = did_you_mean(name, pieces)
    declared = ", ".join(pieces) or "none"
    raise UserError(f"no state '{name}' is declared; declared: {declared}" + (f"; {hint}" if hint else ""))
