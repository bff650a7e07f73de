"""The scan of Mamba-2, structured state space duality (Dao & Gu, arXiv:2405.21060).

    S[t] = exp(a[t])·S[t-1] + x[t] ⊗ B[t]        y[t] = S[t]·C[t]

S (dim_head, state) by head, a[t] ≤ 0 a number by head, B and C shared by the heads of a group. Within a chunk of tokens
it is a masked product, (L ∘ C Bᵀ) x with L[t, s] = exp(a[s+1] + ... + a[t]); between chunks the state goes on. Time and
memory are linear in the length, and the chunk's size changes nothing but rounding.

Owns the arithmetic, of plain tensors. A token that is padding has x = 0 and a = 0, and leaves the state as it is.
`a` and the state are float32, or float64 where x is; products are of x's type.
Axes: b batch, c chunks, q tokens of a chunk, g groups, h heads, p features of a head, n state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import compat
from ..once import SCAN, first_derivatives
from . import gpu


def ssd(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor | None = None,
    chunk: int = 64,
    known: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The scan over all tokens.

    Args:
        x: (batch, seq, heads, dim_head), what enters the state, Δ·x of the paper.
        a: (batch, seq, heads), the logarithm of the state's decay.
        b, c: (batch, seq, groups, state)
        state: (batch, heads, dim_head, state), before the first token; None: zeros.
        chunk: tokens of a chunk.
        known: an empty list, to which a single chunk's results may be added; given again with the same inputs, it saves
            computing them for a gradient.

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
    if not x.is_cpu and gpu.refuses(scan := _as_scan(x, a, b, c, state)) is None:
        y, after = gpu.run(scan)
        return y.transpose(1, 2), after.mT
    if x.is_cpu and x.shape[1] <= chunk and not torch.compiler.is_compiling() and not compat.transforms_active():
        with torch.autocast("cpu", enabled=False):
            inputs = [t.to(wide) for t in (x, a, b, c, state)]
            y, after = _Chunk.apply(*inputs, [] if known is None else known)  # type: ignore[no-untyped-call]
        return y.to(x.dtype), after
    return plain_ssd(x, a, b, c, state, chunk)


def _as_scan(x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> gpu.ScanRequest:
    """Gated linear attention, which it is: C are the queries, B the keys."""
    q, k, v, g = (t.transpose(1, 2) for t in (c, b, x, a))
    return gpu.ScanRequest(q, k, v, g[..., None], None, state.mT)


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
    added = (entering.mT @ b).view(batch, b.shape[1], heads, width, b.shape[-1])
    states = []
    for new, decay in zip(added.unbind(1), a[:, :, -1].exp().unbind(1), strict=True):
        states.append(state)
        state = torch.addcmul(new.to(state.dtype), state, decay[..., None, None])
    before = torch.stack(states, dim=1).view(batch, b.shape[1], groups, share * width, b.shape[-1]).to(x.dtype)
    carried = (c @ before.mT).transpose(2, 3).reshape(x.shape) * a.exp().to(x.dtype)[..., None]
    return (within.transpose(2, 3) + carried).flatten(1, 2)[:, :seq], state


def _step(x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """A single token: the recurrence itself."""
    share = x.shape[2] // b.shape[2]
    b, c = (t[:, 0].to(state.dtype).repeat_interleave(share, dim=1) for t in (b, c))  # (b, h, n)
    new = x[:, 0, :, :, None].to(state.dtype) * b[:, :, None]
    after = torch.addcmul(new, state, a[:, 0, :, None, None].exp())
    return (after * c[:, :, None]).sum(-1)[:, None].to(x.dtype), after


class _Chunk(torch.autograd.Function):
    """A single chunk, with its gradient by hand: few operations on what there is of each two tokens of each head.

    With the sums A = cumsum(a), whose last is E, the gradient of A[t] is y[t]·∂y[t] - x[t]·∂x[t], as y[t] has the
    factor exp(A[t]) and x[t] the factor exp(-A[t]) wherever they are multiplied; that of E has S·∂S too.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor, known: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        groups, sums = b.shape[2], a.cumsum(1)
        groups_b, groups_c = b.transpose(1, 2), c.transpose(1, 2)  # (b, g, q, n)
        decays = torch.unflatten(_differences(sums).exp_().tril_(), 1, (groups, -1))  # (b, g, s, q, q)
        scores = ((groups_c @ groups_b.mT)[:, :, None] * decays).flatten(1, 2)
        until = (sums[:, -1:] - sums).exp()[..., None]
        if not known:
            within = (scores @ x.transpose(1, 2)).transpose(1, 2)
            carried = (groups_c @ _by_group(state, groups).mT).transpose(1, 2).reshape(x.shape)
            known.append(torch.addcmul(within, carried, sums.exp()[..., None]))
            added = (_grouped(x * until, groups).mT @ groups_b).view(state.shape)
            known.append(torch.addcmul(added, state, sums[:, -1].exp()[..., None, None]))
        y, after = known
        ctx.save_for_backward(x, b, c, state, y, after, sums, decays, scores, until, a)
        return y, after

    @staticmethod
    @first_derivatives(*SCAN)
    def backward(ctx: Any, saved: Sequence[Tensor], of_y: Tensor, of_state: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return *_gradients(saved, of_y, of_state), None


def _gradients(saved: Sequence[Tensor], of_y: Tensor, of_state: Tensor) -> tuple[Tensor, ...]:
    x, b, c, state, y, after, sums, decays, scores, until, _ = saved
    groups, since, whole = b.shape[2], sums.exp()[..., None], sums[:, -1].exp()[..., None, None]
    groups_b, groups_c = b.transpose(1, 2), c.transpose(1, 2)
    heads_y = of_y.transpose(1, 2)  # (b, h, q, p)
    of_scores = (heads_y @ x.permute(0, 2, 3, 1)).view(decays.shape).mul_(decays).sum(2)  # (b, g, q, q)
    entering, leaving = _grouped(x * until, groups), _grouped(of_y * since, groups)  # (b, g, q, s·p)
    of_after, before = _by_group(of_state, groups), _by_group(state, groups)
    of_b = torch.baddbmm((entering @ of_after).flatten(0, 1), of_scores.mT.flatten(0, 1), groups_c.flatten(0, 1))
    of_c = torch.baddbmm((leaving @ before).flatten(0, 1), of_scores.flatten(0, 1), groups_b.flatten(0, 1))
    of_b, of_c = (torch.unflatten(t, 0, (-1, groups)).transpose(1, 2) for t in (of_b, of_c))
    of_entering = (groups_b @ of_after.mT).transpose(1, 2).reshape(x.shape)
    of_x = torch.addcmul((scores.mT @ heads_y).transpose(1, 2), of_entering, until)
    of_before = torch.addcmul((leaving.mT @ groups_c).view(state.shape), of_state, whole)
    of_sums = (of_y * y).sum(-1) - (of_x * x).sum(-1)
    of_sums[:, -1] += (of_state * after).sum((-1, -2))
    return of_x, of_sums.flip(1).cumsum(1).flip(1), of_b, of_c, of_before


def _differences(sums: Tensor) -> Tensor:
    """`sums: (..., q, h)` → (..., h, q, q), of each two tokens: the row's less the column's."""
    sums = sums.mT.contiguous()
    return sums[..., :, None] - sums[..., None, :]


def _decays(sums: Tensor) -> Tensor:
    """`sums: (..., q, h)` of logarithms → (..., h, q, q): from each token (last axis) to each later one, else 0."""
    later = torch.ones(sums.shape[-2], sums.shape[-2], dtype=torch.bool, device=sums.device).triu(1)
    return _differences(sums).masked_fill(later, float("-inf")).exp()


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(..., q, h, p) → (..., g, q, s·p), s heads of a group."""
    return torch.unflatten(x.flatten(-2), -1, (groups, -1)).transpose(-3, -2)


def _by_group(state: Tensor, groups: int) -> Tensor:
    """(b, h, p, n) → (b, g, s·p, n)"""
    return torch.unflatten(state.flatten(1, 2), 1, (groups, -1))
