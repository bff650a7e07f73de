"""What a rule finds: a sentence that starts with the node it is about, and the call that mends it, of a graph `g`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...registry.options import plain
from ..graph import Graph
from ..nodes import carried


class Finding(NamedTuple):
    """
    Attributes:
        problem: what is wrong.
        mend: what to type for it, where one call is likely to be meant.
    """

    problem: str
    mend: str = ""

    def __str__(self) -> str:
        return "\n    ".join(filter(None, self))


def set_attribute(node: Any, name: str, value: Any) -> str:
    return f"g.nx.nodes[{node!r}][{name!r}] = {plain(value)!r}"


def set_option(node: str, name: str, value: Any) -> str:
    return f"g.nx.nodes[{node!r}]['options'][{name!r}] = {plain(value)!r}"


def connect(graph: Graph, source: str, target: str, carries: str = "stream") -> str:
    """Add an edge, or this to what one carries."""
    if graph.nx.has_edge(source, target) and (before := carried(graph.nx.edges[source, target])):
        return f"g.nx.edges[{source!r}, {target!r}]['carries'] = {(*before, carries)!r}"
    return f"g.nx.add_edge({source!r}, {target!r}{f', carries={carries!r}' if carries != 'stream' else ''})"


def disconnect(graph: Graph, source: Any, target: Any, carries: str) -> str:
    """Take this from what an edge carries, or the edge away."""
    if left := tuple(each for each in carried(graph.nx.edges[source, target]) if each != carries):
        return f"g.nx.edges[{source!r}, {target!r}]['carries'] = {left!r}"
    return f"g.nx.remove_edge({source!r}, {target!r})"


def take_out(node: Any) -> str:
    return f"g.nx.remove_node({node!r})"
