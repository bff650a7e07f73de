"""From block graph to torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.stack import Stack
from .continuous import ContinuousTransformerWrapper
from .sequence import SequenceModel
from .transformer import TransformerWrapper
from .vision import ViTransformerWrapper

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def lower(graph: BlockGraph) -> Stack | SequenceModel | ViTransformerWrapper:
    """The torch module of a graph.

    Args:
        graph: from `blockdsl.compile`, perhaps edited. It is copied.

    Returns:
        A Stack, `stack(x, context=..., mask=...)`; or a model around one, by what the graph's input reads:
        a TransformerWrapper tokens (`num_tokens`), a ContinuousTransformerWrapper vectors (`dim_in`, `dim_out`), a
        ViTransformerWrapper images (`image_size`).

    Raises:
        TypeError: it is none.
        GraphError: the graph cannot be lowered; the message lists every fault.
    """
    if not hasattr(graph, "lint"):
        raise TypeError(f"lower takes a BlockGraph, as blockdsl.compile gives, not {type(graph).__name__}")
    stack = Stack(graph.lint().stack_alone())
    if graph.reads is None:
        return stack
    return MODELS[graph.reads](attn_layers=stack, **graph.model_options())


MODELS: dict[str, type[SequenceModel | ViTransformerWrapper]] = {
    "tokens": TransformerWrapper,
    "vectors": ContinuousTransformerWrapper,
    "images": ViTransformerWrapper,
}
"""What a graph's input reads → the class of its model."""
