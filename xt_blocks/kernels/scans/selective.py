"""The selective scan of Mamba (Gu & Dao, arXiv:2312.00752).

    h[t] = exp(Δ[t] A) h[t-1] + (Δ[t] x[t]) ⊗ B[t]        y[t] = C[t] · h[t]

h (state, inner) has a decay of its own for each number, so that no matrix product does the work of several tokens.
Tokens are read in chunks that fit a processor's cache. The backward pass computes the states of each chunk again from
the one before it: memory is linear in the length, with no tensor of tokens × state × inner.

A token that is padding has Δ = 0, and leaves the state as it is.
Axes: t tokens of a chunk, b batch, n state, i inner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import compat
from ..once import SCAN, first_derivatives
from .linear import plain_linear_scan

CHUNK = 16
"""Tokens; another size gives the same result up to rounding."""

PIECE = 256
"""Tokens whose states a GPU has at a time."""


def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The scan over all tokens.

    Args:
        x, dt: (batch, seq, inner), values and steps Δ ≥ 0.
        a: (inner, state), A ≤ 0.
        b, c: (batch, seq, state), what writes and what reads the state.
        start: (batch, state, inner), before the first token.
        chunk: tokens of a chunk.

    Returns:
        y, (batch, seq, inner), and the state after the last token.
    """
    if not x.shape[1]:
        return x, start
    a = a.T
    if x.shape[1] == 1 or torch.compiler.is_compiling() or compat.transforms_active():
        return _plain(x, dt, a, b, c, start)
    if not x.is_cpu:
        return _by_piece(x, dt, a, b, c, start)
    y, after = _ByChunk.apply(chunk, x, dt, a.contiguous(), b, c, start)  # type: ignore[no-untyped-call]
    return y, after


def _plain(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """By operations that autograd, torch.func and torch.compile follow, with the states of all tokens."""
    decay, new = (dt[:, :, None] * a).exp(), b[..., None] * (dt * x)[:, :, None]  # (batch, seq, n, i)
    if x.shape[1] == 1:
        states = torch.addcmul(new, decay, start[:, None])
    else:
        states = plain_linear_scan(decay.flatten(2), new.flatten(2), start.flatten(1)).view_as(new)
    return (c[:, :, None] @ states).squeeze(2), states[:, -1]


def _by_piece(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor, piece: int = PIECE
) -> tuple[Tensor, Tensor]:
    """`_plain` of some tokens after others, which the backward pass computes again: few steps, as a GPU wants them."""
    out, h = [], start
    for parts in zip(*(torch.split(t, piece, dim=1) for t in (x, dt, b, c)), strict=True):
        own_x, own_dt, own_b, own_c = parts
        y, h = checkpoint(_plain, own_x, own_dt, a, own_b, own_c, h, use_reentrant=False)
        out.append(y)
    return torch.cat(out, dim=1), h


class _ByChunk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, chunk: int, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        inputs = x, dt, a, b, c, start
        x, dt, b, c = (t.transpose(0, 1).contiguous() for t in (x, dt, b, c))
        parts = [slice(first, first + chunk) for first in range(0, len(x), chunk)]
        y, h, starts = torch.empty_like(x), start, []
        for part in parts:
            starts.append(h)
            _, states = _states(dt[part], dt[part] * x[part], a, b[part], h)
            torch.matmul(c[part, :, None], states, out=y[part].unsqueeze(2))
            h = states[-1].clone()
        ctx.parts = parts
        ctx.save_for_backward(*inputs, torch.stack(starts))
        return y.transpose(0, 1), h

    @staticmethod
    @first_derivatives(*SCAN)
    def backward(ctx: Any, saved: Sequence[Tensor], *grads: Tensor) -> Any:
        x, dt, a, b, c, _, starts = saved
        x, dt, b, c = (t.transpose(0, 1).contiguous() for t in (x, dt, b, c))
        dy, g = grads[0].transpose(0, 1).contiguous(), grads[1]  # g: of the state after the chunk
        dx, ddt, da, db, dc = (torch.zeros_like(t) for t in (x, dt, a, b, c))
        for part, h in zip(reversed(ctx.parts), starts.flip(0), strict=True):
            u = dt[part] * x[part]
            decay, states = _states(dt[part], u, a, b[part], h)
            dstates = c[part][..., None] * dy[part][:, :, None]
            later = dstates.unbind(0)
            later[-1].add_(g)
            for t in range(len(later) - 2, -1, -1):
                later[t].addcmul_(decay[t + 1], later[t + 1])
            g = decay[0] * later[0]
            torch.matmul(states, dy[part][..., None], out=dc[part].unsqueeze(-1))
            torch.matmul(dstates, u[..., None], out=db[part].unsqueeze(-1))
            du = (b[part][:, :, None] @ dstates).squeeze(2)
            torch.mul(du, dt[part], out=dx[part])
            decay.mul_(dstates)  # from here on the gradient of Δ A, which is that of decay times decay
            decay[0].mul_(h)
            decay[1:].mul_(states[:-1])
            da += (decay * dt[part][:, :, None]).sum((0, 1))
            torch.sum(decay.mul_(a), 2, out=ddt[part])
            ddt[part].addcmul_(du, x[part])
        dx, ddt, db, dc = (t.transpose(0, 1) for t in (dx, ddt, db, dc))
        return None, dx, ddt, da, db, dc, g


def _states(dt: Tensor, u: Tensor, a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The decays and the states of a chunk's tokens, (t, b, n, i), after `h: (b, n, i)`."""
    decay, states = (dt[:, :, None] * a).exp_(), b[..., None] * u[:, :, None]
    for own, kept in zip(states.unbind(0), decay.unbind(0), strict=True):
        h = own.addcmul_(kept, h)
    return decay, states
