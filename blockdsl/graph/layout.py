"""How a graph is laid out before it is drawn: chains, and parallel branches that meet in a sum.

A graph compiled from a pattern always has this shape. One edited into another (a block that reads two streams,
a stream read twice) has not, and is drawn as a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Graph


@dataclass(frozen=True)
class Split:
    """Branches that start at one node and meet in `sum`; each is a chain."""

    branches: tuple[Chain, ...]
    sum: str


Chain = tuple["str | Split", ...]


def chain(graph: Graph) -> Chain | None:
    """The graph from input to output (both left out), or None when it is not made of chains and branches."""
    ends = graph.sources(graph.end, "stream")
    return _back(graph, ends[0], graph.start, set()) if len(ends) == 1 else None


def _back(graph: Graph, end: str, start: str, seen: set[str]) -> Chain | None:
    """What lies between `start`, left out, and `end`. Walked backwards, where each node has one way to go."""
    out: list[str | Split] = []
    at = end
    while at != start:
        streams, bases = graph.sources(at, "stream"), graph.sources(at, "base")
        if at in seen or len(bases or streams) != 1:
            return None
        seen.add(at)
        if bases:
            branches = [_back(graph, stream, bases[0], seen) for stream in streams]
            if None in branches:
                return None
            out.append(Split(tuple(branch for branch in branches if branch is not None), at))
        elif graph.node_type(at) == "block":
            out.append(at)
        else:
            return None
        (at,) = bases or streams
    return tuple(reversed(out))


def split_stages(graph: Graph, items: Chain) -> list[tuple[int, Chain]]:
    """A chain cut where the stage changes."""
    out: list[tuple[int, list[str | Split]]] = []
    for item in items:
        stage = graph.nx.nodes[item.sum if isinstance(item, Split) else item]["stage"]
        if not out or out[-1][0] != stage:
            out.append((stage, []))
        out[-1][1].append(item)
    return [(stage, tuple(part)) for stage, part in out]
