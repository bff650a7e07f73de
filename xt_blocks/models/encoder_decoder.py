"""Two streams as one module, where the second does not write text: `(a f)*6 => (a c f)*6` of stacks alone, say.

For one that reads tokens and gives their logits, there is XTransformer, which trains it and generates with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from blockdsl.errors import UserError

from ..runtime.drawn import Drawn
from ..runtime.pretrained import Pretrained
from .lower import lower_stream

if TYPE_CHECKING:
    from typing_extensions import Self

    from blockdsl import BlockGraph


class EncoderDecoder(Drawn, Pretrained, nn.Module):
    """A stack or a model, and one whose cross-attention reads what it gives (Vaswani et al., arXiv:1706.03762).

    Args:
        graph: of two streams.

    Attributes:
        graph: a copy of it.
        encoder, decoder: the modules of its streams, as `lower` makes them.

    Raises:
        UserError: it has one stream.
        GraphError: it cannot be lowered; the message lists every fault.
    """

    def __init__(self, graph: BlockGraph) -> None:
        super().__init__()
        self.graph = graph.lint().copy()
        streams = self.graph.streams()
        if "encoder" not in streams:
            raise UserError("this graph has one stream, and EncoderDecoder is of two, as (a f)*6 => (a c f)*6 has")
        self.encoder, self.decoder = (lower_stream(streams[side]) for side in ("encoder", "decoder"))
        if graph.tie_token_emb:
            self.decoder.token_emb = self.encoder.token_emb

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        if {*graphs} != {""}:
            raise UserError(f"these are the graphs of {' and '.join(graphs)}; {cls.__name__} is made of one of both")
        return cls(graphs[""], **arguments)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        condition: Tensor | None = None,
        src_condition: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """
        Args:
            src: what the encoder reads: (batch, source, dim) for a stack, else tokens, vectors or images.
            tgt: what the decoder reads: (batch, target, dim) for a stack, else tokens or vectors.
            mask: (batch, source) bool, True = a real token; the decoder sees no padding either.
            tgt_mask: (batch, target) bool, True = a real token.
            condition: (batch, dim), for adaptive norms and layer scales of both; or (batch, target, dim), of each token
                that the decoder reads.
            src_condition: (batch, dim) or (batch, source, dim), the encoder's own, in place of `condition`.
            inputs: the decoder's others, as attn_mask or cache.

        Returns:
            what the decoder gives.

        Raises:
            ValueError: an argument has a wrong type or shape.
        """
        theirs, ours = conditions(self.encoder, self.decoder, condition, src_condition)
        context, context_mask = self.encode(src, mask, theirs)
        inputs |= {} if ours is None else {"condition": ours}
        return self.decoder(tgt, mask=tgt_mask, context=context, context_mask=context_mask, **inputs)

    def encode(
        self, src: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the decoder attends to: the encoded source (batch, places, dim) and its mask (batch, places)."""
        inputs = {} if condition is None else {"condition": condition}
        if mask is None:
            return self.encoder(src, **inputs), None
        places = getattr(self.encoder, "places_of", lambda mask: mask)
        return self.encoder(src, mask=mask, **inputs), places(mask)


def conditions(
    encoder: nn.Module, decoder: nn.Module, condition: Tensor | None, src_condition: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The conditions of the encoder and of the decoder; one that neither reads is the decoder's, which refuses it.

    Raises:
        ValueError: one of each token is given for both.
    """
    stacks: list[Any] = [getattr(net, "attn_layers", net) for net in (encoder, decoder)]
    theirs, ours = (stack.reads.condition for stack in stacks)
    if src_condition is not None or not theirs:
        return src_condition, condition
    if ours and condition is not None and condition.ndim == 3 and condition.shape[1] > 1:
        raise ValueError("condition is of each token that the decoder reads: give the encoder's as src_condition=")
    return condition, condition if ours else None
