"""A graph as nodes in nested clusters, for tools that lay graphs out themselves.

Stages are clusters, and so is each repeat where repeats are folded: its first copy stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.costs import stage_title
from ...graph.layout import split_stages
from ...graph.nodes import carried
from ..parts import DrawnBlock, DrawnBranches, DrawnRepeat, DrawnSide, Parts
from ..tree import tree
from ..words import ends, reads
from ..words.captions import Captions
from ..words.header import head_of
from ..words.lines import facts

if TYPE_CHECKING:
    from ...graph.graph import Graph


@dataclass(frozen=True)
class Cluster:
    """Nodes, and clusters, under a title."""

    title: str
    parts: tuple[str | Cluster, ...]


@dataclass(frozen=True)
class OutlineEdge:
    """What `source` gives to `target`.

    Attributes:
        carries: one of `nodes.EDGES`, or "skip": a stream that is added to that of what the target follows.
        words: beside it.
        copies: whether these say which copies of a repeat read which.
    """

    source: str
    target: str
    carries: str
    words: str = ""
    copies: bool = False


@dataclass(frozen=True)
class Outline:
    """
    Attributes:
        graph: the graph.
        head: what is said of all of it, a line each.
        parts: blocks and sums, in stages and repeats, in order.
        edges: of the nodes that are drawn.
        lines: each node that is drawn → the lines of its label.
    """

    graph: Graph
    head: tuple[str, ...]
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
    captions = Captions(graph)
    items = captions.items
    drawn: dict[str, str] = {}
    said: dict[tuple[str, str, str], str] = {}
    parts: list[str | Cluster] = []
    stages: list[tuple[int, tuple[str | Cluster, ...]]]
    if items is None:
        nodes = tuple(n for n in graph.order() if graph.node_type(n) in ("block", "read", "sum"))
        stages = [(stage, tuple(map(str, part))) for stage, part in split_stages(graph, nodes)]
        drawn |= {node: node for node in nodes}
    else:
        found = tree(captions, items, not fold)
        stages = [(stage, tuple(_clusters(part, drawn))) for stage, part in found.stages]
        for wire in found.wires:
            for node in (wire.source,) if isinstance(wire.source, str) else wire.source.nodes:
                said[drawn.get(node, node), wire.target.node, wire.role] = wire.words
    for stage, inside in stages:
        parts += inside if graph.stages == [None] else [Cluster(f"stage {stage_title(graph, stage)}", inside)]
    shown = [node for node in graph.nx if drawn.get(node, node) == node]
    edges: dict[OutlineEdge, None] = {}
    for target in shown:
        for source, attrs in graph.nx.pred[target].items():
            for carries in carried(attrs):
                ends = drawn.get(source, source), target
                added = carries in ("stream", "base") and source in captions.added.get(target, ())
                copies = said.get((*ends, "read" if added else carries), "")
                how = [reads.added_words(graph, target)] if added else []
                words = ", ".join(filter(None, [*how, copies]))
                edges[OutlineEdge(*ends, "skip" if added else carries, words, bool(copies))] = None
    above = tuple(" · ".join(line) for line in head_of(captions).lines())
    return Outline(graph, above, tuple(parts), tuple(edges), {node: _lines(captions, node) for node in shown})


def _clusters(parts: Parts, drawn: dict[str, str]) -> Iterator[str | Cluster]:
    """Nodes, with repeats as clusters; `drawn` becomes each node → the one that is drawn for it."""
    for part in parts:
        if isinstance(part, DrawnRepeat):
            yield Cluster(f"×{part.times}", tuple(_clusters(part.parts, drawn)))
            continue
        if isinstance(part, DrawnBlock) and not part.is_node:
            continue
        for column in part.columns if isinstance(part, DrawnBranches) else ():
            yield from _clusters(column, drawn)
        if isinstance(part, DrawnSide):
            continue  # its end is in it
        drawn |= dict.fromkeys(part.nodes, part.node)
        yield part.node


def _lines(captions: Captions, node: str) -> tuple[str, ...]:
    """What is written on a node, with its labels if something reads them."""
    read = captions.taken | captions.read_from.get(node, set())
    return *_words(captions, node), *(f"^{name}" for name in captions.graph.labels(node) if name in read)


def _words(captions: Captions, node: str) -> tuple[str, ...]:
    node_type = captions.graph.node_type(node)
    if node_type == "block":
        said = (*facts(captions.graph, node), *captions.of_itself(node))
        lines = captions.name(node), captions.notes(node)[0], " · ".join(said), *captions.place(node)
        return tuple(filter(None, lines))
    if node_type == "read":
        return captions.name(node), reads.join_words(captions.graph, node), *captions.place(node)
    if node_type == "sum":
        return "+", *captions.place(node)
    if node_type == "position":
        return (captions.position(node),)
    if node_type == "input":
        return "input", *ends.input_lines(captions.graph)
    if node_type == "output":
        return "output", *captions.place(node), *ends.output_lines(captions.graph)
    return (node_type,)
