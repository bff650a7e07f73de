"""Attention as its formulas say, each option in a line or two: what kernels are held to.

Nothing of it is the library's. Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """What an attention is asked for.

    Attributes:
        queries, past: tokens of this call, and tokens before them whose keys there are.
        features, value_features: of a head.
        causal, window, memories: no later token; so many before at most; learned keys in front that all see.
        padded: the second row starts with padding.
        pairs: a mask of every pair, under which some queries see nothing.
        bias: a number for each head and distance, with a gradient.
        softcap: scores are c·tanh(score / c), Gemma 2, arXiv:2408.00118.
        sink: a learned logit a head beside the keys' in the softmax, whose weight goes nowhere.
        talking_heads, sparse_topk: see Shazeer et al., arXiv:2003.02436, and Zhao et al., arXiv:1912.11637.
    """

    queries: int = 700
    past: int = 0
    batch: int = 2
    heads: int = 4
    features: int = 64
    value_features: int = 64
    causal: bool = True
    window: int | None = None
    memories: int = 0
    padded: bool = False
    pairs: bool = False
    bias: bool = False
    softcap: float | None = None
    sink: bool = False
    talking_heads: bool = False
    sparse_topk: int | None = None

    @property
    def tokens(self) -> int:
        return self.past + self.queries

    @property
    def scale(self) -> float:
        return float(self.features**-0.5)

    def small(self) -> Case:
        """Fewer queries, and still enough for every kernel."""
        return replace(
            self, queries=min(self.queries, 260), heads=2, features=16, value_features=16, window=self.window
        )


@dataclass(frozen=True)
class Inputs:
    """Tensors of a case.

    Attributes:
        q, k, v: (b, h, i, d), (b, h, j, d), (b, h, j, dv)
        bias: (h, i + tokens - 1), from the last query's distance to the first token down to the first query's to the
            last; None: there is none.
        before, after: (h, h), how heads mix before and after the softmax.
        sink: (h,) logits.
        mask: (b, tokens) bool; pairs: (1, 1, i, tokens) bool.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None = None
    before: Tensor | None = None
    after: Tensor | None = None
    sink: Tensor | None = None
    mask: Tensor | None = None
    pairs: Tensor | None = None

    @classmethod
    def drawn(cls, case: Case, device: str) -> Inputs:
        """In float64."""
        c = case
        drawn = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=drawn, dtype=torch.float64).to(device)

        keys = c.memories + c.tokens
        start = torch.zeros(c.batch, 1, dtype=torch.int64)
        start[1:] = 5
        pairs = torch.rand(1, 1, c.queries, c.tokens, generator=drawn) < 0.7
        pairs[..., ::9, :] = False
        return cls(
            normal(c.batch, c.heads, c.queries, c.features),
            normal(c.batch, c.heads, keys, c.features),
            normal(c.batch, c.heads, keys, c.value_features),
            normal(c.heads, c.queries + c.tokens - 1) if c.bias else None,
            normal(c.heads, c.heads) if c.talking_heads else None,
            normal(c.heads, c.heads) if c.talking_heads else None,
            normal(c.heads) if c.sink else None,
            (torch.arange(c.tokens) >= start).to(device) if c.padded else None,
            pairs.to(device) if c.pairs else None,
        )

    def to(self, dtype: torch.dtype) -> Inputs:
        """Of this type, each that learns a leaf."""

        return replace(self, **{name: nn.Parameter(x.detach().to(dtype)) for name, x in self.learned().items()})

    def learned(self) -> dict[str, Tensor]:
        """Those that have gradients."""
        every = {name: getattr(self, name) for name in ("q", "k", "v", "bias", "before", "after", "sink")}
        return {name: x for name, x in every.items() if x is not None}


def attention(case: Case, inputs: Inputs) -> Tensor:
    """(b, h, i, dv), every score written out, in the inputs' type."""
    x = inputs
    scores = (x.q * case.scale) @ x.k.transpose(-1, -2)
    if x.before is not None:
        scores = torch.einsum("gh, bhij -> bgij", x.before, scores)
    if case.softcap is not None:
        scores = case.softcap * (scores / case.softcap).tanh()
    place = torch.arange(case.past, case.tokens, device=x.q.device)[:, None]
    token = torch.arange(-case.memories, case.tokens, device=x.q.device)[None]  # below 0: a memory
    if x.bias is not None:
        distance = (token - place).clamp(min=1 - case.tokens) + case.tokens - 1
        scores = scores + torch.where(token < 0, 0, x.bias[:, distance])
    seen = seen_by(case, inputs, place, token)
    scores = scores.masked_fill(~seen, float("-inf"))
    if case.sparse_topk is not None and case.sparse_topk < scores.shape[-1]:
        kept = torch.zeros_like(scores, dtype=torch.bool)
        scores = scores.masked_fill(~kept.scatter(-1, scores.topk(case.sparse_topk).indices, True), float("-inf"))
    empty = ~seen.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(empty, 0.0)
    if x.sink is not None:
        scores = torch.cat((scores, x.sink[:, None, None].expand(*scores.shape[:3], 1)), dim=-1)
    weights = scores.softmax(dim=-1)[..., : x.k.shape[2]].masked_fill(empty, 0.0)
    if x.after is not None:
        weights = torch.einsum("gh, bhij -> bgij", x.after, weights)
    return weights @ x.v


def seen_by(case: Case, inputs: Inputs, place: Tensor, token: Tensor) -> Tensor:
    """(b or 1, 1, i, j) bool: which query, at `place: (i, 1)`, sees which key, at `token: (1, j)`."""
    seen = torch.ones_like(place * token, dtype=torch.bool)[None, None]
    if case.causal:
        seen = seen & (token <= place)
    if case.window is not None:
        seen = seen & (token >= place - case.window)
    for given in (None if inputs.mask is None else inputs.mask[:, None, None], inputs.pairs):
        if given is not None:
            seen = seen & torch.nn.functional.pad(given, (case.memories, 0), value=True)
    return seen | (token < 0)
