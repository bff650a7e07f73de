"""The gated delta rule: each token corrects what the state answers to its key (Yang et al., arXiv:2412.06464).

    S_t = exp(g_t) S_{t-1} + k_t ⊗ u_t,   u_t = β_t (v_t - (exp(g_t) S_{t-1})ᵀ k_t),   o_t = S_tᵀ q_t

The decay is by head, or by key feature as in Kimi Delta Attention (arXiv:2510.26692). In chunks, the u of a chunk solve
a triangular system (the WY form, arXiv:2406.06484).
"""

from __future__ import annotations

import torch
from torch import Tensor

from blockdsl.registry.scan import CHUNK, chunk_of

from . import gpu
from .decay import chunked, in_segments, joined, products, since_start, until_end, wide


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Outputs of all tokens, and the state after the last.

    A token with g = 0 and β = 0 leaves the state as it is.

    Args:
        q, k: (batch, heads, seq, d), keys of at most unit length.
        v: (batch, heads, seq, e)
        g: log decays, at most 0: (batch, heads, seq, 1) by head or (batch, heads, seq, d) by channel.
        beta: (batch, heads, seq), how much of the answer is replaced, from 0 to 2.
        state: (batch, heads, d, e) before the first token; None: zeros.
        chunk: tokens of a chunk, a power of two. It changes the result by rounding alone.

    Returns:
        (batch, heads, seq, e) in the type of v, and the state, in float32 at least.
    """
    if gpu.refuses(scan := gpu.ScanRequest(q, k, v, g, beta, state)) is None:
        return gpu.run(scan)
    dtype = v.dtype
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, g, beta = wide(q, k, v, g, beta)
        if state is None:
            state = v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
        if not q.shape[2]:
            return v.to(dtype), state.to(v.dtype)
        tokens, state, chunk = (q, k, v, g, beta[..., None]), state.to(v.dtype), chunk_of(q.shape[2], chunk)
        out, state = _step(*tokens, state) if q.shape[2] == 1 else in_segments(_chunks, tokens, state, chunk)
    return out.to(dtype), state


def _step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """A single token, as the recurrence says it."""
    state = g.exp().transpose(-1, -2) * state
    state = state + k.transpose(-1, -2) * (beta * (v - k @ state))
    return q @ state, state


def _chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    seq = q.shape[2]
    q, k, v, g, beta = (chunked(x, chunk) for x in (q, k, v, g, beta))
    answers, corrections = products((q, beta * k), k, g)
    past, later = since_start(g, -2).exp(), until_end(g, -2).exp()
    # (1 + corrections) u = β (v - the old state's answer): solved for both terms before the old state is known
    known = torch.linalg.solve_triangular(
        corrections, torch.cat((beta * v, beta * past * k), -1), upper=False, unitriangular=True
    )
    values, keys = known.split((v.shape[-1], k.shape[-1]), -1)
    kept, added = past[..., -1:, :].transpose(-1, -2), (later * k).transpose(-1, -2)
    states, updates = [], []
    for own_values, own_keys, keep, add in zip(*(x.unbind(2) for x in (values, keys, kept, added)), strict=True):
        states.append(state)
        updates.append(own_values - own_keys @ state)
        state = keep * state + add @ updates[-1]
    out = (past * q) @ torch.stack(states, 2) + answers @ torch.stack(updates, 2)
    return joined(out, seq), state
