"""Products of rows with the matrix of their group: experts.

    grouped_linear(x, weight, ends, bias)     # row i of group g → weight[g] @ x[i] + bias[g]
    chosen_linear(x, weight, group, bias)     # the same for rows in any order, whose groups are given

The rows of a group stand one after another, so each group that has rows is one matrix product, and the matrices of the
others are not read. Sizes are known before the groups are, so a compiled graph holds each as a single operator.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import compat, ops

FEW = 64
"""Rows up to which a GPU, which would wait to learn how many rows each group has, reads each row's own matrix."""


def reads_chosen(x: Tensor, rows: int) -> bool:
    """Whether so many rows are better left unsorted, for `chosen_linear`: plain operations that anything may follow."""
    if compat.exporting() if torch.compiler.is_compiling() else compat.transforms_active():
        return True
    return x.device.type != "cpu" and rows <= FEW


def reads_by_number(x: Tensor) -> bool:
    """Whether the numbers of a token's groups may be looked at, and nothing follows the operations."""
    plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type))
    return plain and x.is_cpu and not compat.modes_active() and not compat.transforms_active()


def chosen_linear(x: Tensor, weight: Tensor, group: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x: (rows, in)`, `weight: (groups, out, in)`, `group: (rows,)`, `bias: (groups, out)` → (rows, out)."""
    x = _for_autocast(x)
    out = torch.bmm(weight[group].to(x.dtype), x[..., None])[..., 0]
    return out if bias is None else out + bias[group].to(x.dtype)


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear layers of groups of rows.

    Args:
        x: (rows, in), the rows of group 0 first, then those of group 1, ...; its type is that of the products.
        weight: (groups, out, in)
        ends: (groups,) int64, where each group's rows end. Rows after the last group give zeros.
        bias: (groups, out)

    Returns:
        (rows, out)
    """
    x = _for_autocast(x)
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling() and not compat.modes_active():
        return _run(x, weight, ends, bias)  # without the operator, whose call takes time
    out: Tensor = _LINEAR(x, weight, ends, bias)
    return out


def _for_autocast(x: Tensor) -> Tensor:
    """In the type that autocast gives a linear layer's inputs."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def _parts(ends: Tensor) -> list[tuple[int, slice]]:
    """The groups that have rows, each with its rows."""
    bounds = [0, *ends.tolist()]
    return [(g, slice(start, end)) for g, (start, end) in enumerate(pairwise(bounds)) if end > start]


def _run(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None) -> Tensor:
    parts = _parts(ends)
    whole = sum(rows.stop - rows.start for _, rows in parts) == x.shape[0]
    out = x.new_empty(x.shape[0], weight.shape[1]) if whole else x.new_zeros(x.shape[0], weight.shape[1])
    for group, rows in parts:
        own = weight[group].to(x.dtype)
        if bias is None:
            torch.mm(x[rows], own.T, out=out[rows])
        else:
            torch.addmm(bias[group].to(x.dtype), x[rows], own.T, out=out[rows])
    return out


def _run_outer(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    """`left: (rows, out)`, `right: (rows, in)` → (groups, out, in), of each group left.T @ right."""
    parts, shape = _parts(ends), (len(ends), left.shape[1], right.shape[1])
    out = left.new_empty(shape) if len(parts) == len(ends) else left.new_zeros(shape)
    for group, rows in parts:
        torch.mm(left[rows].T, right[rows], out=out[group])
    return out


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, ends, bias = ctx.saved_tensors
    for_x, for_weight, _, for_bias = ctx.needs_input_grad
    ones = grad.new_ones(grad.shape[0], 1) if for_bias else None
    return (
        _LINEAR(grad, weight.transpose(1, 2), ends, None) if for_x else None,
        _OUTER(grad, x, ends).to(weight.dtype) if for_weight else None,
        None,
        None if ones is None else _OUTER(grad, ones, ends)[..., 0].to(bias.dtype),
    )


def _outer_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    left, right, ends = ctx.saved_tensors
    return _LINEAR(right, grad, ends, None), _LINEAR(left, grad.transpose(1, 2), ends, None), None


_LINEAR = ops.define(
    "grouped_linear(Tensor x, Tensor weight, Tensor ends, Tensor? bias) -> Tensor",
    _run,
    lambda x, weight, ends, bias: x.new_empty(x.shape[0], weight.shape[1]),
    _backward,
    _save,
)
_OUTER = ops.define(
    "grouped_outer(Tensor left, Tensor right, Tensor ends) -> Tensor",
    _run_outer,
    lambda left, right, ends: left.new_empty(ends.shape[0], left.shape[1], right.shape[1]),
    _outer_backward,
    _save,
)


@register_flop_formula([_LINEAR.overloadpacket])
def _linear_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * x[0] * weight[1] * weight[2]


@register_flop_formula([_OUTER.overloadpacket])
def _outer_flops(left: tuple[int, ...], right: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * left[0] * left[1] * right[1]
