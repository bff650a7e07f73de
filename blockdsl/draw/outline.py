"""A graph as nodes in nested clusters, for tools that lay graphs out themselves.

Stages are clusters, and so is each repeat where repeats are folded: its first copy stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..costs import stage_title
from ..fold import Folded, Loop
from ..graph import EDGES, carried
from ..tokens import INPUT_SCHEMES
from .layout import Chain, Split, split_stages
from .names import Names

if TYPE_CHECKING:
    from ..graph import BlockGraph


@dataclass(frozen=True)
class Cluster:
    """Nodes, and clusters, under a title."""

    title: str
    parts: tuple[str | Cluster, ...]


@dataclass(frozen=True)
class Edge:
    """What `source` gives to `target`: one of `graph.EDGES`."""

    source: str
    target: str
    carries: str


@dataclass(frozen=True)
class Outline:
    """
    Attributes:
        graph: the graph.
        parts: blocks and sums, in stages and repeats, in order.
        edges: of the nodes that are drawn.
        lines: each node that is drawn → the lines of its label.
    """

    graph: BlockGraph
    parts: tuple[str | Cluster, ...]
    edges: tuple[Edge, ...]
    lines: dict[str, tuple[str, ...]]

    def kind(self, node: str) -> str:
        """The kind of a node: that of a block in the registry, or `input`, `sum`, ..."""
        attrs = self.graph.nx.nodes[node]
        kind: str = attrs["block"] if attrs["kind"] == "block" else attrs["kind"]
        return kind

    def before(self) -> Iterator[str]:
        """What is drawn above blocks and sums: the input, positions, the context."""
        attrs = self.graph.nx.nodes
        return (node for node in self.lines if attrs[node]["kind"] in ("input", "position", "context"))

    def ties(self) -> list[list[str]]:
        """Blocks that are drawn and share their parameters."""
        return [
            drawn for nodes in self.graph.tied().values() if len(drawn := [n for n in nodes if n in self.lines]) > 1
        ]


def outline(graph: BlockGraph, fold: bool) -> Outline:
    """The outline of a graph; with `fold`, each repeat once, unless the graph is more than chains and branches."""
    names = Names(graph)
    builder = _Builder(names, fold)
    parts = tuple(builder.stages())
    stands_for = builder.first
    nodes = [node for node in graph.nx if node not in stands_for]
    seen = {
        Edge(builder.drawn(source), target, carries): None
        for target in nodes
        for source, attrs in graph.nx.pred[target].items()
        for carries in EDGES
        if carries in carried(attrs)
    }
    return Outline(graph, parts, tuple(seen), {node: _lines(names, node) for node in nodes})


class _Builder:
    """Makes the clusters, and knows which nodes are not drawn.

    Attributes:
        first: a node that is not drawn → its like in the repeat's first copy, which may itself not be drawn.
    """

    def __init__(self, names: Names, fold: bool) -> None:
        self.names, self.fold = names, fold
        self.first: dict[str, str] = {}

    def drawn(self, node: str) -> str:
        """The node that stands for this one."""
        while node in self.first:
            node = self.first[node]
        return node

    def stages(self) -> Iterator[str | Cluster]:
        graph = self.names.graph
        items = self.names.items
        if items is None:
            items = tuple(node for node in graph.order() if graph.nx.nodes[node]["kind"] in ("block", "sum"))
        for stage, part in split_stages(graph, items):
            parts = tuple(self._chain(part))
            yield from parts if graph.stages == [None] else [Cluster(f"stage {stage_title(graph, stage)}", parts)]

    def _chain(self, items: Chain) -> Iterator[str | Cluster]:
        whole: Folded = tuple(range(len(items)))
        folded = self.names.fold(items) if self.fold and self.names.items is not None else whole
        yield from self._folded(folded, items)

    def _folded(self, folded: Folded, items: Chain) -> Iterator[str | Cluster]:
        for part in folded:
            if isinstance(part, int):
                yield from self._item(items[part])
                continue
            start, width = _start(part), _width(part) // part.count
            for i in range(start + width, start + width * part.count):
                like = items[start + (i - start) % width]
                self.first |= dict(zip(_nodes(items[i]), _nodes(like), strict=True))
            yield Cluster(f"×{part.count}", tuple(self._folded(part.body, items)))

    def _item(self, item: str | Split) -> Iterator[str | Cluster]:
        if isinstance(item, str):
            yield item
            return
        for branch in item.branches:
            yield from self._chain(branch)
        yield item.sum


def _start(part: int | Loop) -> int:
    return part if isinstance(part, int) else _start(part.body[0])


def _width(part: int | Loop) -> int:
    """How many items of the chain a part of its folding stands for."""
    return 1 if isinstance(part, int) else part.count * sum(map(_width, part.body))


def _nodes(item: str | Split) -> Iterator[str]:
    if isinstance(item, str):
        yield item
        return
    for branch in item.branches:
        for inner in branch:
            yield from _nodes(inner)
    yield item.sum


def _lines(names: Names, node: str) -> tuple[str, ...]:
    """A node's label."""
    attrs = names.graph.nx.nodes[node]
    kind = attrs["kind"]
    if kind == "block":
        return names.name(node), names.notes(node)[0]
    if kind == "sum":
        return ("+",)
    if kind == "position":
        return (names.position(node) + (" positions" if attrs["scheme"] in INPUT_SCHEMES else ""),)
    if kind == "input" and attrs["num_tokens"]:
        return "input", f"{attrs['num_tokens']:,} tokens"
    if kind == "output":
        norm = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm", "scalenorm": "ScaleNorm", None: ""}[attrs["norm"]]
        logits = "" if attrs["logits_dim"] is None else f"{attrs['logits_dim']:,} logits"
        return tuple(filter(None, ("output", norm, logits + (" (tied)" if attrs["tied"] else ""))))
    return (kind,)
