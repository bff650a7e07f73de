"""Attention by tiles of a few queries and the keys they see; the scores are never all held at once.

The products with keys that no query of a tile sees are left out: a causal mask costs half of a full one, a window of
w tokens costs w keys a query. Scores are computed again in the backward pass (FlashAttention, arXiv:2205.14135), so
that time and memory grow with the number of keys seen. A bias by distance is read from a band of a tile's rows, of
which each tile is a slice, and its gradient is added up there.

Written for a CPU with few threads, whose time goes into the matrix products of a tile. Like torch's fused
kernels, it has first derivatives only; `attn_flash=False` selects a kernel that has all.

A tile has one buffer in the forward pass and one in the backward pass. Forward, a step receives it, may overwrite it
unless a gradient follows, and returns the next step's; the bias and the mask are written into the result of the last
SCORES modifier. Backward, each step owns the gradient that it receives. `TileStep` detects a saved buffer that was
overwritten.
Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import compat
from .contract import Kernel
from .masks import AttentionMask
from .once import first_derivatives
from .request import Request, Result
from .scores.softmax import softmax_of
from .scores.spec import Modifier, ScoreSpec, ScoreStage, TileStep

ROWS = 64
"""Queries of a tile."""

MOST_SCORES = 2**19
"""Scores of a tile, 2 MB, to stay in a core's cache: heads are split where there would be more."""

MOST_PLAIN, FEW_THREADS = 1024, 2
"""Up to this many queries and threads, tiles train plain causal attention faster than the fused kernel."""

MOST_MASK = 2**22
"""Elements, 16 MB, up to which a mask that all blocks share is left to the fused kernel."""

FEWEST = 4 * ROWS
"""Fewest queries for which tiles are faster."""

_TOO_FEW = f"tiles are fast on a CPU, from {FEWEST} queries on"


def supports(request: Request) -> str | None:
    if compat.transforms_active() or type(request.q) is not Tensor:  # a fake tensor has no values to read
        return "torch.func, forward-mode derivatives, tracing or a tensor subclass follows each operation"
    mask = request.mask
    if mask.place is not None or not (mask.bias is None or mask.bias.by_distance):
        return "positions are given or shapes are fixed, and its masks depend on distance alone"
    for modifier in request.spec.modifiers:
        if (reason := modifier.unreadable()) is not None:
            return reason
    return request.needs_scores()


def declines(request: Request) -> str | None:
    """None where tiles are faster than the other kernels or need less memory, as measured on a CPU.

    The fused kernel reads the whole mask, and on a CPU computes no gradient for it.
    """
    if torch.compiler.is_compiling():
        return "a compiled graph must not depend on sizes"
    q, mask = request.q, request.mask
    if mask.queries < FEWEST or not q.is_cpu:
        return _TOO_FEW
    bias, trains = mask.bias, torch.is_grad_enabled()
    masked = mask.past or mask.mem_kv or mask.mask is not None or mask.attn_mask is not None
    if (
        request.spec.modifiers
        or mask.windowed
        or mask.documents is not None
        or (mask.causal and (masked or bias is not None))
    ):
        return None
    if bias is not None:  # all keys are seen: tiles have nothing to leave out but the mask itself
        if (trains and bias.values.requires_grad) or bias.values.shape[0] * q.shape[2] ** 2 > MOST_MASK:
            return None
        return "all keys are seen, with a small bias that is not learned"
    few = mask.queries <= MOST_PLAIN and torch.get_num_threads() <= FEW_THREADS
    if mask.causal and few and trains and q.requires_grad and q.dtype == torch.float32:
        return None
    return "torch's fused kernel is as fast where nothing but causality changes the scores"


class Tile(NamedTuple):
    """Queries of some heads of a row, and the keys that any of them sees.

    Attributes:
        row: of the batch.
        heads, queries: slices of these axes.
        keys: slices of the keys, memory key-values first.
        tokens: the range of its keys among those of tokens.
    """

    row: int
    heads: slice
    queries: slice
    keys: tuple[slice, ...]
    tokens: slice

    @property
    def width(self) -> int:
        """How many keys of tokens."""
        return self.tokens.stop - self.tokens.start

    @property
    def place(self) -> tuple[int, slice, slice]:
        """The index of its queries in (b, h, i, ...)."""
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


def run(request: Request) -> Result:
    q, k, v, mask, spec, *_ = request.repeated()
    band = None if mask.bias is None else mask.bias.band(ROWS)
    chain = _Chain.of(spec)
    wide = torch.promote_types(q.dtype, torch.float32)  # scores and sums; half precision would lose far terms
    tensors = [None if x is None else x.to(wide) for x in (q, k, v, band, *chain.tensors())]
    with torch.autocast(q.device.type, enabled=False):
        out: Tensor = _Tiles.apply(mask, spec, chain, *tensors)  # type: ignore[no-untyped-call]
    return out.to(q.dtype), None


class _Chain(NamedTuple):
    """All modifiers in the order in which they act, the softmax among them.

    Attributes:
        modifiers: each with the slice of its tensors among all tensors.
        scores: how many of them, the first ones, are SCORES modifiers.
        scales: all WEIGHTS modifiers only scale each weight, see `Modifier.scales`.
    """

    modifiers: tuple[tuple[Modifier, slice], ...]
    scores: int
    scales: bool

    @staticmethod
    def of(spec: ScoreSpec) -> _Chain:
        before, after = spec.at(ScoreStage.SCORES), spec.at(ScoreStage.WEIGHTS)
        placed, start = [], 0
        for modifier in (*before, *spec.at(ScoreStage.MASKED), softmax_of(spec), *after):
            end = start + len(modifier.tensors())
            placed.append((modifier, slice(start, end)))
            start = end
        return _Chain(tuple(placed), len(before), all(modifier.scales for modifier in after))

    def tensors(self) -> list[Tensor]:
        return [t for modifier, _ in self.modifiers for t in modifier.tensors()]

    def steps(
        self,
        tile: Tile,
        tensors: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...] | None,
        drawn: list[Tensor] | Iterator[Tensor],
    ) -> list[TileStep]:
        """The modifiers' steps at a tile; gradients are None in the forward pass."""
        follows, of_all = gradients is not None, gradients or ()
        return [
            TileStep(modifier, tile.heads, tensors[own], of_all[own], drawn, follows)
            for modifier, own in self.modifiers
        ]


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mask: AttentionMask,
        spec: ScoreSpec,
        chain: _Chain,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        band: Tensor | None,
        *learned: Tensor,
    ) -> Tensor:
        batch, heads, seq, _ = q.shape
        out = q.new_empty(batch, seq, heads, v.shape[-1]).transpose(1, 2)  # merging its heads then copies nothing
        drawn: list[Tensor] = []  # tile by tile, what the backward pass cannot or need not recompute
        for tile in tiles(mask, spec, q, k):
            steps = chain.steps(tile, learned, None, drawn)
            scores = torch.bmm(q[tile.place] * spec.scale, tile.taken(k).transpose(1, 2))
            out[tile.place] = torch.bmm(_weights(scores, steps, chain, tile, band, mask), tile.taken(v))
        ctx.save_for_backward(q, k, v, band, out, *learned, *drawn)
        ctx.mask, ctx.spec, ctx.chain, ctx.learned = mask, spec, chain, len(learned)
        return out

    @staticmethod
    @first_derivatives("attention in tiles", "attn_flash=False has others too")
    def backward(ctx: Any, saved: Sequence[Any], *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return (None, None, None, *_gradients(ctx, saved, grads[0]))


def _gradients(ctx: Any, saved: Sequence[Any], grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of q, k, v, band and the modifiers' tensors."""
    mask, spec, chain = ctx.mask, ctx.spec, ctx.chain
    q, k, v, band, out, *others = saved
    learned, drawn = tuple(others[: ctx.learned]), iter(others[ctx.learned :])
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    grad_band, *of_learned = (
        torch.zeros_like(x) if needed else None
        for x, needed in zip((band, *learned), ctx.needs_input_grad[6:], strict=True)
    )
    # Σ weight · its gradient over a row is Σ output · its gradient, unless a modifier mixes weights
    row_sums = (grad * out).sum(dim=-1, keepdim=True) if chain.scales else None
    for tile in tiles(mask, spec, q, k):
        steps = chain.steps(tile, learned, tuple(of_learned), drawn)
        scores = torch.bmm(q[tile.place] * spec.scale, tile.taken(k).transpose(1, 2))
        weights = _weights(scores, steps, chain, tile, band, mask)
        of_out = grad[tile.place]
        own = torch.bmm(of_out, tile.taken(v).transpose(1, 2))
        tile.add_product(grad_v, weights.transpose(1, 2), of_out)
        for step in reversed(steps[chain.scores :]):
            step.row_sums = None if row_sums is None else row_sums[tile.place]
            own = step.modifier.tile_gradient(own, step)
        if grad_band is not None:
            band_of(tile, grad_band, mask).add_(own[:, :, own.shape[2] - tile.width :])
        for step in reversed(steps[: chain.scores]):
            own = step.modifier.tile_gradient(own, step)
        grad_q[tile.place] = torch.bmm(own, tile.taken(k)).mul_(spec.scale)
        tile.add_product(grad_k, own.transpose(1, 2), q[tile.place] * spec.scale)
    return grad_q, grad_k, grad_v, grad_band, *of_learned


def _weights(
    x: Tensor, steps: list[TileStep], chain: _Chain, tile: Tile, band: Tensor | None, mask: AttentionMask
) -> Tensor:
    """From scaled q·k to the weights of the values, both (h', i', j')."""
    for step in steps[: chain.scores]:
        x = step.modifier.tile(x, step)
    empty = _mask(x, tile, band, mask)
    for step in steps[chain.scores :]:
        step.empty = empty
        x = step.modifier.tile(x, step)
    return x


def _mask(scores: Tensor, tile: Tile, band: Tensor | None, mask: AttentionMask) -> Tensor | None:
    """Bias and mask the scores in place; returns which rows see nothing, (h', i', 1) bool; None: there is none."""
    of_tokens = scores[:, :, scores.shape[2] - tile.width :]
    if band is not None:
        of_tokens.add_(band_of(tile, band, mask))
    if not mask.hide(of_tokens, tile.row, tile.heads, tile.queries, tile.tokens):
        return None
    return scores.amax(dim=-1, keepdim=True).isneginf()


def tiles(mask: AttentionMask, spec: ScoreSpec, q: Tensor, k: Tensor) -> Iterator[Tile]:
    """All tiles; the heads of a row together as far as they fit, or always where a modifier mixes them."""
    batch, heads, seq, _ = q.shape
    split = not any(modifier.mixes_heads for modifier in spec.modifiers)
    for start, row in product(range(0, seq, ROWS), range(batch)):
        queries = slice(start, min(start + ROWS, seq))
        tokens = mask.key_range(row, queries, k.shape[2] - mask.mem_kv)
        first, last = (place + mask.mem_kv for place in (tokens.start, tokens.stop))
        keys: tuple[slice, ...] = (slice(0 if tokens.start == 0 else first, last),)
        if mask.mem_kv and tokens.start > 0:
            keys = (slice(0, mask.mem_kv), *keys)
        columns = tokens.stop - tokens.start + mask.mem_kv
        step = max(1, MOST_SCORES // (ROWS * max(1, columns))) if split else heads
        for head in range(0, heads, step):
            yield Tile(row, slice(head, min(head + step, heads)), queries, keys, tokens)


def band_of(tile: Tile, band: Tensor, mask: AttentionMask) -> Tensor:
    """The part of `band: (h, rows, seq + keys - 1)` that a tile's tokens read, (h', i', tokens)."""
    rows, shift = tile.queries.stop - tile.queries.start, mask.queries - 1 - tile.queries.start
    return band[tile.heads, :rows, tile.tokens.start + shift : tile.tokens.stop + shift]


KERNEL = Kernel("tiles", run, supports, declines)
