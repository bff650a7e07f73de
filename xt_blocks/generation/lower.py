"""From block graph to torch module, of one stream or of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..models.encoder_decoder import EncoderDecoder
from ..models.lower import lower_stream
from ..models.sequence import SequenceModel
from ..models.vision import ViTransformerWrapper
from ..runtime.stack import Stack
from .seq2seq import XTransformer

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def lower(graph: BlockGraph) -> Stack | SequenceModel | ViTransformerWrapper | XTransformer | EncoderDecoder:
    """The torch module of a graph.

    Args:
        graph: from `blockdsl.compile`, perhaps edited. It is copied.

    Returns:
        A Stack, `stack(x, context=..., mask=...)`; or a model around one, by what the graph's input reads:
        a TransformerWrapper tokens (`num_tokens`), a ContinuousTransformerWrapper vectors (`dim_in`, `dim_out`), a
        ViTransformerWrapper images (`image_size`). Of two streams, `(a f)*6 => (a c f)*6`, an XTransformer where the
        second writes tokens and the first reads tokens, vectors or images, else an EncoderDecoder.

    Raises:
        TypeError: it is none.
        GraphError: the graph cannot be lowered; the message lists every fault.
    """
    if not hasattr(graph, "lint"):
        raise TypeError(f"lower takes a BlockGraph, as blockdsl.compile gives, not {type(graph).__name__}")
    streams = graph.lint().streams()
    if "" in streams:
        return lower_stream(graph)
    if writes_text(graph):
        return XTransformer.from_graphs({"": graph})
    return EncoderDecoder(graph)


def writes_text(graph: BlockGraph) -> bool:
    """Whether the second of two streams is one that generates tokens, from tokens, vectors or images."""
    writes = graph.reads == "tokens" and graph.nx.nodes[graph.end]["logits_dim"] is not None and graph.causal
    return writes and graph.encoder is not None and graph.encoder.reads is not None
