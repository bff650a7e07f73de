"""Two streams in one drawing, `(a f)*6 => (a c f)*6`: what the encoder gives is the decoder's context.

Owns how the drawings of both are put together; each is drawn as a graph of its own. Side by side as a picture they are
put by `picture.pictures`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import networkx as nx

from ...graph.graph import Graph
from ..color.heat import Heat, check_nodes
from ..words.captions import Captions
from ..words.header import head_of, heads_of
from .outline import Cluster, Outline, OutlineEdge, outline
from .text import draw, in_signs

if TYPE_CHECKING:
    from ...measurement import Measurement

HEADINGS = {"": "", "encoder": "encoder", "decoder": "decoder: its context is the encoder's output"}


def draw_text(graph: Graph, ascii: bool = False, color: bool = False, overlay: Measurement | None = None) -> str:
    """The drawing with characters: of two streams, one below the other; an overlay's numbers are beside the blocks."""
    streams, heats = graph.streams(), {}
    if overlay is not None:
        heats = {name: Heat(overlay, f"{name}." if name else "") for name in streams}
        check_nodes(overlay, (heats[name].prefix + node for name, stream in streams.items() for node in stream.nx))
    own_heads = {name: head_of(Captions(stream)) for name, stream in streams.items()}
    parts = []
    if len(streams) > 1:
        whole, own_heads = heads_of(graph, own_heads)
        parts = [in_signs(whole.lines(), ascii)]
    for name, stream in streams.items():
        own = draw(stream, ascii, color, heats.get(name), own_heads[name])
        parts.append(f"{HEADINGS[name]}\n{own}" if HEADINGS[name] else own)
    text = "\n\n".join(parts)
    return text if overlay is None else f"{text}\n{Heat(overlay).in_words()}"


class _Both(Graph):
    """The nodes of both streams as one graph, called `encoder.a0`; it ends where the decoder does."""

    @property
    def end(self) -> str:
        return self.nodes("output")[-1]


def outline_streams(graph: Graph, fold: bool) -> Outline:
    """As `outline`; of two streams each is a cluster, and the encoder's output leads to what reads it."""
    streams = graph.streams()
    if "" in streams:
        return outline(graph, fold)
    given, both = f"encoder.{streams['encoder'].end}", nx.DiGraph()
    contexts = {f"decoder.{node}" for node in graph.nodes("context")}
    parts: list[str | Cluster] = []
    heads = {name: head_of(Captions(stream)) for name, stream in streams.items()}
    edges: list[OutlineEdge] = []
    lines: dict[str, tuple[str, ...]] = {}
    for name, stream in streams.items():
        drawn, prefix = outline(stream, fold), f"{name}."
        both = nx.compose(both, nx.relabel_nodes(stream.nx, lambda node, prefix=prefix: prefix + node))
        end = (given,) if name == "encoder" else ()
        parts.append(Cluster(name, (*(_renamed(part, prefix) for part in drawn.parts), *end)))
        for edge in drawn.edges:
            source = prefix + edge.source
            edges.append(replace(edge, source=given if source in contexts else source, target=prefix + edge.target))
        lines |= {prefix + node: label for node, label in drawn.lines.items()}
    both.remove_nodes_from(contexts)
    shown = {node: label for node, label in lines.items() if node not in contexts}
    whole, own_heads = heads_of(graph, heads)
    above = [" · ".join(line) for line in whole.lines()]
    above += [f"{name}: {' · '.join(line)}" for name, own in own_heads.items() for line in own.lines()]
    return Outline(_Both(both), tuple(above), tuple(parts), tuple(edges), shown)


def _renamed(part: str | Cluster, prefix: str) -> str | Cluster:
    if isinstance(part, str):
        return prefix + part
    return Cluster(part.title, tuple(_renamed(inner, prefix) for inner in part.parts))
