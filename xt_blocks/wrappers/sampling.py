"""From logits to the next token."""

from __future__ import annotations

import torch
from torch import Tensor


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each row, k of them among equals too; the others become -inf.

    Args:
        logits: (batch, tokens)
    """
    if k < 1:
        raise ValueError(f"top_k must be at least 1, not {k}")
    kept = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The smallest set of most likely tokens with a mass of at least p (nucleus sampling, arXiv:1904.09751).

    Args:
        logits: (batch, tokens)
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {p}")
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(drop, float("-inf"))


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token a row.

    Args:
        logits: (batch, tokens)
        temperature: 0 is the most likely token.

    Returns:
        (batch,) int64
    """
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, not {temperature}")
    logits = logits.float()
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # from 0 down, where no division overflows
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(-1)
