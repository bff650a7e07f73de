"""GELU (Hendrycks and Gimpel, arXiv:1606.08415) of any number of rows in few shapes.

On a CPU torch computes it by oneDNN, which makes a kernel for each shape and keeps it: 0.06 MB for each length of
a text, and as much again for its gradient. Here many rows are taken in a few sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import onednn

FEW = 32
"""Up to so many rows are taken as they are, which is no more shapes than that."""

_FORWARD, _BACKWARD = torch.ops.aten.gelu, torch.ops.aten.gelu_backward


def gelu(x: Tensor) -> Tensor:
    """`F.gelu` of `x: (..., features)`."""
    if torch.compiler.is_dynamo_compiling() or type(x) is not Tensor:  # no graph is to depend on sizes
        return F.gelu(x)
    rows = x.shape[:-1].numel()
    if rows <= FEW or next(row_counts(rows)) == rows or not x.is_cpu or not x.is_contiguous() or onednn.followed():
        return F.gelu(x)
    if torch.is_grad_enabled() and x.requires_grad:
        out: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
        return out
    return _run(x)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _run(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,), grad = ctx.saved_tensors, grads[0]
        if torch.is_grad_enabled() or onednn.followed():  # it may be differentiated again
            out: Tensor = _BACKWARD(grad, x)
            return out
        out = torch.empty_like(x)
        for part_of_grad, part, own in _parts(grad.contiguous(), x, out):
            _BACKWARD.grad_input(part_of_grad, part, grad_input=own)
        return out


def _run(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for part, own in _parts(x, out):
        _FORWARD.out(part, out=own)
    return out


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of contiguous tensors of one shape, as many as `row_counts` says."""
    flat = [t.view(-1, t.shape[-1]) for t in tensors]
    start = 0
    for size in row_counts(len(flat[0])):
        yield tuple(t.narrow(0, start, size) for t in flat)
        start += size


def row_counts(rows: int) -> Iterator[int]:
    """Numbers of rows that add up to so many: 32, 40, 48, 56, 64, 80, ..., and a rest of fewer than `FEW`."""
    while rows >= FEW:
        step = 1 << (rows.bit_length() - 3)
        yield rows // step * step
        rows %= step
    if rows:
        yield rows
