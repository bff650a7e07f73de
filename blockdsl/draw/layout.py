"""How a graph is laid out before it is drawn: chains, and parallel branches that meet in a sum.

A graph compiled from a pattern always has this shape. One edited into another (a block that reads two streams,
a stream read twice) has not, and is drawn as a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph import BlockGraph


@dataclass(frozen=True)
class Split:
    """Branches that start at one node and meet in `sum`; each is a chain."""

    branches: tuple[Chain, ...]
    sum: str


Chain = tuple["str | Split", ...]


def chain(graph: BlockGraph) -> Chain | None:
    """The graph from input to output (both left out), or None when it is not made of chains and branches."""
    readers: dict[str, list[str]] = {node: [] for node in graph.nx}
    bases: dict[str, str] = {}
    for node in graph.nx:
        sources = graph.sources(node, "stream")
        if len(sources) > 1 and graph.nx.nodes[node]["kind"] != "sum":
            return None
        for source in sources:
            readers[source].append(node)
        for base in graph.sources(node, "base"):
            if base in bases:
                return None
            bases[base] = node
    if len(set(bases.values())) != len(graph.nodes("sum")):
        return None
    return _walk(graph.nodes("input")[0], graph.nodes("output")[0], readers, bases)


def _walk(start: str, end: str, readers: dict[str, list[str]], bases: dict[str, str]) -> Chain | None:
    """What lies between two nodes, neither of them included."""
    out: list[str | Split] = []
    at = start
    while True:
        while at in bases:
            meet = bases[at]
            branches = []
            for first in readers[at]:
                rest = _walk(first, meet, readers, bases)
                if rest is None:
                    return None
                branches.append((first, *rest))
            out.append(Split(tuple(branches), meet))
            at = meet
        if len(readers[at]) != 1:
            return None
        at = readers[at][0]
        if at == end:
            return tuple(out)
        out.append(at)


def split_stages(graph: BlockGraph, items: Chain) -> list[tuple[int, Chain]]:
    """A chain cut where the stage changes."""
    out: list[tuple[int, list[str | Split]]] = []
    for item in items:
        stage = graph.nx.nodes[item.sum if isinstance(item, Split) else item]["stage"]
        if not out or out[-1][0] != stage:
            out.append((stage, []))
        out[-1][1].append(item)
    return [(stage, tuple(part)) for stage, part in out]
