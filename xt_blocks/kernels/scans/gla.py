"""Gated linear attention: a state to which each token adds its key and value (Yang et al., arXiv:2312.06635).

    S_t = exp(g_t) S_{t-1} + k_t ⊗ v_t,   o_t = S_tᵀ q_t

The decay is by key feature or by head; the same for all tokens, it is retention (Sun et al., arXiv:2307.08621).
"""

from __future__ import annotations

import torch
from torch import Tensor

from blockdsl.registry.scan import CHUNK, chunk_of

from . import gpu
from .decay import chunked, in_segments, joined, products, since_start, until_end, wide


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Outputs of all tokens, and the state after the last.

    A token with g = 0 and k = 0 leaves the state as it is.

    Args:
        q, k: (batch, heads, seq, d)
        v: (batch, heads, seq, e)
        g: log decays, at most 0: (batch, heads, seq, d) by channel or (batch, heads, seq, 1) by head.
        state: (batch, heads, d, e) before the first token; None: zeros.
        chunk: tokens of a chunk, a power of two. It changes the result by rounding alone.

    Returns:
        (batch, heads, seq, e) in the type of v, and the state, in float32 at least.
    """
    if gpu.refuses(scan := gpu.ScanRequest(q, k, v, g, None, state)) is None:
        return gpu.run(scan)
    dtype, seq = v.dtype, v.shape[2]
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, g = wide(q, k, v, g)
        state = v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state.to(v.dtype)
        if not seq:
            return v.to(dtype), state
        if seq == 1:
            state = g.exp().transpose(-1, -2) * state + k.transpose(-1, -2) * v
            return (q @ state).to(dtype), state
        out, state = in_segments(_chunks, (q, k, v, g), state, chunk_of(seq, chunk))
    return out.to(dtype), state


def _chunks(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    seq = q.shape[2]
    q, k, v, g = (chunked(x, chunk) for x in (q, k, v, g))
    (weights,) = products((q,), k, g)
    past, later = since_start(g, -2).exp(), until_end(g, -2).exp()
    kept, added = past[..., -1:, :].transpose(-1, -2), (later * k).transpose(-1, -2) @ v
    states = []
    for keep, add in zip(kept.unbind(2), added.unbind(2), strict=True):  # whose gradients are joined once
        states.append(state)
        state = keep * state + add
    out = (past * q) @ torch.stack(states, 2) + weights @ v
    return joined(out, seq), state
