"""How far back decoding keeps keys and values: blocks with a window need no more than it reaches.

Owns the rule, for the bytes that a graph counts and for the cache that a lowered stack allocates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry.kinds import kind_of

if TYPE_CHECKING:
    from .graph import Graph

SLACK = 64
"""Tokens there is room for beside a window: it is moved to the front of its room once in so many."""


def windows(graph: Graph) -> dict[str, int]:
    """Block → how many tokens before a step's own its cache keeps; a block that keeps all is left out.

    Blocks that hand scores on to each other keep alike, as much as the one that sees farthest: their scores are added.
    """
    chains = {node: [node] for node in graph.nodes("block")}
    for node in [*chains]:
        for source in graph.sources(node, "scores"):
            fewer, more = sorted((chains[node], chains[source]), key=len)
            if fewer is not more:
                more += fewer
                chains |= dict.fromkeys(fewer, more)
    out: dict[str, int] = {}
    for chain in {id(chain): chain for chain in chains.values()}.values():
        reach = [_window(graph, node) for node in chain]
        known = [tokens for tokens in reach if tokens is not None]
        if len(known) == len(reach):
            out |= dict.fromkeys(chain, max(known))
    return out


def _window(graph: Graph, node: str) -> int | None:
    attrs = graph.nx.nodes[node]
    kind = kind_of(attrs["kind"])
    return kind.window(kind.completed(graph.dim, attrs["options"]))


def room(window: int | None, tokens: int) -> int:
    """Tokens that a block with this window has room for, to decode so many."""
    return tokens if window is None else min(tokens, window + SLACK)
