"""A layer with state over one piece of a sequence after another, each computed again in the backward pass.

A layer that goes on from a state gives the same in pieces as at once. In pieces of few tokens, all that is between its
linear layers stays in a core's cache, and only its input, the states between pieces, and what a piece itself puts aside
are kept for the backward pass (as with checkpoints, arXiv:1604.06174). Memory is linear in the length.

Written for a CPU with few threads. It has first derivatives only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import compat
from ..once import SCAN, first_derivatives

Run = Callable[[Tensor, slice, Sequence[Tensor], Sequence[Tensor], list[Tensor]], tuple[Tensor, Sequence[Tensor]]]
"""(x of a piece, its place, states before it, weights, known) → what the layer gives for it, and the states after it.

`known` is empty the first time; what is put there is there again when the piece is computed again.
"""


def pays(x: Tensor, size: int) -> bool:
    """Whether `x: (batch, seq, ...)` is better read in pieces of `size` tokens."""
    plain = type(x) is Tensor and not torch.compiler.is_compiling() and not compat.transforms_active()
    return plain and x.is_cpu and x.shape[1] > size


def in_pieces(
    run: Run, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], size: int
) -> tuple[Tensor, Sequence[Tensor]]:
    """`run` over all of `x: (batch, seq, features)`, in pieces of `size` tokens.

    Args:
        run: depends on nothing that has a gradient but its arguments, and gives (batch, tokens, ...) and new states.
    """
    y, *after = _Pieces.apply(run, size, len(states), x, *states, *weights)  # type: ignore[no-untyped-call]
    return y, after


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, size: int, count: int, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        states, weights = tensors[:count], tensors[count:]
        kept: list[Tensor] = []
        pieces: list[tuple[slice, slice]] = []  # the place of each, and of what is kept of it
        y = x.new_empty(0)
        for start in range(0, x.shape[1], size):
            at, begin = slice(start, start + size), len(kept)
            known: list[Tensor] = []
            piece, after = run(x[:, at], at, states, weights, known)
            kept += (*states, *known)
            pieces.append((at, slice(begin, len(kept))))
            if start == 0:
                y = piece.new_empty(piece.shape[0], x.shape[1], *piece.shape[2:])
            y[:, at], states = piece, tuple(after)
        ctx.save_for_backward(x, *weights, *kept)
        ctx.run, ctx.pieces, ctx.count, ctx.weights = run, pieces, count, len(weights)
        ctx.autocast = {"enabled": torch.is_autocast_enabled("cpu"), "dtype": torch.get_autocast_dtype("cpu")}
        return (y, *states)

    @staticmethod
    @first_derivatives(*SCAN)
    def backward(ctx: Any, saved: Sequence[Tensor], of_y: Tensor, *of_states: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = saved
        weights, kept = tensors[: ctx.weights], tensors[ctx.weights :]
        of_x, of_weights = torch.empty_like(x), [torch.zeros_like(weight) for weight in weights]
        for at, own in reversed(ctx.pieces):
            before, known = kept[own][: ctx.count], [t.detach() for t in kept[own][ctx.count :]]
            inputs = [t.detach().requires_grad_() for t in (x[:, at], *before, *weights)]
            with torch.enable_grad(), torch.autocast("cpu", **ctx.autocast):
                y, after = ctx.run(inputs[0], at, inputs[1 : 1 + ctx.count], inputs[1 + ctx.count :], known)
            found = torch.autograd.grad((y, *after), inputs, (of_y[:, at], *of_states))
            of_x[:, at], of_states = found[0], found[1 : 1 + ctx.count]
            for total, of_weight in zip(of_weights, found[1 + ctx.count :], strict=True):
                total += of_weight
        return (None, None, None, of_x, *of_states, *of_weights)
