"""Filters of logits under x-transformers' names and with its arguments."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch import Tensor

from ..generation.sampling import keep_min_p, keep_top_k, keep_top_p, probabilities


def top_k(
    logits: Tensor, frac_num_tokens: float | None = None, k: int | None = None, thres: float | None = None
) -> Tensor:
    """The likeliest tokens, others at -inf.

    Args:
        logits: (batch, tokens)
        frac_num_tokens: which share of the tokens stays, by default 0.1; the second argument of releases 2.x.
        k: how many stay.
        thres: which share goes; the second argument of releases 1.x.

    Raises:
        TypeError: two of them are given.
    """
    given = [
        name for name, value in (("frac_num_tokens", frac_num_tokens), ("k", k), ("thres", thres)) if value is not None
    ]
    if len(given) > 1:
        raise TypeError(f"top_k() got {' and '.join(given)}, which say the same; give one")
    if frac_num_tokens is not None and frac_num_tokens > 0.5:
        warnings.warn(
            f"top_k() keeps {frac_num_tokens:.0%} of the tokens, as release 2 of x-transformers does with these "
            f"arguments; release 1 drops them: write thres={frac_num_tokens}",
            stacklevel=2,
        )
    if k is None:
        share = 1 - thres if thres is not None else 0.1 if frac_num_tokens is None else frac_num_tokens
        k = max(1, ceil(share * logits.shape[-1]))
    return keep_top_k(logits, k)


def top_p(logits: Tensor, thres: float = 0.9) -> Tensor:
    """The fewest likeliest tokens that have the probability `thres` (nucleus sampling, arXiv:1904.09751)."""
    return keep_top_p(logits, thres)


def top_a(logits: Tensor, min_p_pow: float = 2.0, min_p_ratio: float = 0.02) -> Tensor:
    """Tokens with a probability of at least min_p_ratio · p_max^min_p_pow (top-a, github.com/BlinkDL/RWKV-LM)."""
    p = probabilities(logits)
    return logits.masked_fill(p < min_p_ratio * p.amax(dim=-1, keepdim=True) ** min_p_pow, float("-inf"))


def min_p(logits: Tensor, min_p: float = 0.1) -> Tensor:
    """Tokens with a probability of at least min_p · p_max (arXiv:2407.01082)."""
    return keep_min_p(logits, min_p)


FILTER_LOGITS_FN: dict[str, Callable[..., Tensor]] = {"top_p": top_p, "top_k": top_k, "top_a": top_a, "min_p": min_p}


def gumbel_noise(t: Tensor) -> Tensor:
    """Standard Gumbel noise of its shape."""
    return -torch.empty_like(t).exponential_().clamp(min=torch.finfo(t.dtype).tiny).log()


def gumbel_sample(logits: Tensor, temperature: float = 1.0, dim: int = -1, **kwargs: Any) -> Tensor:
    """A token of each row of `logits: (..., tokens)`, with the probability of softmax(logits / temperature)."""
    return (logits / max(temperature, 1e-10) + gumbel_noise(logits)).argmax(dim=dim)
