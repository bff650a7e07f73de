"""One vector of a sequence of embeddings: the mean, the first, both, or what a learned query attends to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks.attention import CrossAttention
from ..blocks.feedforward import FeedForward


def pooled(x: Tensor, mask: Tensor | None, how: str) -> Tensor:
    """One vector of each sequence's real tokens.

    Args:
        x: (batch, seq, dim)
        mask: (batch, seq) bool, True = a real token; None: all are.
        how: "mean", "first" or "last". A row without a real token has its first place.

    Returns:
        (batch, dim)
    """
    if mask is None:
        return x.mean(dim=1) if how == "mean" else x[:, 0 if how == "first" else -1]
    if how == "mean":
        shares = mask.to(x.dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("bs, bsd -> bd", shares, x)
    order = (
        mask.int()
        if how == "first"
        else mask.int() * torch.arange(mask.shape[1], device=mask.device, dtype=torch.int64)
    )
    return x.take_along_dim(order.argmax(dim=1)[:, None, None], dim=1)[:, 0]


def at_end(x: Tensor, tokens: Tensor, end_token: int | None) -> Tensor:
    """The vector of each sequence where its text ends.

    Args:
        x: (batch, seq, dim)
        tokens: (batch, seq) int
        end_token: at its first place; a row without it has its first token. None: at the highest token.

    Returns:
        (batch, dim)
    """
    found = tokens if end_token is None else (tokens == end_token).int()
    return x.take_along_dim(found.argmax(dim=1)[:, None, None], dim=1)[:, 0]


class AttentionPool(nn.Module):
    """Learned queries that attend to all tokens, and a feedforward after it (Zhai et al., arXiv:2106.04560).

        query ── attention to the tokens ──┬── norm ── feedforward ──(+)── vector
                                           └─────────────────────────┘

    Args:
        dim: features of a token.
        norm: of `dim` features, before the feedforward.
        blocks: the options of attention and, if there is one, of the feedforward, by kind, as `tokens.pool_attention`
            gives them.
        queries: how many.
    """

    def __init__(self, dim: int, norm: nn.Module, blocks: Mapping[str, Mapping[str, Any]], queries: int = 1) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, dim) * dim**-0.5)
        self.attention = CrossAttention(dim, **blocks["c"])
        self.norm = norm if "f" in blocks else None
        self.feedforward = FeedForward(dim, **blocks["f"]) if "f" in blocks else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x: (batch, seq, dim)`, `mask: (batch, seq)` bool → (batch, dim), or of several queries (batch, n, dim)."""
        seen: Tensor = self.attention(self.query.expand(x.shape[0], -1, -1), context=x, context_mask=mask)
        if self.feedforward is not None and self.norm is not None:
            seen = seen + self.feedforward(self.norm(seen))
        return one_or_more(seen)


def one_or_more(vectors: Tensor) -> Tensor:
    """(batch, n, dim), or (batch, dim) of a single one."""
    return vectors[:, 0] if vectors.shape[1] == 1 else vectors


class Pool(nn.Module):
    """One vector of a sequence.

    Args:
        how: "mean", "first", "first_mean" or "attention".
        attention: what makes it where `how` says so.
        skipped: tokens in front that the mean leaves out, as a class token.
    """

    def __init__(self, how: str, attention: AttentionPool | None = None, skipped: int = 0) -> None:
        super().__init__()
        self.how, self.skipped, self.attention = how, skipped, attention

    def forward(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, dim)` → (batch, dim), or (batch, 2 · dim), the first and the mean."""
        if self.attention is not None:
            return self.attention(x)
        parts = [x[:, 0]] if self.how != "mean" else []
        parts += [x[:, self.skipped :].mean(dim=1)] if self.how != "first" else []
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
