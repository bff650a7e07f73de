"""How a graph is laid out before it is drawn: chains, and parallel branches that meet in a sum.

A graph compiled from a pattern always has this shape, and so has one with skips: streams of earlier nodes that a later
one adds to its own. One edited into another has ways beside its main one, `Side`, and sums by themselves, whose
branches begin elsewhere. Only what has no stream at all is drawn as nodes in layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx

from .nodes import carried

if TYPE_CHECKING:
    from .graph import Graph


@dataclass(frozen=True)
class Branching:
    """Branches that start at one node and meet in `sum`; each is a chain."""

    branches: tuple[Chain, ...]
    sum: str


@dataclass(frozen=True)
class Side:
    """A way of the stream that leaves the main one at the node before it; later ones may add what it ends in."""

    chain: Chain


Chain = tuple["str | Branching | Side", ...]


def whole_chain(graph: Graph) -> Chain | None:
    """Every block, read and sum once, on ways of the stream, the main one from the input to the output.

    A sum is an item by itself where none of its branches begins at its base, or where it has no base. Where a graph has
    gaps, an item may stand after one that it does not read. None: nothing in the graph reads a stream.
    """
    return _Walk(graph).whole()


def chain(graph: Graph) -> Chain | None:
    """The graph from input to output (both left out), or None when it is not made of chains and branches.

    Its elements are blocks, reads and branches. Where a node has several streams, the latest is that of the chain.
    """
    return _Walk(graph).chain()


class _Walk:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.seen: set[str] = set()
        self.ways: dict[str, list[list[str | Branching]]] = {}  # beside the main one, by the node that each leaves

    def chain(self) -> Chain | None:
        graph = self.graph
        if not graph.sources(graph.end, "stream"):
            return None
        found = self._back(self._latest(graph.end), graph.start)
        nodes = self.seen | {graph.start}
        streams = (s for n in (*self.seen, graph.end) for what in ("stream", "read") for s in graph.sources(n, what))
        return found if found is not None and all(source in nodes for source in streams) else None

    def whole(self) -> Chain | None:
        graph = self.graph
        if not any("stream" in carried(edge) for _, _, edge in graph.nx.edges(data=True)):
            return None
        self.seen.add(graph.start)
        left = [node for node in self._place if graph.node_type(node) in ("block", "read", "sum")]
        main, at = self._way(self._before(graph.end))
        while end := self._last(left):
            way, start = self._way(end)
            if at is None and start in (None, graph.start):  # one part more of the main way, which has a gap after it
                main, at = [*way, *main], start
            else:
                self.ways.setdefault(start or graph.start, []).append(way)
        return (*self._sides(graph.start), *self._with_sides(main))

    def _last(self, left: list[str]) -> str | None:
        """The last node that is on no way, of those that were not before; the others go out of the list."""
        while left and left[-1] in self.seen:
            left.pop()
        return left[-1] if left else None

    def _way(self, end: str | None, base: str | None = None) -> tuple[list[str | Branching], str | None]:
        """What leads to `end`, itself included, and where that begins: a node that is on a way already, or nowhere.

        Args:
            base: it begins there at the latest, or before that.
        """
        out: list[str | Branching] = []
        at = end
        first = -1 if base is None else self._place[base]
        while at is not None and at != base and at not in self.seen and self._place[at] > first:
            self.seen.add(at)
            before = self._before(at)
            out.append(at if before is None else self._item(at, before))
            at = before
        return out[::-1], at

    def _item(self, node: str, before: str) -> str | Branching:
        """A sum with those of its branches that begin at its base. What leads to the others is left for other ways."""
        if not self.graph.sources(node, "base"):
            return node
        branches = []
        for end in self.graph.sources(node, "stream"):
            branch, at = self._way(end, before)
            if at == before:
                branches.append(tuple(branch))
            else:
                self.seen -= {*every_node(branch)}
        return Branching(tuple(branches), node) if branches else node

    def _before(self, node: str) -> str | None:
        """What a node follows: the base of a sum, or the latest of its streams."""
        sources = self.graph.sources(node, "base") or self.graph.sources(node, "stream")
        if len(sources) < 2:
            return sources[0] if sources else None
        return max(sources, key=self._place.__getitem__)

    def _with_sides(self, items: Sequence[str | Branching]) -> Chain:
        """With the ways that leave the items after each, in branches too."""
        out: list[str | Branching | Side] = []
        for item in items:
            node = node_of(item)
            if isinstance(item, Branching):
                item = Branching(tuple(self._with_sides(branch) for branch in item.branches), node)  # type: ignore[arg-type]
            out += [item, *self._sides(node)]
        return tuple(out)

    def _sides(self, node: str) -> list[Side]:
        return [Side(self._with_sides(way)) for way in reversed(self.ways.pop(node, []))]

    def _latest(self, node: str) -> str:
        streams = self.graph.sources(node, "stream")
        return streams[0] if len(streams) == 1 else max(streams, key=self._place.__getitem__)

    @cached_property
    def _place(self) -> dict[str, int]:
        try:
            order = self.graph.order()
        except nx.NetworkXUnfeasible:  # a cycle
            order = [*self.graph.nx]
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
            for branch in item.branches if isinstance(item, Branching) else (item.chain,):
                yield from blocks_of(branch)


def every_node(items: Chain | Sequence[str | Branching]) -> Iterator[str]:
    """The same with the sums of branches."""
    for item in items:
        if isinstance(item, Side):
            yield from every_node(item.chain)
            continue
        for branch in item.branches if isinstance(item, Branching) else ():
            yield from every_node(branch)
        yield node_of(item)


def split_stages(graph: Graph, items: Chain) -> list[tuple[int, Chain]]:
    """A chain cut where the stage changes; a way that leaves it is where it leaves."""
    if len(graph.stages) == 1:
        return [(0, tuple(items))] if items else []
    out: list[tuple[int, list[str | Branching | Side]]] = []
    for item in items:
        first = item
        while isinstance(first, Side) and not out:
            first = first.chain[0]
        stage = out[-1][0] if isinstance(first, Side) else graph.nx.nodes[node_of(first)]["stage"]
        if not out or out[-1][0] != stage:
            out.append((stage, []))
        out[-1][1].append(item)
    return [(stage, tuple(part)) for stage, part in out]


def node_of(item: str | Branching) -> str:
    return item.sum if isinstance(item, Branching) else item
