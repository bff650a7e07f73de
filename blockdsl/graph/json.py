"""A graph as JSON, and back. Notes (attributes whose name starts with `_`) are left out."""

from __future__ import annotations

import json
from typing import Any

import networkx as nx

from ..errors import GraphError
from ..registry import options
from ..registry.content import Values
from ..registry.kinds import kinds
from ..registry.positions import SCHEMES
from .graph import Graph
from .nodes import NODE_ATTRIBUTES, carried, without_notes


def to_json(graph: Graph, text: str) -> str:
    """The whole graph with its text, and in it that of its encoder, if it has one."""
    members = _members(graph.nx)
    members["graph"] |= {"pattern": text}
    return json.dumps(members, indent=1, default=_plain)


def _members(graph: nx.DiGraph) -> dict[str, Any]:
    return {
        "graph": without_notes(graph.graph),
        "nodes": [{"id": node, **without_notes(attrs)} for node, attrs in graph.nodes(data=True)],
        # by target: the order in which a node reads its sources is that of its branches and of their sum
        "edges": [
            {"from": source, "to": target, "carries": list(carried(attrs))}
            for target in graph
            for source, attrs in graph.pred[target].items()
        ],
    }


def _plain(value: Any) -> Any:
    """A graph inside another, or a number of another library in Python's own type, for `json.dumps`."""
    if isinstance(value, nx.DiGraph):
        return _members(value)
    if (own := options.plain(value)) is value:
        raise TypeError(f"{value!r} is of no type that JSON has")
    return own


def from_json(text: str | bytes) -> nx.DiGraph:
    """The networkx graph that `to_json` wrote; what its nodes and edges say is as yet unchecked.

    Raises:
        TypeError: it is no text.
        GraphError: the text is not such a graph.
    """
    return _graph("the text", _loaded(text))


def _graph(what: str, members: Any) -> nx.DiGraph:
    plain = _object(what, members, ("graph", "nodes", "edges"))
    if more := sorted({*plain} - {"graph", "nodes", "edges"}):
        raise _wrong(f"it has {more[0]!r}, and this version of blockdsl knows graph, nodes and edges alone")
    graph = nx.DiGraph()
    graph.graph.update(_object("graph", plain["graph"]))
    for node in _array("nodes", plain["nodes"]):
        attrs = _with_tuples(_object("a node", node, ("id",)))
        name = attrs.pop("id")
        if not isinstance(name, str):
            raise _wrong(f"the id of a node must be a text, not {name!r}")
        if name in graph:
            raise _wrong(f"two nodes have the id {name!r}")
        graph.add_node(name)
        if attrs.get("type") == "context" and attrs.get("encoder") is not None:
            attrs["encoder"] = _graph(f"the encoder of {name!r}", attrs["encoder"])
        graph.nodes[name].update(_current(attrs))
    for edge in _array("edges", plain["edges"]):
        source, target, carries = (_object("an edge", edge, _EDGE)[key] for key in _EDGE)
        if more := sorted({*edge} - {*_EDGE}):
            raise _wrong(f"an edge has {more[0]!r}, and an edge has from, to and carries alone")
        for end in (source, target):
            if not isinstance(end, str) or end not in graph:
                raise _wrong(f"an edge goes from {source!r} to {target!r}, and {end!r} is no node")
        if graph.has_edge(source, target):
            raise _wrong(f"two edges go from {source!r} to {target!r}; one carries all that they carry")
        graph.add_edge(source, target, carries=tuple(_array("what an edge carries", carries)))
    return graph


_EDGE = ("from", "to", "carries")


def _loaded(text: Any) -> Any:
    if not isinstance(text, str | bytes | bytearray):
        raise TypeError(f"from_json reads a text, as to_json writes it, not {type(text).__name__}")
    text = text.lstrip("\ufeff") if isinstance(text, str) else text
    try:
        return json.loads(text, object_pairs_hook=_without_twins)
    except RecursionError:
        raise _wrong("its lists are nested too deeply") from None
    except ValueError as error:
        raise _wrong(str(error)) from None


def _without_twins(members: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(members)
    if len(out) < len(members):
        names = [name for name, _ in members]
        raise ValueError(f"an object has {next(name for name in out if names.count(name) > 1)!r} twice")
    return out


def _object(what: str, value: Any, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{what} must be an object, not {_type(value)}")
    for name in needs:
        if name not in value:
            raise _wrong(f"{what} has no {name!r}")
    return value


def _array(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(f"{what} must be a list, not {_type(value)}")
    return value


def _type(value: Any) -> str:
    """As JSON calls it."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _wrong(problem: str) -> GraphError:
    return GraphError(f"this is not a block graph in JSON: {problem}")


def _with_tuples(attrs: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists alone; in a graph, the values of options are tuples."""
    out: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in attrs.items()}
    for name in ("options", "given"):
        if isinstance(out.get(name), dict):
            out[name] = Values(_with_tuples(out[name]))
    return out


def _current(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a node. Release 0.1.0 calls its type `kind` and a block's kind `block`; what it lacks has
    the default."""
    if "type" in attrs or "kind" not in attrs:
        return attrs
    names = {"kind": "type", "block": "kind"}
    attrs = {names.get(name, name): value for name, value in attrs.items()}
    if attrs["type"] == "block" and attrs.get("kind") in [*kinds()] and isinstance(attrs.get("options"), dict):
        declared = kinds()[attrs["kind"]].all_options()
        attrs["options"] = {option.name: option.default for option in declared} | attrs["options"]
    newer = [option for option in _attributes(attrs) if option.optional or option.default is not None]
    return attrs | {option.name: option.default for option in newer if option.name not in attrs}


def _attributes(attrs: dict[str, Any]) -> tuple[options.Option, ...]:
    """Those that a node of its type has, or of its scheme."""
    own = NODE_ATTRIBUTES.get(attrs["type"], ()) if isinstance(attrs["type"], str) else ()
    scheme = SCHEMES.get(attrs["scheme"]) if isinstance(attrs.get("scheme"), str) else None
    return own if scheme is None else (*own, *scheme.attributes)
