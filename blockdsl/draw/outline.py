"""A graph as nodes in nested clusters, for tools that lay graphs out themselves.

Stages are clusters, and so is each repeat where repeats are folded: its first copy stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..graph.costs import stage_title
from ..graph.layout import split_stages
from ..graph.nodes import EDGES, carried
from ..registry.tokens import INPUT_SCHEMES
from . import ends
from .labels import Labels
from .tree import DrawnBranches, DrawnRepeat, Parts, tree

if TYPE_CHECKING:
    from ..graph.graph import Graph


@dataclass(frozen=True)
class Cluster:
    """Nodes, and clusters, under a title."""

    title: str
    parts: tuple[str | Cluster, ...]


@dataclass(frozen=True)
class OutlineEdge:
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

    graph: Graph
    parts: tuple[str | Cluster, ...]
    edges: tuple[OutlineEdge, ...]
    lines: dict[str, tuple[str, ...]]

    def before(self) -> Iterator[str]:
        """What is drawn above blocks and sums: the input, positions, the condition, the context."""
        attrs = self.graph.nx.nodes
        return (node for node in self.lines if attrs[node]["type"] in ("input", "position", "condition", "context"))

    def ties(self) -> list[list[str]]:
        """Blocks that are drawn and share their parameters."""
        return [
            drawn for nodes in self.graph.tied().values() if len(drawn := [n for n in nodes if n in self.lines]) > 1
        ]


def outline(graph: Graph, fold: bool) -> Outline:
    """The outline of a graph; with `fold`, each repeat once, unless the graph is more than chains and branches."""
    labels = Labels(graph)
    items = labels.items
    if items is None:
        fold, items = False, tuple(n for n in graph.order() if graph.node_type(n) in ("block", "sum"))
    drawn: dict[str, str] = {}
    parts: list[str | Cluster] = []
    for stage, chain in split_stages(graph, items):
        inside = tuple(_clusters(tree(labels, chain, not fold), drawn))
        parts += inside if graph.stages == [None] else [Cluster(f"stage {stage_title(graph, stage)}", inside)]
    nodes = [node for node in graph.nx if drawn.get(node, node) == node]
    edges = {
        OutlineEdge(drawn.get(source, source), target, carries): None
        for target in nodes
        for source, attrs in graph.nx.pred[target].items()
        for carries in EDGES
        if carries in carried(attrs)
    }
    return Outline(graph, tuple(parts), tuple(edges), {node: _lines(labels, node) for node in nodes})


def _clusters(parts: Parts, drawn: dict[str, str]) -> Iterator[str | Cluster]:
    """Nodes, with repeats as clusters; `drawn` becomes each node → the one that is drawn for it."""
    for part in parts:
        if isinstance(part, DrawnRepeat):
            yield Cluster(f"×{part.times}", tuple(_clusters(part.parts, drawn)))
            continue
        for column in part.columns if isinstance(part, DrawnBranches) else ():
            yield from _clusters(column, drawn)
        drawn |= dict.fromkeys(part.nodes, part.node)
        yield part.node


def _lines(labels: Labels, node: str) -> tuple[str, ...]:
    """A node's label."""
    attrs = labels.graph.nx.nodes[node]
    node_type = labels.graph.node_type(node)
    if node_type == "block":
        return labels.name(node), labels.notes(node)[0]
    if node_type == "sum":
        return ("+",)
    if node_type == "position":
        return (labels.position(node) + (" positions" if attrs["scheme"] in INPUT_SCHEMES else ""),)
    if node_type == "input" and (read := ends.model_input(labels.graph)):
        return "input", read
    if node_type == "output":
        norm = ends.last_norm(labels.graph)
        return tuple(filter(None, ("output", norm, ends.gives(labels.graph) + (" (tied)" if attrs["tied"] else ""))))
    return (node_type,)
