"""The residual block: norm, shift, the layer itself, stochastic depth, scale, and the add.

    pre-norm:   x ── norm ── shift ── layer ── drop ── ·scale ──(+)── y        (the first branch of x joins the add)
    post-norm:  x ── shift ── layer ── drop ── ·scale ──(+)── norm ── y

Owns the arithmetic around a layer. A block's module may run at several nodes (ties), so what differs by node,
its shift, scale and state, is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .cache import Slot
from .norms import norm
from .shift import shift_tokens


@dataclass(frozen=True)
class Use:
    """How one node runs its block."""

    shift: int = 0
    scale: float = 1.0
    causal: bool = False


class Residual(NamedTuple):
    """What a block gives.

    Attributes:
        stream: (batch, seq, dim) behind the block.
        gain: (batch, seq, dim) what it added to the stream; None with a post-norm, which does more than add.
        scores: what the layer gave beside its update, if that was asked for.
    """

    stream: Tensor
    gain: Tensor | None
    scores: Any


class Block(nn.Module):
    """A layer as a residual block. Whatever hooks on its call (sharding, checkpointing) sees every pass.

    Args:
        layer: called with x and the inputs its kind declares; returns the update, (batch, seq, dim).
        dim: features of the stream.
        norm_name: "layernorm" or "rmsnorm".
        pre_norm: norm before the layer (arXiv:2002.04745), else after the add (arXiv:1706.03762).
        drop: probability that a row skips the layer in training; the others are scaled up to keep the mean
            (stochastic depth, arXiv:1603.09382).
    """

    def __init__(self, layer: nn.Module, dim: int, norm_name: str, pre_norm: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.norm = norm(norm_name, dim)
        self.layer = layer
        self.pre_norm, self.drop = pre_norm, drop

    def forward(
        self,
        x: Tensor,
        use: Use | None = None,
        inputs: Mapping[str, Any] | None = None,
        mask: Tensor | None = None,
        cache: Slot | None = None,
        memory: Tensor | None = None,
    ) -> Residual:
        """
        Args:
            x: (batch, seq, dim)
            inputs: what the layer's kind declares.
            mask: (batch, memory + seq) bool, True = a real token; for the shift.
            cache: this node's state while decoding.
            memory: (batch, tokens, dim), the stream this node read in earlier segments.
        """
        use, inputs = use or Use(), dict(inputs or {})
        tokens = x if memory is None else torch.cat((memory.to(x.dtype), x), dim=1)
        hidden = self.norm(tokens) if self.pre_norm else tokens
        hidden = shift_tokens(hidden, use.shift, use.causal, mask, cache)
        past = tokens.shape[1] - x.shape[1]
        if "memory" in inputs:
            inputs["memory"] = hidden[:, :past] if past else None
        out = self.layer(hidden[:, past:], **inputs)
        update, scores = out if isinstance(out, tuple) else (out, None)
        if self.drop and self.training:
            kept = update.new_empty(update.shape[0], 1, 1).bernoulli_(1 - self.drop)
            update = update * (kept / (1 - self.drop))
        if use.scale != 1.0:
            update = update * use.scale
        if self.pre_norm:
            return Residual(x + update, update, scores)
        return Residual(self.norm(x + update), None, scores)
