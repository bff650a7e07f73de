"""How a graph is laid out before it is drawn: chains, and parallel branches that meet in a sum.

A graph compiled from a pattern always has this shape, and so has one with skips: streams of earlier nodes that a later
one adds to its own. One edited into another has ways beside its main one, `Side`. What has no stream, or a sum whose
branches do not start at one place, is drawn as nodes in layers.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """All blocks and reads on ways of the stream, the main one from the input to the output; None: as of `chain`.

    A plain sum is an item too. Where a graph has gaps, an item may stand after one that it does not read.
    """
    plain = chain(graph)
    drawn = {*graph.nodes("block"), *graph.nodes("read")}
    return plain if plain is not None and {*blocks_of(plain)} == drawn else _Walk(graph).whole()


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

    def whole(self) -> Chain | None:
        graph = self.graph
        if not any("stream" in carried(edge) for _, _, edge in graph.nx.edges(data=True)):
            return None
        wanted = [node for node in self._place if graph.node_type(node) in ("block", "read", "sum")]
        ways: dict[str, list[list[str | Branching]]] = {}  # the ways that leave each node
        main: list[str | Branching] = []
        at = self._latest(graph.end) if graph.sources(graph.end, "stream") else None
        while at != graph.start:  # there is more than one part where the stream has gaps
            left = [node for node in wanted if node not in self.seen]
            if at is None and not left:
                break
            found = self._way(left[-1] if at is None else at)
            if found is None or (at is not None and at in self.seen and not found[0]):
                return None
            part, at = found
            main = [*part, *main]
        while left := [node for node in wanted if node not in self.seen]:
            found = self._way(left[-1])
            if found is None:
                return None
            ways.setdefault(found[1] or graph.start, []).append(found[0])
        return self._with_sides(main, graph.start, ways)

    def _way(self, end: str) -> tuple[list[str | Branching], str | None] | None:
        """What leads to `end`, itself included, from a node that is on a way already, or from nowhere."""
        graph = self.graph
        out: list[str | Branching] = []
        at: str | None = end
        while at is not None and at != graph.start and at not in self.seen:
            if bases := graph.sources(at, "base"):
                before = {*self.seen}
                found = self._back(at, bases[0]) if len(bases) == 1 else None
                if found is None or len(found) != 1:
                    self.seen = before
                    return None
                out.append(found[0])  # type: ignore[arg-type]
                at = bases[0]
                continue
            self.seen.add(at)
            out.append(at)
            at = self._latest(at) if graph.sources(at, "stream") else None
        return out[::-1], at

    def _with_sides(self, items: list[str | Branching], at: str, ways: dict[str, list[list[str | Branching]]]) -> Chain:
        sides = [Side(self._with_sides(way, at, ways)) for way in reversed(ways.pop(at, []))]
        out: list[str | Branching | Side] = [*sides]
        for item in items:
            at = item if isinstance(item, str) else item.sum
            out.append(item)
            out += [Side(self._with_sides(way, at, ways)) for way in reversed(ways.pop(at, []))]
        return tuple(out)

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
            for branch in item.branches if isinstance(item, Branching) else (item.chain,):
                yield from blocks_of(branch)


def split_stages(graph: Graph, items: Chain) -> list[tuple[int, Chain]]:
    """A chain cut where the stage changes; a way that leaves it is where it leaves."""
    out: list[tuple[int, list[str | Branching | Side]]] = []
    for item in items:
        first = item
        while isinstance(first, Side) and not out:
            first = first.chain[0]
        stage = out[-1][0] if isinstance(first, Side) else graph.nx.nodes[_node(first)]["stage"]
        if not out or out[-1][0] != stage:
            out.append((stage, []))
        out[-1][1].append(item)
    return [(stage, tuple(part)) for stage, part in out]


def _node(item: str | Branching) -> str:
    return item.sum if isinstance(item, Branching) else item
