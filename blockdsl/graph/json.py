"""A graph as JSON, and back. Notes (attributes whose name starts with `_`) are left out."""

from __future__ import annotations

import json
from typing import Any

import networkx as nx

from ..errors import GraphError
from ..registry import options
from ..registry.kinds import kinds
from .graph import Graph
from .nodes import NODE_ATTRIBUTES, carried, without_notes


def to_json(graph: Graph) -> str:
    """The whole graph."""
    plain = {
        "graph": without_notes(graph.nx.graph),
        "nodes": [{"id": node, **without_notes(attrs)} for node, attrs in graph.nx.nodes(data=True)],
        # by target: the order in which a node reads its sources is that of its branches and of their sum
        "edges": [
            {"from": source, "to": target, "carries": list(carried(attrs))}
            for target in graph.nx
            for source, attrs in graph.nx.pred[target].items()
        ],
    }
    return json.dumps(plain, indent=1, default=_plain)


def _plain(value: Any) -> Any:
    """A number of another library in Python's own type, for `json.dumps`."""
    if (own := options.plain(value)) is value:
        raise TypeError(f"{value!r} is of no type that JSON has")
    return own


def from_json(text: str) -> nx.DiGraph:
    """The networkx graph that `to_json` wrote, as yet unchecked.

    Raises:
        GraphError: the text is not such a graph.
    """
    try:
        plain = json.loads(text)
        graph = nx.DiGraph()
        graph.graph.update(plain["graph"])
        for node in plain["nodes"]:
            for values in (node, *(node[key] for key in ("options", "given") if key in node)):
                values |= {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
            name = node.pop("id")
            graph.add_node(name, **_current(node))
        for edge in plain["edges"]:
            graph.add_edge(edge["from"], edge["to"], carries=tuple(edge["carries"]))
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise GraphError(f"this is not a block graph in JSON: {type(error).__name__}: {error}") from None
    return graph


def _current(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a node. Release 0.1.0 calls its type `kind` and a block's kind `block`; what it lacks has
    the default."""
    if "type" in attrs or "kind" not in attrs:
        return attrs
    names = {"kind": "type", "block": "kind"}
    attrs = {names.get(name, name): value for name, value in attrs.items()}
    if attrs["type"] == "block" and attrs["kind"] in kinds():
        declared = kinds()[attrs["kind"]].all_options()
        attrs["options"] = {option.name: option.default for option in declared} | attrs["options"]
    newer = [
        option for option in NODE_ATTRIBUTES.get(attrs["type"], ()) if option.optional or option.default is not None
    ]
    return attrs | {option.name: option.default for option in newer if option.name not in attrs}
