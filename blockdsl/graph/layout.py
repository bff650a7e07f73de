"""How a graph is laid out before it is drawn: chains, and parallel branches that meet in a sum.

A graph compiled from a pattern always has this shape, and so has one with skips: streams of earlier nodes that a later
one adds to its own. One edited into another (a block that reads two streams of unlike branches) has not, and is drawn
as nodes in layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    from .graph import Graph


@dataclass(frozen=True)
class Branching:
    """Branches that start at one node and meet in `sum`; each is a chain."""

    branches: tuple[Chain, ...]
    sum: str


Chain = tuple["str | Branching", ...]


def chain(graph: Graph) -> Chain | None:
    """The graph from input to output (both left out), or None when it is not made of chains and branches.

    Its elements are blocks, reads and branches. Where a node has several streams, the latest is that of the chain.
    """
    return _Walk(graph).chain()


class _Walk:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.seen: set[str] = set()

    def chain(self) -> Chain | None:
        graph = self.graph
        if not graph.sources(graph.end, "stream"):
            return None
        found = self._back(self._latest(graph.end), graph.start)
        nodes = self.seen | {graph.start}
        streams = (s for n in (*self.seen, graph.end) for what in ("stream", "read") for s in graph.sources(n, what))
        return found if found is not None and all(source in nodes for source in streams) else None

    def _latest(self, node: str) -> str:
        streams = self.graph.sources(node, "stream")
        return streams[0] if len(streams) == 1 else max(streams, key=self._place.__getitem__)

    @cached_property
    def _place(self) -> dict[str, int]:
        order = self.graph.order() if nx.is_directed_acyclic_graph(self.graph.nx) else self.graph.nx
        return {node: i for i, node in enumerate(order)}

    def _back(self, end: str, start: str) -> Chain | None:
        """What lies between `start`, left out, and `end`. Walked backwards, where each node has one way to go."""
        graph = self.graph
        out: list[str | Branching] = []
        at = end
        while at != start:
            streams, bases = graph.sources(at, "stream"), graph.sources(at, "base")
            if at in self.seen or not streams or len(bases) > 1:
                return None
            self.seen.add(at)
            if bases:
                branches = [self._back(stream, bases[0]) for stream in streams]
                if None in branches:
                    return None
                out.append(Branching(tuple(branch for branch in branches if branch is not None), at))
                at = bases[0]
            elif graph.node_type(at) in ("block", "read"):
                out.append(at)
                at = self._latest(at)
            else:
                return None
        return tuple(reversed(out))


def blocks_of(items: Chain) -> Iterator[str]:
    """The blocks of a chain, branches one after another."""
    for item in items:
        if isinstance(item, str):
            yield item
        else:
            for branch in item.branches:
                yield from blocks_of(branch)


def split_stages(graph: Graph, items: Chain) -> list[tuple[int, Chain]]:
    """A chain cut where the stage changes."""
    out: list[tuple[int, list[str | Branching]]] = []
    for item in items:
        stage = graph.nx.nodes[item.sum if isinstance(item, Branching) else item]["stage"]
        if not out or out[-1][0] != stage:
            out.append((stage, []))
        out[-1][1].append(item)
    return [(stage, tuple(part)) for stage, part in out]
