"""Queries, keys and values: initial weights, heads, and the normalisation of queries and keys.

Axes: b batch, n tokens, m sources, h heads, g key-value heads, d features of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.norms import Norm

from .init import xavier
from .linear_rows import LinearParts
from .norms import OffsetRMSNorm, RMSNorm, norm
from .part import LayerPart


def projection(dim: int, sizes: Sequence[int], biases: Sequence[bool]) -> nn.Linear | LinearParts:
    """One linear layer for parts of these sizes, or one a part where not all have a bias."""
    parts = [(size, bias) for size, bias in zip(sizes, biases, strict=True) if size]
    if len({bias for _, bias in parts}) > 1:
        return LinearParts(nn.Linear(dim, size, bias=bias) for size, bias in parts)
    return nn.Linear(dim, sum(sizes), bias=biases[0])


def init_parts(layer: nn.Linear | LinearParts, sizes: Sequence[int], gain: float) -> None:
    """Xavier normal rows, each part as its own matrix; the last non-empty part is the values, with this gain."""
    layers = [*layer.parts] if isinstance(layer, LinearParts) else [layer]
    weights = [own.weight.detach() for own in layers]
    parts = weights if len(weights) > 1 else [part for part in torch.split(weights[0], list(sizes)) if len(part)]
    for part in parts[:-1]:
        xavier(part)
    xavier(parts[-1], gain=gain)
    for own in layers:
        if own.bias is not None:
            nn.init.zeros_(own.bias)


class QKNorm(nn.Module):
    """Queries and keys of unit length, so that a score is a cosine (Henry et al., arXiv:2010.04245).

    With `qk_norm_groups` groups of features, a score is bounded by their number. `qk_norm_dim_scale` learns a gain
    for each feature (Dehghani et al., arXiv:2302.05442).

    Args:
        o: the options of an attention block.
        keys: whether it norms keys, too.
    """

    def __init__(self, o: Any, keys: bool = True) -> None:
        super().__init__()
        self.groups = o.qk_norm_groups
        scaled = o.qk_norm_dim_scale
        self.q_scale = nn.Parameter(torch.ones(o.heads, 1, o.dim_head)) if scaled else None
        self.k_scale = nn.Parameter(torch.ones(o.kv_heads, 1, o.dim_head)) if scaled and keys else None

    def forward(self, x: Tensor, keys: bool) -> Tensor:
        """Queries (b, h, n, d), or keys (b, g, m, d) or (g, m, d) → the same shape."""
        return _unit(x, self.groups, self.k_scale if keys else self.q_scale)


class GainedQKNorm(nn.Module):
    """RMSNorm or LayerNorm of queries and keys, or of keys alone, with learned gains.

    By `qk_rmsnorm`, `k_rmsnorm` or `qk_layernorm`.

    The features of a head are normed, or with "all" those of all heads as one (OLMo 2, arXiv:2501.00656).

    Args:
        o: the options of an attention block.
        keys: whether it norms keys, too.
    """

    def __init__(self, o: Any, keys: bool = True) -> None:
        super().__init__()
        which = "each" if o.k_rmsnorm else o.qk_rmsnorm or o.qk_layernorm
        name, eps = ("layernorm", o.qk_layernorm_eps) if o.qk_layernorm else ("rmsnorm", o.qk_rmsnorm_eps)
        spec = Norm(name, float(eps), bias=name == "layernorm" and which == "head", unit_offset=o.norm_unit_offset)
        self.all_heads = which == "all"
        q, k = (
            EachHeadNorm(spec, heads, o.dim_head)
            if which == "each"
            else norm(spec, o.dim_head * (heads if which == "all" else 1))
            for heads in (o.heads, o.kv_heads)
        )
        self.q, self.k = None if o.k_rmsnorm else q, k if keys else None

    def take_part(self, part: LayerPart) -> None:
        """Norm the features of all heads, of which these are a part."""
        if self.all_heads:
            for own in (self.q, self.k):
                if isinstance(own, RMSNorm | OffsetRMSNorm):
                    own.part = part

    def forward(self, x: Tensor, keys: bool) -> Tensor:
        """Queries (b, h, n, d), or keys (b, g, m, d) or (g, m, d) → the same shape."""
        own = self.k if keys else self.q
        if own is None:
            return x
        if not self.all_heads:
            return own(x)
        tokens = x.transpose(-3, -2)
        return own(tokens.flatten(-2)).view(tokens.shape).transpose(-3, -2)


class EachHeadNorm(nn.Module):
    """A norm of each head's features with a gain of its own, `weight: (heads, d)`."""

    def __init__(self, spec: Norm, heads: int, features: int) -> None:
        super().__init__()
        self.norm = norm(replace(spec, gain=False, bias=False, unit_offset=False), features)
        self.unit_offset = spec.unit_offset
        self.weight = nn.Parameter(torch.full((heads, features), 1.0 - spec.unit_offset))

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., heads, tokens, d)` → the same shape."""
        gain = self.weight + 1 if self.unit_offset else self.weight
        return self.norm(x) * gain[:, None]


def value_norm(o: Any) -> EachHeadNorm:
    """The option `value_rmsnorm`, of an attention block's options."""
    spec = Norm("rmsnorm", float(o.qk_rmsnorm_eps), unit_offset=o.norm_unit_offset)
    return EachHeadNorm(spec, o.kv_heads, o.value_dim_head)


def _unit(x: Tensor, groups: int, gain: Tensor | None) -> Tensor:
    parts = x.view(*x.shape[:-1], groups, x.shape[-1] // groups)
    unit = F.normalize(parts, dim=-1).flatten(-2)
    return unit if gain is None else unit * gain


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(b, n, h·d) → (b, h, n, d)."""
    batch, seq, features = x.shape
    return x.view(batch, seq, heads, features // heads).transpose(1, 2)
