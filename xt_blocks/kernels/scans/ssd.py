"""The scan of Mamba-2, structured state space duality (Dao & Gu, arXiv:2405.21060).

    S[t] = exp(a[t])·S[t-1] + x[t] ⊗ B[t]        y[t] = S[t]·C[t]

S (dim_head, state) by head, a[t] ≤ 0 a number by head, B and C shared by the heads of a group. Within a chunk of tokens
it is a masked product, (L ∘ C Bᵀ) x with L[t, s] = exp(a[s+1] + ... + a[t]); between chunks the state goes on. Time and
memory are linear in the length, and the chunk's size changes nothing but rounding.

Owns the arithmetic, of plain tensors. A token that is padding has x = 0 and a = 0, and leaves the state as it is.
`a` and the state are float32, or float64 where x is; products are of x's type, on a CPU of the state's.
Axes: b batch, c chunks, q tokens of a chunk, g groups, h heads, p features of a head, n state.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import compat


def ssd(
    x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """The scan over all tokens.

    Args:
        x: (batch, seq, heads, dim_head), what enters the state, Δ·x of the paper.
        a: (batch, seq, heads), the logarithm of the state's decay.
        b, c: (batch, seq, groups, state)
        state: (batch, heads, dim_head, state), before the first token; None: zeros.
        chunk: tokens of a chunk.

    Returns:
        y, (batch, seq, heads, dim_head), and the state after the last token.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    state = x.new_zeros(x.shape[0], *x.shape[2:], b.shape[-1], dtype=wide) if state is None else state
    a = a.to(wide)
    if not x.shape[1]:
        return x, state
    if x.shape[1] == 1:
        return _step(x, a, b, c, state)
    if x.is_cpu and not torch.compiler.is_compiling() and not compat.transforms_active() and type(x) is Tensor:
        with torch.autocast("cpu", enabled=False):
            tensors = (t.to(wide).contiguous() for t in (x, a, b, c, state))
            y, after = _ByChunk.apply(chunk, *tensors)  # type: ignore[no-untyped-call]
        return y.to(x.dtype), after
    return plain_ssd(x, a, b, c, state, chunk)


def _step(x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """A single token: the recurrence itself."""
    share = x.shape[2] // b.shape[2]
    b, c = (t[:, 0].to(state.dtype).repeat_interleave(share, dim=1) for t in (b, c))  # (b, h, n)
    new = x[:, 0, :, :, None].to(state.dtype) * b[:, :, None]
    after = torch.addcmul(new, state, a[:, 0, :, None, None].exp())
    return (after * c[:, :, None]).sum(-1)[:, None].to(x.dtype), after


def plain_ssd(x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """`ssd` by operations that autograd, torch.func and torch.compile follow: all chunks at once, a loop for states."""
    batch, seq, heads, width = x.shape
    groups, share, size = b.shape[2], heads // b.shape[2], min(chunk, seq)
    x, b, c = (torch.unflatten(F.pad(t, (0, 0, 0, 0, 0, -seq % size)), 1, (-1, size)) for t in (x, b, c))
    a = torch.unflatten(F.pad(a, (0, 0, 0, -seq % size)), 1, (-1, size)).cumsum(2)  # (b, c, q, h)
    b, c, heads_x = b.transpose(2, 3), c.transpose(2, 3), x.transpose(2, 3)  # (b, c, g, q, n), (b, c, h, q, p)
    scores = (c @ b.mT)[:, :, :, None] * torch.unflatten(_decays(a), 2, (groups, share))
    within = scores.flatten(2, 3).to(x.dtype) @ heads_x
    entering = _grouped(x * (a[:, :, -1:] - a).exp().to(x.dtype)[..., None], groups)  # (b, c, g, q, s·p)
    added = (entering.mT @ b).view(batch, -1, heads, width, b.shape[-1])
    states = []
    for new, decay in zip(added.unbind(1), a[:, :, -1].exp().unbind(1), strict=True):
        states.append(state)
        state = torch.addcmul(new.to(state.dtype), state, decay[..., None, None])
    before = torch.stack(states, dim=1).view(batch, -1, groups, share * width, b.shape[-1]).to(x.dtype)
    carried = (c @ before.mT).transpose(2, 3).reshape(x.shape) * a.exp().to(x.dtype)[..., None]
    return (within.transpose(2, 3) + carried).flatten(1, 2)[:, :seq], state


class _ByChunk(torch.autograd.Function):
    """The same chunk after chunk, so that what is between two products stays in a core's cache.

    The backward pass computes again what is within a chunk. With the sums A = cumsum(a) of a chunk, whose end is E, the
    gradient of A[t] is y[t]·∂y[t] - x[t]·∂x[t], as y[t] has the factor exp(A[t]) and x[t] exp(-A[t]) wherever they are
    multiplied; that of A[E] has S·∂S too.
    """

    @staticmethod
    def forward(
        ctx: Any, chunk: int, x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, states = torch.empty_like(x), [state]
        for at in _chunks(x, chunk):
            part = _Chunk(x[:, at], a[:, at], b[:, at], c[:, at])
            y[:, at] = part.outputs(state)
            state = part.after(state)
            states.append(state)
        ctx.save_for_backward(x, a, b, c, y, *states)
        ctx.chunk = chunk
        return y, state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_y: Tensor, of_state: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, c, y, *states = ctx.saved_tensors
        of_y = of_y.contiguous()
        of_x, of_a, of_b, of_c = (torch.empty_like(t) for t in (x, a, b, c))
        for i, at in reversed([*enumerate(_chunks(x, ctx.chunk))]):
            part = _Chunk(x[:, at], a[:, at], b[:, at], c[:, at])
            of_sums_end = (of_state * states[i + 1]).sum((-1, -2))
            of_x[:, at], of_b[:, at], of_c[:, at], of_state = part.gradients(of_y[:, at], of_state, states[i])
            of_sums = (of_y[:, at] * y[:, at]).sum(-1) - (of_x[:, at] * x[:, at]).sum(-1)
            of_sums[:, -1] += of_sums_end
            of_a[:, at] = of_sums.flip(1).cumsum(1).flip(1)
        return None, of_x, of_a, of_b, of_c, of_state


def _chunks(x: Tensor, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, x.shape[1], chunk)]


class _Chunk:
    """The tokens of one chunk.

    Args:
        x: (b, q, h, p)
        a: (b, q, h)
        b, c: (b, q, g, n)
    """

    def __init__(self, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
        self.groups = b.shape[2]
        self.x, self.a = x, a.cumsum(1)
        self.b, self.c = b.transpose(1, 2), c.transpose(1, 2)  # (b, g, q, n)
        self.decays = torch.unflatten(_decays(self.a), 1, (self.groups, -1))  # (b, g, s, q, q)
        self.scores = (self.c @ self.b.mT)[:, :, None] * self.decays
        self.since = self.a.exp()[..., None]  # (b, q, h, 1): of the state before the chunk, at each token
        self.until = (self.a[:, -1:] - self.a).exp()[..., None]  # of each token, at the end
        self.whole = self.a[:, -1].exp()[..., None, None]  # (b, h, 1, 1)

    def outputs(self, state: Tensor) -> Tensor:
        """(b, q, h, p), of `state: (b, h, p, n)` before the chunk."""
        within = (self.scores.flatten(1, 2) @ self.x.transpose(1, 2)).transpose(1, 2)
        carried = self.c @ _by_group(state, self.groups).mT  # (b, g, q, s·p)
        return torch.addcmul(within, carried.transpose(1, 2).reshape(self.x.shape), self.since)

    def after(self, state: Tensor) -> Tensor:
        """(b, h, p, n), the state after the chunk."""
        added = _grouped(self.x * self.until, self.groups).mT @ self.b
        return torch.addcmul(added.view(state.shape), state, self.whole)

    def gradients(self, of_y: Tensor, of_state: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Those of x, b, c and the state before, from those of the outputs and of the state after."""
        heads_x, heads_y = self.x.transpose(1, 2), of_y.transpose(1, 2)  # (b, h, q, p)
        own, own_state = _by_group(of_state, self.groups), _by_group(state, self.groups)
        of_scores = (heads_y @ heads_x.mT).view(self.decays.shape).mul_(self.decays).sum(2)  # (b, g, q, q)
        entering, leaving = _grouped(self.x * self.until, self.groups), _grouped(of_y * self.since, self.groups)
        of_b = of_scores.mT @ self.c + entering @ own
        of_c = of_scores @ self.b + leaving @ own_state
        of_entering = (self.b @ own.mT).transpose(1, 2).reshape(self.x.shape)
        of_x = torch.addcmul((self.scores.flatten(1, 2).mT @ heads_y).transpose(1, 2), of_entering, self.until)
        before = torch.addcmul((leaving.mT @ self.c).view(state.shape), of_state, self.whole)
        return of_x, of_b.transpose(1, 2), of_c.transpose(1, 2), before


def _decays(sums: Tensor) -> Tensor:
    """`sums: (..., q, h)` of logarithms → (..., h, q, q): from each token (last axis) to each later one, else 0."""
    sums = sums.mT
    later = torch.ones(sums.shape[-1], sums.shape[-1], dtype=torch.bool, device=sums.device).triu(1)
    return (sums[..., :, None] - sums[..., None, :]).masked_fill(later, float("-inf")).exp()


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(..., q, h, p) → (..., g, q, s·p), s heads of a group."""
    return torch.unflatten(x.flatten(-2), -1, (groups, -1)).transpose(-3, -2)


def _by_group(state: Tensor, groups: int) -> Tensor:
    """(b, h, p, n) → (b, g, s·p, n)"""
    return torch.unflatten(state.flatten(1, 2), 1, (groups, -1))
