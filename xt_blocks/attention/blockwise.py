"""Attention by tiles of a few queries and the keys they see, whose scores are never held together.

The products with keys that no query of a tile sees are left out: a causal mask costs half of a full one, a window of
w tokens costs w keys a query. Scores are computed again in the backward pass (FlashAttention, arXiv:2205.14135), so
that time and memory grow with what is seen. A bias by distance is read from a band of a tile's rows, of which
each tile is a slice, and its gradient is added up there.

Written for a CPU with few threads, whose time goes into the matrix products of a tile.
Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .masks import Attend

ROWS = 64
"""Queries of a tile."""
MOST_SCORES = 2**21
"""Scores of a tile, to fit in a cache: heads are split where there would be more."""


class Tile(NamedTuple):
    """Queries of some heads of a row, and the keys that any of them sees.

    Attributes:
        row: of the batch.
        heads, queries: slices of these axes.
        keys: slices of the keys, learned memories included, one behind the other.
        tokens: the places of the keys that are no learned memories.
    """

    row: int
    heads: slice
    queries: slice
    keys: tuple[slice, ...]
    tokens: slice

    @property
    def rows(self) -> int:
        return self.queries.stop - self.queries.start

    @property
    def index(self) -> tuple[int, slice, slice]:
        """Of its queries in (b, h, i, ...)."""
        return self.row, self.heads, self.queries

    def taken(self, x: Tensor) -> Tensor:
        """Its keys' part of `x: (b, h, j, d)`: (h', j', d)."""
        parts = [x[self.row, self.heads, keys] for keys in self.keys]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def add_product(self, x: Tensor, left: Tensor, right: Tensor) -> None:
        """Add left · right, (h', j', d), to its keys' part of `x: (b, h, j, d)`."""
        start = 0
        for keys in self.keys:
            end = start + keys.stop - keys.start
            x[self.row, self.heads, keys].baddbmm_(left[:, start:end], right)
            start = end


def attention(q: Tensor, k: Tensor, v: Tensor, attend: Attend, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ · scale + bias) v.

    Args:
        q: (b, h, i, d); k: (b, h, j, d); v: (b, h, j, dv).
        dropout: of the attention weights; 0 outside training.

    Returns:
        (b, h, i, dv)
    """
    band = None if attend.bias is None else attend.bias.band(ROWS)
    wide = torch.promote_types(q.dtype, torch.float32)  # scores and sums; half precision would lose far terms
    args = [None if x is None else x.to(wide) for x in (q, k, v, band)]
    return _Blockwise.apply(*args, attend, scale, dropout).to(q.dtype)  # type: ignore[no-untyped-call, no-any-return]


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        band: Tensor | None,
        attend: Attend,
        scale: float,
        dropout: float,
    ) -> Tensor:
        batch, heads, seq, _ = q.shape
        out = q.new_empty(batch, seq, heads, v.shape[-1]).transpose(1, 2)  # heads side by side, as the stream has them
        kept: list[Tensor] = []
        for tile in tiles(attend, batch, heads):
            weights = _weights(tile, q, k, band, attend, scale)
            if dropout:
                kept.append(torch.empty_like(weights, dtype=torch.bool).bernoulli_(1 - dropout))
                weights.mul_(kept[-1]).div_(1 - dropout)
            out[tile.index] = torch.bmm(weights, tile.taken(v))
        ctx.save_for_backward(q, k, v, band, out, *kept)
        ctx.attend, ctx.scale, ctx.dropout = attend, scale, dropout
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, band, out, *kept = ctx.saved_tensors
        attend, scale, dropout = ctx.attend, ctx.scale, ctx.dropout
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_band = torch.zeros_like(band) if ctx.needs_input_grad[3] else None
        mean = (grad * out).sum(dim=-1, keepdim=True)  # of the gradients of a row's weights
        for n, tile in enumerate(tiles(attend, *q.shape[:2])):
            weights, of_out = _weights(tile, q, k, band, attend, scale), grad[tile.index]
            of_scores = torch.bmm(of_out, tile.taken(v).transpose(1, 2))
            dropped = weights
            if dropout:
                share = kept[n] / (1 - dropout)
                dropped, of_scores = weights * share, of_scores * share
            tile.add_product(grad_v, dropped.transpose(1, 2), of_out)
            of_scores = of_scores.sub_(mean[tile.index]).mul_(weights)
            if grad_band is not None:
                band_of(tile, grad_band, attend).add_(of_scores[:, :, -_tokens(tile) :])
            grad_q[tile.index] = torch.bmm(of_scores, tile.taken(k)).mul_(scale)
            tile.add_product(grad_k, of_scores.transpose(1, 2), q[tile.index] * scale)
        return grad_q, grad_k, grad_v, grad_band, None, None, None


def tiles(attend: Attend, batch: int, heads: int) -> Iterator[Tile]:
    """All tiles, the heads of a row together as far as they fit."""
    for start in range(0, attend.queries, ROWS):
        queries = slice(start, min(start + ROWS, attend.queries))
        tokens = attend.in_sight(queries)
        first, last = tokens.start + attend.memories, tokens.stop + attend.memories
        whole = tokens.start == 0 or not attend.memories
        keys = (slice(0 if tokens.start == 0 else first, last),) if whole else (slice(0, attend.memories), slice(first, last))
        step = max(1, MOST_SCORES // (ROWS * (last - first + attend.memories)))
        for row in range(batch):
            for head in range(0, heads, step):
                yield Tile(row, slice(head, min(head + step, heads)), queries, keys, tokens)


def band_of(tile: Tile, band: Tensor, attend: Attend) -> Tensor:
    """The part of `band: (h, rows, seq + keys - 1)` that a tile's tokens read, (h', i', tokens)."""
    shift = attend.queries - 1 - tile.queries.start
    return band[tile.heads, : tile.rows, tile.tokens.start + shift : tile.tokens.stop + shift]


def _tokens(tile: Tile) -> int:
    return tile.tokens.stop - tile.tokens.start


def _weights(tile: Tile, q: Tensor, k: Tensor, band: Tensor | None, attend: Attend, scale: float) -> Tensor:
    """(h', i', j'): softmax of the scores, a row of zeros where nothing is seen."""
    scores = torch.bmm(q[tile.index] * scale, tile.taken(k).transpose(1, 2))
    of_tokens = scores[:, :, -_tokens(tile) :]
    if band is not None:
        of_tokens.add_(band_of(tile, band, attend))
    attend.hide(of_tokens, tile.row, tile.heads, tile.queries, tile.tokens)
    weights = scores.softmax(dim=-1)
    if attend.may_be_empty:
        weights.masked_fill_(weights.isnan().all(dim=-1, keepdim=True), 0.0)
    return weights
