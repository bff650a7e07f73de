"""Attention by tiles of a few queries and the keys they see, whose scores are never held together.

The products with keys that no query of a tile sees are left out: a causal mask costs half of a full one, a window of
w tokens costs w keys a query. Scores are computed again in the backward pass (FlashAttention, arXiv:2205.14135), so
that time and memory grow with what is seen. A bias by distance is read from a band of a tile's rows, of which
each tile is a slice, and its gradient is added up there.

Written for a CPU with few threads, whose time goes into the matrix products of a tile. As torch's fused kernels, it has
first derivatives alone; `flash=False` takes the way that has all.
Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .masks import Attend
from .scores import TalkingHeads, only

ROWS = 64
"""Queries of a tile."""
MOST_SCORES = 2**19
"""Scores of a tile, 2 MB, to stay in a core's cache: heads are split where there would be more."""


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
    def width(self) -> int:
        """How many tokens."""
        return self.tokens.stop - self.tokens.start

    @property
    def place(self) -> tuple[int, slice, slice]:
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


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attend: Attend,
    scale: float,
    dropout: float = 0.0,
    talking_heads: TalkingHeads | None = None,
    sparse_topk: int | None = None,
) -> Tensor:
    """softmax(q kᵀ · scale + bias) v.

    Args:
        q: (b, h, i, d); k: (b, h, j, d); v: (b, h, j, dv).
        dropout: of the attention weights; 0 outside training.
        talking_heads, sparse_topk: see `scores`.

    Returns:
        (b, h, i, dv)
    """
    band = None if attend.bias is None else attend.bias.band(ROWS)
    mixes = (None, None) if talking_heads is None else (talking_heads.before, talking_heads.behind)
    wide = torch.promote_types(q.dtype, torch.float32)  # scores and sums; half precision would lose far terms
    args = [None if x is None else x.to(wide) for x in (q, k, v, band, *mixes)]
    with torch.autocast(q.device.type, enabled=False):
        out = _Blockwise.apply(*args, attend, scale, dropout, sparse_topk)  # type: ignore[no-untyped-call]
    return out.to(q.dtype)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        band: Tensor | None,
        before: Tensor | None,
        behind: Tensor | None,
        attend: Attend,
        scale: float,
        dropout: float,
        sparse_topk: int | None,
    ) -> Tensor:
        batch, heads, seq, _ = q.shape
        out = q.new_empty(batch, seq, heads, v.shape[-1]).transpose(1, 2)  # heads side by side, as the stream has them
        kept: list[Tensor] = []  # tile by tile what a second pass cannot draw again, or would find more slowly
        for tile in tiles(attend, q, k, split=before is None):
            scores, empty = _seen(tile, _mixed(before, _scores(tile, q, k, scale)), band, attend)
            if sparse_topk is not None:
                kept.append(scores.topk(min(sparse_topk, scores.shape[-1]), dim=-1, sorted=False).indices)
                scores = only(scores, kept[-1])
            weights = _softmax(scores, empty)
            if dropout:
                kept.append(torch.empty_like(weights, dtype=torch.bool).bernoulli_(1 - dropout))
                weights.mul_(kept[-1]).div_(1 - dropout)
            out[tile.place] = torch.bmm(_mixed(behind, weights), tile.taken(v))
        ctx.save_for_backward(q, k, v, band, before, behind, out, *kept)
        ctx.attend, ctx.scale, ctx.dropout, ctx.sparse = attend, scale, dropout, sparse_topk is not None
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return (*_gradients(ctx, grads[0]), None, None, None, None)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Of q, k, v, band and both mixes."""
    q, k, v, band, before, behind, out, *saved = ctx.saved_tensors
    attend, scale, dropout, kept = ctx.attend, ctx.scale, ctx.dropout, iter(saved)
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    grad_band, grad_before, grad_behind = (
        torch.zeros_like(x) if needed else None
        for x, needed in zip((band, before, behind), ctx.needs_input_grad[3:6], strict=True)
    )
    mean = (grad * out).sum(dim=-1, keepdim=True)  # a row's gradient, weighted; of mixed heads it is another
    for tile in tiles(attend, q, k, split=before is None):
        raw = _scores(tile, q, k, scale)
        scores, empty = _seen(tile, _mixed(before, raw), band, attend)
        weights = _softmax(only(scores, next(kept)) if ctx.sparse else scores, empty)
        share = next(kept) / (1 - dropout) if dropout else None
        dropped = weights if share is None else weights * share
        of_out = grad[tile.place]
        of_weights = torch.bmm(of_out, tile.taken(v).transpose(1, 2))
        tile.add_product(grad_v, _mixed(behind, dropped).transpose(1, 2), of_out)
        if grad_behind is not None:
            grad_behind += _product(of_weights, dropped)
        of_weights = _mixed(None if behind is None else behind.T, of_weights)
        of_weights = of_weights if share is None else of_weights.mul_(share)
        rows = mean[tile.place] if behind is None else (of_weights * weights).sum(dim=-1, keepdim=True)
        of_scores = of_weights.sub_(rows).mul_(weights)
        if grad_band is not None:
            band_of(tile, grad_band, attend).add_(of_scores[:, :, of_scores.shape[2] - tile.width :])
        if grad_before is not None:
            grad_before += _product(of_scores, raw)
        of_scores = _mixed(None if before is None else before.T, of_scores)
        grad_q[tile.place] = torch.bmm(of_scores, tile.taken(k)).mul_(scale)
        tile.add_product(grad_k, of_scores.transpose(1, 2), q[tile.place] * scale)
    return grad_q, grad_k, grad_v, grad_band, grad_before, grad_behind


def tiles(attend: Attend, q: Tensor, k: Tensor, split: bool = True) -> Iterator[Tile]:
    """All tiles; the heads of a row together as far as they fit, or always if not `split`."""
    batch, heads, seq, _ = q.shape
    for start in range(0, seq, ROWS):
        queries = slice(start, min(start + ROWS, seq))
        tokens = attend.in_sight(queries, k.shape[2] - attend.memories)
        first, last = (place + attend.memories for place in (tokens.start, tokens.stop))
        keys: tuple[slice, ...] = (slice(0 if tokens.start == 0 else first, last),)
        if attend.memories and tokens.start > 0:
            keys = (slice(0, attend.memories), *keys)
        columns = tokens.stop - tokens.start + attend.memories
        step = max(1, MOST_SCORES // (ROWS * max(1, columns))) if split else heads
        for row in range(batch):
            for head in range(0, heads, step):
                yield Tile(row, slice(head, min(head + step, heads)), queries, keys, tokens)


def band_of(tile: Tile, band: Tensor, attend: Attend) -> Tensor:
    """The part of `band: (h, rows, seq + keys - 1)` that a tile's tokens read, (h', i', tokens)."""
    rows, shift = tile.queries.stop - tile.queries.start, attend.queries - 1 - tile.queries.start
    return band[tile.heads, :rows, tile.tokens.start + shift : tile.tokens.stop + shift]


def _scores(tile: Tile, q: Tensor, k: Tensor, scale: float) -> Tensor:
    """(h', i', j')"""
    return torch.bmm(q[tile.place] * scale, tile.taken(k).transpose(1, 2))


def _seen(tile: Tile, scores: Tensor, band: Tensor | None, attend: Attend) -> tuple[Tensor, Tensor | None]:
    """The scores biased and masked, in place, and which rows see nothing, (h', i', 1) bool; None: there is none."""
    of_tokens = scores[:, :, scores.shape[2] - tile.width :]
    if band is not None:
        of_tokens.add_(band_of(tile, band, attend))
    if not attend.hide(of_tokens, tile.row, tile.heads, tile.queries, tile.tokens):
        return scores, None
    return scores, scores.amax(dim=-1, keepdim=True).isneginf()


def _softmax(scores: Tensor, empty: Tensor | None) -> Tensor:
    """(h', i', j'), a row of zeros where nothing is seen."""
    weights = scores.softmax(dim=-1)
    return weights if empty is None else weights.masked_fill_(empty, 0.0)


def _mixed(mix: Tensor | None, x: Tensor) -> Tensor:
    """`mix: (heads, heads)` of the heads of `x: (h, i, j)`."""
    return x if mix is None else (mix @ x.flatten(1)).view_as(x)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Of two (h, i, j) over queries and keys: (heads, heads)."""
    return x.flatten(1) @ y.flatten(1).T
