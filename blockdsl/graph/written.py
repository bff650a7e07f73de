"""Whether a graph still is what its text says, so that no text outlives an edit.

A graph keeps a fingerprint of itself, as a note, from when its text was put down. It is cheap, because pictures and
pages ask again and again; what a graph's text is after an edit is for `to_pattern`.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import networkx as nx

from ..registry.content import by_content
from ..registry.options import PLAIN, plain, plain_values
from .nodes import carried, is_note, without_notes

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
    return NOTE in graph.graph and graph.graph[NOTE] != fingerprint(graph)


def fingerprint(graph: nx.DiGraph) -> str:
    """The same for a graph and its copies, by their nodes' names too; numbers of other libraries are Python's."""
    try:
        return _hashed(_said(graph))
    except (TypeError, ValueError):  # a value that is no number, say, which an edit has put there
        return "unknown"


def _hashed(said: Any) -> str:
    values = marshal.dumps(said, 2)  # this version writes values alone, not which of them are one object
    return hashlib.blake2b(values, digest_size=16).hexdigest()


def _said(graph: nx.DiGraph) -> list[Any]:
    own = {name: value for name, value in graph.graph.items() if name != "pattern"}
    return [
        _values(dict(sorted(own.items(), key=str))),
        [(plain(node), _values(attrs)) for node, attrs in graph.nodes(data=True)],
        [[(plain(source), carried(edge)) for source, edge in graph.pred[node].items()] for node in graph],
    ]


def _values(attrs: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Any]]:
    """Names and values, but for notes."""
    names = tuple(attrs)
    if _has_notes(names):
        return _values(without_notes(attrs))
    return names, [value if type(value) in PLAIN else _value(value) for value in attrs.values()]


@lru_cache(1024)
def _has_notes(names: tuple[Any, ...]) -> bool:
    return any(map(is_note, names))


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _options(value)
    return _said(value) if isinstance(value, nx.DiGraph) else plain(value)


@by_content
def _options(options: dict[str, Any]) -> str:
    return _hashed(plain_values(options))
