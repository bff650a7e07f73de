"""Attention as its formula says: what kernels are held to. Nothing of it is the library's.

Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """What an attention is asked for.

    Attributes:
        queries, past: tokens of this call, and tokens before them whose keys there are.
        features, value_features: of a head.
        causal, window, future, mem_kv: no later token; so many before and after at most; learned keys in front that all see.
        padded: the second row starts with padding.
        attn_mask: a mask of every pair, under which some queries see nothing.
        bias: a number for each head and distance, with a gradient.
        documents: several in a row, of which each query sees its own.
        option: of attention's, one that changes scores or weights; what it does is not written out here.
    """

    queries: int = 700
    past: int = 0
    batch: int = 2
    heads: int = 4
    features: int = 64
    value_features: int = 64
    causal: bool = True
    window: int | None = None
    future: int | None = None
    mem_kv: int = 0
    padded: bool = False
    attn_mask: bool = False
    bias: bool = False
    documents: bool = False
    option: str | None = None

    @property
    def tokens(self) -> int:
        return self.past + self.queries

    @property
    def scale(self) -> float:
        return float(self.features**-0.5)

    def small(self) -> Case:
        """Fewer queries, and still enough for every kernel."""
        return replace(self, queries=min(self.queries, 260), heads=2, features=16, value_features=16)


@dataclass(frozen=True)
class Inputs:
    """Tensors of a case.

    Attributes:
        q, k, v: (b, h, i, d), (b, h, j, d), (b, h, j, dv)
        bias: (h, i + tokens - 1), from the last query's distance to the first token down to the first query's to the
            last; None: there is none.
        doc_ids: (b, tokens) int; mask: (b, tokens) bool; attn_mask: (1, 1, i, tokens) bool.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None = None
    mask: Tensor | None = None
    attn_mask: Tensor | None = None
    doc_ids: Tensor | None = None

    @classmethod
    def drawn(cls, case: Case, device: str) -> Inputs:
        """In float64."""
        c = case
        drawn = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=drawn, dtype=torch.float64).to(device)

        keys = c.mem_kv + c.tokens
        start = torch.zeros(c.batch, 1, dtype=torch.int64)
        start[1:] = 5
        seen = torch.rand(1, 1, c.queries, c.tokens, generator=drawn) < 0.7
        seen[..., ::9, :] = False
        return cls(
            normal(c.batch, c.heads, c.queries, c.features),
            normal(c.batch, c.heads, keys, c.features),
            normal(c.batch, c.heads, keys, c.value_features),
            normal(c.heads, c.queries + c.tokens - 1) if c.bias else None,
            (torch.arange(c.tokens) >= start).to(device) if c.padded else None,
            seen.to(device) if c.attn_mask else None,
            (torch.rand(c.batch, c.tokens, generator=drawn) < 0.01).cumsum(dim=1).to(device) if c.documents else None,
        )

    def to(self, dtype: torch.dtype, learns: bool) -> Inputs:
        """Of this type, each a leaf."""
        own = {name: x.detach().to(dtype, copy=True).requires_grad_(learns) for name, x in self.learned().items()}
        return replace(self, **own)

    def learned(self) -> dict[str, Tensor]:
        """Those that may have gradients."""
        every = {"q": self.q, "k": self.k, "v": self.v, "bias": self.bias}
        return {name: x for name, x in every.items() if x is not None}


def attention(case: Case, inputs: Inputs) -> Tensor:
    """(b, h, i, dv), every score written out, in the inputs' type."""
    x = inputs
    scores = (x.q * case.scale) @ x.k.transpose(-1, -2)
    place = torch.arange(case.past, case.tokens, device=x.q.device)[:, None]
    token = torch.arange(-case.mem_kv, case.tokens, device=x.q.device)[None]  # below 0: a learned key
    if x.bias is not None:
        distance = (token - place).clamp(min=1 - case.tokens) + case.tokens - 1
        scores = scores + torch.where(token < 0, 0, x.bias[:, distance])
    seen = seen_by(case, inputs, place, token)
    empty = ~seen.any(dim=-1, keepdim=True)
    weights = scores.masked_fill(~(seen | empty), float("-inf")).softmax(dim=-1).masked_fill(empty, 0.0)
    return weights @ x.v


def seen_by(case: Case, inputs: Inputs, place: Tensor, token: Tensor) -> Tensor:
    """(b or 1, 1, i, j) bool: which query, at `place: (i, 1)`, sees which key, at `token: (1, j)`."""
    seen = torch.ones_like(place * token, dtype=torch.bool)[None, None]
    if case.causal:
        seen = seen & (token <= place)
    if case.window is not None:
        seen = seen & (token >= place - case.window)
    if case.future is not None:
        seen = seen & (token <= place + case.future)
    for given in (None if inputs.mask is None else inputs.mask[:, None, None], inputs.attn_mask):
        if given is not None:
            seen = seen & F.pad(given, (case.mem_kv, 0), value=True)
    if inputs.doc_ids is not None:
        same = inputs.doc_ids[:, None, :, None] == inputs.doc_ids[:, None, None, :]
        seen = seen & F.pad(same, (case.mem_kv, 0), value=True)
    return seen | (token < 0)
