"""The residual block: norm, shift, the layer itself, stochastic depth, scale, and the add.

    pre-norm:   x ── norm ── shift ── layer ── drop ── ·scale ──(+)── y        (the first branch of x joins the add)
    post-norm:  x ── shift ── layer ── drop ── ·scale ──(+)── norm ── y

Owns the arithmetic around a layer. A block's module may run at several nodes (ties), so what differs by node,
its shift, scale and state, is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


class Block(nn.Module):
    """A layer as a residual block.

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

    def branch(
        self, x: Tensor, use: Use, inputs: Mapping[str, Any], mask: Tensor | None, cache: Slot | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the block adds to `x: (batch, seq, dim)` (before a post-norm), and the scores if they were asked for."""
        hidden = self.norm(x) if self.pre_norm else x
        hidden = shift_tokens(hidden, use.shift, use.causal, mask, cache)
        out = self.layer(hidden, **inputs)
        update, scores = out if isinstance(out, tuple) else (out, None)
        if self.drop and self.training:
            kept = update.new_empty(update.shape[0], 1, 1).bernoulli_(1 - self.drop)
            update = update * (kept / (1 - self.drop))
        return (update if use.scale == 1.0 else update * use.scale), scores

    def add(self, x: Tensor, update: Tensor) -> Tensor:
        """The stream after the block."""
        return x + update if self.pre_norm else self.norm(x + update)

    def forward(self, x: Tensor, use: Use | None = None, **inputs: Any) -> Tensor:
        """`x: (batch, seq, dim)` → (batch, seq, dim): the block on its own."""
        return self.add(x, self.branch(x, use or Use(), inputs, None, None)[0])
