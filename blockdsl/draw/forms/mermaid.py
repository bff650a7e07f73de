"""The graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from ..color.hues import hue
from .outline import Cluster, Outline, OutlineEdge
from .streams import outline_streams

if TYPE_CHECKING:
    from ...graph.graph import Graph

_LINKS = {
    "stream": "-->",
    "base": "-->",
    "context": "-. context .->",
    "condition": "-. condition .->",
    "position": "-.->",
    "scores": "-. scores .->",
    "normed": "-. normed .->",
    "read": "-->",
    "skip": "-->",
    "kv": "-. keys, values .->",
    "values": "-. values .->",
}
_STREAM = ("read", "skip")  # what adds to the stream
_TIED = "-. tied .-"
_COLORS = {
    **{"base": "#888888", "normed": "#888888", "context": "#7a5fc0", "condition": "#a8701c"},
    **{"position": "#2f8f7d", "scores": "#c2527a"},
    **dict.fromkeys(_STREAM, "#962800"),
    **{"kv": "#0b4f8a", "values": "#0b4f8a"},
}
_SHAPES = {
    "input": ("([", "])"),
    "output": ("([", "])"),
    "context": ("[/", "/]"),
    "condition": ("[/", "/]"),
    "position": ("([", "])"),
    "read": ("([", "])"),
    "sum": ("((", "))"),
}


def draw(graph: Graph, fold: bool = True) -> str:
    """A flowchart with a newline at its end; the same for the same graph. `fold`: each repeat once."""
    drawn = outline_streams(graph, fold)
    names = {node: f"n{i}" for i, node in enumerate(drawn.lines)}  # what may be a node's name, Mermaid may not take
    title = json.dumps(" · ".join(drawn.head), ensure_ascii=False)
    lines = ["---", f"title: {title}", "---", "flowchart TB"]
    lines += [f"  {_node(drawn, node, names)}" for node in drawn.before()]
    lines += _parts(drawn, drawn.parts, names, "  ", "s")
    lines.append(f"  {_node(drawn, drawn.graph.end, names)}")
    lines += [f"  {names[edge.source]} {_link(edge)} {names[edge.target]}" for edge in drawn.edges]
    for tied in drawn.ties():
        lines += [f"  {names[one]} {_TIED} {names[other]}" for one, other in pairwise(tied)]
    return "\n".join([*lines, *_classes(drawn, names), *_link_styles(drawn), ""])


def _parts(
    drawn: Outline, parts: Iterable[str | Cluster], names: dict[str, str], indent: str, prefix: str
) -> Iterator[str]:
    for i, part in enumerate(parts):
        if isinstance(part, str):
            yield indent + _node(drawn, part, names)
        else:
            name = f"{prefix}{i}"
            yield f'{indent}subgraph {name}["{_text(part.title)}"]'
            yield from _parts(drawn, part.parts, names, indent + "  ", name + "_")
            yield indent + "end"


def _node(drawn: Outline, node: str, names: dict[str, str]) -> str:
    opened, closed = _SHAPES.get(drawn.graph.node_type(node), ("[", "]"))
    label = "<br/>".join(map(_text, drawn.lines[node]))
    return f'{names[node]}{opened}"{label}"{closed}'


def _link(edge: OutlineEdge) -> str:
    if edge.words:
        said = f'"{_text(edge.words)}"'
        return (f"=={said}==>" if edge.copies else f"-- {said} -->") if edge.carries in _STREAM else f"-. {said} .->"
    return _LINKS.get(edge.carries, f'-. "{_text(edge.carries)}" .->')


def _classes(drawn: Outline, names: dict[str, str]) -> Iterator[str]:
    kinds: dict[str, list[str]] = {}
    for node in drawn.lines:
        if drawn.graph.node_type(node) == "block":
            kinds.setdefault(drawn.graph.block(node)["kind"], []).append(names[node])
    for i, (kind, nodes) in enumerate(kinds.items()):
        color = hue(kind)
        yield f"  classDef k{i} fill:{color.fill},stroke:{color.line},color:#111"
        yield f"  class {','.join(nodes)} k{i}"


def _link_styles(drawn: Outline) -> Iterator[str]:
    for carries, color in _COLORS.items():
        places = [str(i) for i, edge in enumerate(drawn.edges) if edge.carries == carries]
        if places:
            yield f"  linkStyle {','.join(places)} stroke:{color}"


def _text(text: str) -> str:
    """Text inside quotes: all that Mermaid, Markdown or HTML could read as theirs is given by its code."""
    text = text.replace("\\n", "\\\u200bn")  # which Mermaid reads as a new line even when it is given by codes
    return "".join(sign if sign.isalnum() or sign in " ,.=×·-:()/@" else f"#{ord(sign)};" for sign in text)
