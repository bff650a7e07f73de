"""From block graph to torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.stack import Stack
from .transformer import TransformerWrapper

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def lower(graph: BlockGraph) -> Stack | TransformerWrapper:
    """The torch module that a graph says.

    Args:
        graph: from `blockdsl.compile`, and whatever was done to it since. It is copied.

    Returns:
        A Stack, `stack(x, context=..., mask=...)`; or, where the graph embeds tokens (`num_tokens` is set),
        the TransformerWrapper around one.

    Raises:
        GraphError: the graph cannot be lowered; the message lists every fault.
    """
    graph.lint()
    stack = Stack(graph.without_tokens())
    if graph.nx.nodes[graph.start]["num_tokens"] is None:
        return stack
    return TransformerWrapper(attn_layers=stack, **graph.token_options())
