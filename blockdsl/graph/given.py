"""Whether what an option of a block reads of an earlier node is there and fits, as keys and values.

A kind says what its blocks give to later ones (`Kind.gives`), and in which sizes. What no kind gives is the stream
itself, from any node of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry.kinds import Kind, kind_of, kinds
from ..registry.options import Value
from .graph import Graph

GIVEN = {"kv": "keys and values"}
"""What blocks give to later ones, in words where its name says too little."""


def misread(graph: Graph, source: str, node: str, what: str) -> str | None:
    """What is wrong with an edge from `source` that carries `what` to an option of `node`, as words after `reads`."""
    givers = sorted(kind.name for kind in kinds().values() if what in kind.gives)
    attrs, words = graph.nx.nodes[source], GIVEN.get(what, what)
    if not givers:
        return None
    if attrs["type"] != "block":
        return f"{source}, which has no {words}; {' and '.join(map(repr, givers))} would"
    place = f"{source} ({kind_of(attrs['kind']).title})"
    if attrs["kind"] not in givers:
        return f"{place}, which has no {words}; {' and '.join(map(repr, givers))} would"
    given, own = (_sizes(graph, each) for each in (source, node))
    if isinstance(given, str):
        return f"{place}, which gives no {words}: {given}"
    for name, size in {} if isinstance(own, str) else own.get(what, {}).items():
        if (theirs := given.get(what, {}).get(name)) != size:
            return f"{place}, whose {theirs} {name} do not fit {size}"
    if what == "kv" and _rotary(graph, source) != _rotary(graph, node):
        return f"{place}, whose keys are rotated by other positions"
    return None


def over_context(kind: Kind, options: Mapping[str, Any]) -> bool:
    """Whether keys are of another sequence."""
    return "context" in kind.inputs and not options.get("context")


def _sizes(graph: Graph, node: str) -> Mapping[str, Mapping[str, Value]] | str:
    return kind_of(graph.block(node)["kind"]).given_sizes(graph.completed(node))


def _rotary(graph: Graph, node: str) -> list[str]:
    return [position for position in graph.sources(node, "position") if graph.nx.nodes[position]["scheme"] == "rotary"]
