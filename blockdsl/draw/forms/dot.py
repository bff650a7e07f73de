"""The graph in Graphviz's language (https://graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, pairwise
from typing import TYPE_CHECKING

from ..color.hues import hue
from .outline import Cluster, Outline
from .streams import outline_streams

if TYPE_CHECKING:
    from ...graph.graph import Graph

_EDGES = {
    "stream": "",
    "base": 'color="#888888"',
    "context": 'style=dashed, color="#7a5fc0"',
    "condition": 'style=dashed, color="#a8701c"',
    "position": 'style=dotted, color="#2f8f7d", constraint=false',
    "scores": 'style=dashed, color="#c2527a", label="scores", constraint=false',
    "read": 'color="#962800", fontcolor="#962800"',
    "skip": 'color="#962800", fontcolor="#962800"',
    "kv": 'style=dashed, color="#0b4f8a", label="keys, values", constraint=false',
    "values": 'style=dotted, color="#0b4f8a", label="values", constraint=false',
    "normed": 'style=dashed, color="#888888", label="normed", constraint=false',
}
_TIED = 'style=dotted, dir=none, color="#c0392b", label="tied", constraint=false'
_SHAPES = {
    "input": "shape=plaintext",
    "output": "shape=plaintext",
    "context": 'shape=box, style=dashed, color="#7a5fc0"',
    "condition": 'shape=box, style=dashed, color="#a8701c"',
    "position": 'shape=note, style=filled, fillcolor="#ffffff", color="#2f8f7d"',
    "read": 'shape=box, style="rounded", color="#962800", fontcolor="#962800"',
    "sum": "shape=circle, width=0.3, fixedsize=true",
}


def draw(graph: Graph, fold: bool = False) -> str:
    """A digraph with a newline at its end; the same for the same graph. `fold`: each repeat once."""
    drawn = outline_streams(graph, fold)
    lines = [
        "digraph blocks {",
        "  rankdir=TB;",
        '  fontname="sans-serif";',
        '  node [fontname="sans-serif"];',
        '  edge [fontname="sans-serif", fontsize=10];',
    ]
    above = "\\n".join(map(_text, drawn.head))
    lines.append(f'  label="{above}"; labelloc=t;')
    lines += ["  " + _node(drawn, node) for node in drawn.before()]
    lines += _parts(drawn, drawn.parts, "  ", count())
    lines.append("  " + _node(drawn, drawn.graph.end))
    for edge in drawn.edges:
        style = _EDGES.get(edge.carries, f'style=dashed, label="{_text(edge.carries)}"')
        style += f', label="{_text(edge.words)}"' if edge.words else ""
        style += ", penwidth=2.5" if edge.copies else ""
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)}" + (f" [{style}];" if style else ";"))
    for tied in drawn.ties():
        lines += [f"  {_quoted(one)} -> {_quoted(other)} [{_TIED}];" for one, other in pairwise(tied)]
    return "\n".join([*lines, "}", ""])


def _parts(drawn: Outline, parts: Iterable[str | Cluster], indent: str, numbers: Iterator[int]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield indent + _node(drawn, part)
        else:
            yield f"{indent}subgraph cluster_{next(numbers)} {{"
            yield f'{indent}  label="{_text(part.title)}";'
            yield f'{indent}  labeljust=l; style=rounded; color="#999999";'
            yield from _parts(drawn, part.parts, indent + "  ", numbers)
            yield indent + "}"


def _node(drawn: Outline, node: str) -> str:
    node_type = drawn.graph.node_type(node)
    if node_type == "block":
        color = hue(drawn.graph.block(node)["kind"])
        shape = f'shape=box, style="rounded,filled", fillcolor="{color.fill}", color="{color.line}"'
    else:
        shape = _SHAPES[node_type]
    label = "\\n".join(map(_text, drawn.lines[node]))
    return f'{_quoted(node)} [label="{label}", {shape}];'


def _quoted(name: str) -> str:
    """A name as an identifier. Graphviz keeps a doubled backslash as it is, so unlike names stay unlike."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(text: str) -> str:
    """Text inside the quotes of a label, where backslashes and ampersands would say something."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
