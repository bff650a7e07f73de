"""Intermediate results of a forward pass, for inspection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ..kernels.request import Scores
    from .memories import Memories


@dataclass
class Intermediates:
    """Filled by a forward pass that gets it.

    Args:
        keep_attention: keep scores and weights too; every attention is then computed by the explicit kernel.

    Attributes:
        streams: block's node → (batch, seq, dim), the stream it read, in the order they ran.
        last: (batch, seq, dim) the stream after the last block, before the final norm.
        attention: node of an attention block → its Scores: `before` the softmax (with position biases, before masking)
            and the `weights` after it, each (batch, heads, seq, keys).
        states: node → its pieces of constant size after the pass, (batch, *shape) each, if its kind has any.
        mems: the memories after this pass, if requested.
    """

    keep_attention: bool = False
    streams: dict[str, Tensor] = field(default_factory=dict)
    last: Tensor | None = None
    attention: dict[str, Scores] = field(default_factory=dict)
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    mems: Memories | None = None

    @property
    def hiddens(self) -> list[Tensor]:
        """The streams in order, and the one after the last block."""
        return [*self.streams.values(), *([] if self.last is None else [self.last])]

    @property
    def attn_maps(self) -> list[Tensor]:
        """The weights of each attention in order, (batch, heads, seq, keys)."""
        return [scores.weights for scores in self.attention.values()]
