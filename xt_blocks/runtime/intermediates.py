"""Intermediate results of a forward pass, for inspection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from ..kernels.request import Scores
    from .cache import Cache
    from .inputs import ForwardInputs
    from .memories import Memories
    from .sequence import SequenceState


@dataclass
class Intermediates:
    """Filled by a forward pass that gets it.

    Handed to a later pass as its `cache=`, they stand for the tokens of this one: see `by_hand`.

    Args:
        keep_attention: keep scores and weights too; every attention is then computed by the explicit kernel.

    Attributes:
        streams: block's node → (batch, seq, dim), the stream it read, in the order they ran.
        contexts: the streams at earlier nodes that blocks attend to, (batch, seq, dim), as memories name them.
        last: (batch, seq, dim) the stream after the last block, before the final norm.
        attention: node of an attention block → its Scores: `before` the softmax (with position biases, before masking)
            and the `weights` after it, each (batch, heads, seq, keys).
        statistics: node → what its layer counted, by name, if its kind does.
        states: node → its pieces of constant size after the pass, (batch, *shape) each, if its kind has any.
        mems: the memories after this pass, if requested.
        attends: the nodes of self-attention, in the order they ran.
        memory_tokens: (batch, memory, dim), what the stack made of the model's memory tokens, if it has any.
        inputs: what the stack was given.
        condition: (batch, 1 or seq, features), as adaptive norms and layer scales read it.
        value_embeds: by number, (batch, seq, features), as blocks read them.
        given: what the first of several passes by hand was given and later ones do not read, by name.
        tokens: places of the stream so far, without those of mems.
        sequence: the tokens so far, of a model over tokens or vectors.
        cache: of these tokens, once a later step by hand has needed it.
    """

    keep_attention: bool = False
    streams: dict[str, Tensor] = field(default_factory=dict)
    contexts: dict[str, Tensor] = field(default_factory=dict)
    last: Tensor | None = None
    attention: dict[str, Scores] = field(default_factory=dict)
    statistics: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    mems: Memories | None = None
    attends: list[str] = field(default_factory=list)
    memory_tokens: Tensor | None = None
    tokens: int = 0
    inputs: ForwardInputs | None = field(default=None, repr=False)
    condition: Tensor | None = field(default=None, repr=False)
    value_embeds: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    given: dict[str, Any] = field(default_factory=dict, repr=False)
    sequence: SequenceState | None = field(default=None, repr=False)
    cache: Cache | None = field(default=None, repr=False)

    @property
    def hiddens(self) -> list[Tensor]:
        """What each self-attention read, (batch, seq, dim)."""
        return [self.streams[node] for node in self.attends]

    @property
    def layer_hiddens(self) -> list[Tensor]:
        """What each block read, and the stream after the last one, (batch, seq, dim)."""
        return [*self.streams.values(), *([] if self.last is None else [self.last])]

    @property
    def attn_intermediates(self) -> list[Scores]:
        """The scores and weights of each attention in order, cross-attention too."""
        return [*self.attention.values()]

    @property
    def attn_maps(self) -> list[Tensor]:
        """The weights of each attention in order, (batch, heads, seq, keys)."""
        return [scores.weights for scores in self.attention.values()]
