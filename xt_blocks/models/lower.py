"""From the block graph of one stream to its torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.stack import Stack
from .continuous import ContinuousTransformerWrapper
from .sequence import SequenceModel
from .transformer import TransformerWrapper
from .vision import ViTransformerWrapper

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def lower_stream(graph: BlockGraph) -> Stack | SequenceModel | ViTransformerWrapper:
    """A Stack, or the model around one that the graph's input says.

    Raises:
        GraphError: the graph cannot be lowered; the message lists every fault.
    """
    return model_around(Stack(graph.lint().stack_alone()), graph)


def model_around(stack: Stack, graph: BlockGraph) -> Stack | SequenceModel | ViTransformerWrapper:
    """The model around a stack that the graph's input says, or the stack itself."""
    if graph.reads is None:
        return stack
    return MODELS[graph.reads](attn_layers=stack, **graph.model_options())


MODELS: dict[str, type[SequenceModel | ViTransformerWrapper]] = {
    "tokens": TransformerWrapper,
    "vectors": ContinuousTransformerWrapper,
    "images": ViTransformerWrapper,
}
"""What a graph's input reads → the class of its model."""
