"""What scans whose state decays have in common: chunks, sums of log decays, and products of tokens within a chunk.

A token's log decay g ≤ 0 says by what the state before it is multiplied, exp(g): one number for each head, or one for
each of its key features. Every exponent here is a sum of log decays over just the tokens between two, never a
difference of sums: it is at most 0, and exact however strong the decays of other tokens are.

Axes: b batch, h heads, n tokens, c chunks, t tokens of a chunk, d features of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SEGMENT = 2**18
"""Numbers of the queries that a scan reads at once. Another size gives the same results up to rounding."""


def wide(*tensors: Tensor) -> list[Tensor]:
    """In float32 at least, the type of states and decays."""
    return [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]


def chunked(x: Tensor, chunk: int) -> Tensor:
    """`(b, h, n, ...)` → (b, h, c, t, ...), with zeros after the last token."""
    x = F.pad(x, (0, 0) * (x.ndim - 3) + (0, -x.shape[2] % chunk))
    return torch.unflatten(x, 2, (-1, chunk))


def joined(x: Tensor, seq: int) -> Tensor:
    """The inverse of `chunked`."""
    return x.flatten(2, 3)[:, :, :seq]


def in_segments(
    scan: Callable[..., tuple[Tensor, Tensor]], tokens: Sequence[Tensor], state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """`scan(*tokens, state, chunk)`, on a CPU a few chunks at a time, whose tensors fit a core's cache.

    Args:
        tokens: each (b, h, n, ...), as the scan takes them.
        state: before the first token.
    """
    if not state.is_cpu or torch.compiler.is_compiling():
        return scan(*tokens, state, chunk)
    size = max(1, SEGMENT // max(1, tokens[0][:, :, :chunk].numel())) * chunk
    outs = []
    for segment in zip(*(torch.split(x, size, dim=2) for x in tokens), strict=True):
        out, state = scan(*segment, state, chunk)
        outs.append(out)
    return torch.cat(outs, 2), state


def since_start(g: Tensor, dim: int) -> Tensor:
    """Log decay of what was there before the first token, up to each: exp of it for the state of the last chunk."""
    return g.cumsum(dim)


def until_end(g: Tensor, dim: int) -> Tensor:
    """Log decay of what each token adds, by the tokens after it."""
    later = g.narrow(dim, 1, g.shape[dim] - 1).flip(dim).cumsum(dim).flip(dim)
    return torch.cat((later, torch.zeros_like(g.narrow(dim, 0, 1))), dim)


def products(lefts: Sequence[Tensor], right: Tensor, g: Tensor) -> list[Tensor]:
    """left_t · (decay from s to t) right_s for each two tokens of a chunk with s ≤ t, and 0 where s > t.

    Args:
        lefts: each (..., t, d).
        right: (..., t, d)
        g: log decays, (..., t, 1) by head or (..., t, d) by channel.

    Returns:
        (..., t, t) for each of `lefts`.
    """
    by = _products_by_head if g.shape[-1] == 1 else _products_by_channel
    return by(lefts, right, g)


def _products_by_head(lefts: Sequence[Tensor], right: Tensor, g: Tensor) -> list[Tensor]:
    size = g.shape[-2]
    between = g.expand(*g.shape[:-1], size).tril(-1).cumsum(-2)  # [t, s]: of the tokens after s up to t
    decay = between.exp().tril()
    return [left @ right.transpose(-1, -2) * decay for left in lefts]


def _products_by_channel(lefts: Sequence[Tensor], right: Tensor, g: Tensor) -> list[Tensor]:
    """Blocks on the diagonal, each twice as large as those that it is made of.

    The tokens of a block's later half meet those of its earlier half as in a matrix product: both decay to the place
    between the halves, so that no exponent is positive, and no tensor has axes for two tokens and a feature.
    """
    size = right.shape[-2]
    blocks = [(left * right).sum(-1)[..., None, None] for left in lefts]  # of a single token: (..., t, 1, 1)
    half = 1
    while half < size:
        *later, early, decay = (torch.unflatten(x, -2, (-1, 2, half)) for x in (*lefts, right, g))
        early = early[..., 0, :, :] * until_end(decay[..., 0, :, :], -2).exp()
        to_later = since_start(decay[..., 1, :, :], -2).exp()
        joined_blocks = []
        for block, left in zip(blocks, later, strict=True):
            own = torch.unflatten(block, -3, (-1, 2))
            met = (left[..., 1, :, :] * to_later) @ early.transpose(-1, -2)
            top = F.pad(own[..., 0, :, :], (0, half))
            joined_blocks.append(torch.cat((top, torch.cat((met, own[..., 1, :, :]), -1)), -2))
        blocks, half = joined_blocks, 2 * half
    return [block.squeeze(-3) for block in blocks]
