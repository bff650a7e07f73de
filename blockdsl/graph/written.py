"""Whether a graph still is what its text says, so that no text outlives an edit.

A graph keeps a fingerprint of itself, as a note, from when its text was put down. It is cheap, because pictures and
pages ask again and again; what a graph's text is after an edit is for `to_pattern`.
"""

from __future__ import annotations

import hashlib
import marshal
from typing import Any

import networkx as nx

from ..registry.options import plain
from .nodes import carried, without_notes

NOTE = "_written"
EDITED = "edited from "


def write(graph: nx.DiGraph, text: str) -> None:
    """Put a text down as that of the graph as it now is."""
    graph.graph["pattern"] = text
    graph.graph[NOTE] = fingerprint(graph)


def read_back(graph: nx.DiGraph) -> None:
    """Of a graph that was read from JSON: its text is its own, unless it says that it is not."""
    text = graph.graph["pattern"]
    if text.startswith(EDITED):
        graph.graph |= {"pattern": text.removeprefix(EDITED), NOTE: ""}
    else:
        write(graph, text)


def is_edited(graph: nx.DiGraph) -> bool:
    """Whether it changed since its text was put down; of a graph that was made by hand nobody knows."""
    if NOTE not in graph.graph or graph.graph[NOTE] == fingerprint(graph):
        return False
    return graph.graph[NOTE] != _hashed(_plainly(_said(graph)))  # numbers of another library may say the same


def fingerprint(graph: nx.DiGraph) -> str:
    """The same for a graph and its copies, by their nodes' names too."""
    return _hashed(_said(graph))


def _hashed(said: Any) -> str:
    try:
        values = marshal.dumps(said, 2)  # this version writes values alone, not which of them are one object
    except (TypeError, ValueError):  # a value of another library, say, which an edit has put there
        return "unknown"
    return hashlib.blake2b(values, digest_size=16).hexdigest()


def _plainly(said: Any) -> Any:
    if isinstance(said, dict):
        return {name: _plainly(value) for name, value in said.items()}
    return type(said)(map(_plainly, said)) if type(said) in (list, tuple) else plain(said)


def _said(graph: nx.DiGraph) -> list[Any]:
    own = [(name, value) for name, value in without_notes(graph.graph).items() if name != "pattern"]
    return [
        sorted(own, key=str),
        [(node, [*map(_value, without_notes(attrs).items())]) for node, attrs in graph.nodes(data=True)],
        [[(source, carried(edge)) for source, edge in graph.pred[node].items()] for node in graph],
    ]


def _value(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    return name, _said(value) if isinstance(value, nx.DiGraph) else value
