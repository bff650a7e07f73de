"""What nodes, edges and the graph say of themselves: the right attributes, with values in range."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import networkx as nx

from ...errors import did_you_mean
from ...language.unparse import is_name
from ...registry.content import by_content
from ...registry.kinds import Kind, kinds
from ...registry.options import Option, by_name
from ...registry.positions import SCHEMES
from ..graph import Graph
from ..nodes import EDGES, GRAPH_ATTRIBUTES, LABELLED, NODE_ATTRIBUTES, carried, is_note
from .finding import Finding, disconnect, set_attribute, set_option, take_out

_STREAM_FROM = {"input", "block", "sum", "read"}
_STREAM_TO = {"block", "sum", "read", "output"}
_ENDS = {
    "stream": (_STREAM_FROM, _STREAM_TO),
    "base": (_STREAM_FROM, {"sum"}),
    "read": (_STREAM_FROM, {"read"}),
    "context": ({"context"}, {"block"}),
    "condition": ({"condition"}, {"block", "output"}),
    "position": ({"position"}, {"block", "input"}),
    "scores": ({"block"}, {"block"}),
    "normed": ({"block"}, {"block"}),
}
"""What an edge carries → the types of nodes that it may come from, and go to."""
_USUAL = {"causal": False, "pattern": "", "shift": 0, "scale": 1.0, "stage": 0, "join": "add", "tied": False}


def nodes(graph: Graph) -> Iterator[Finding]:
    attributes = graph.nx.graph
    of_graph = [*_attributes(GRAPH_ATTRIBUTES, attributes, ("stages",)), *_unknown(attributes, _GRAPH_KNOWN)]
    for problem, name, value in of_graph:
        yield Finding(f"the graph: {problem}", _mended_graph(name, value))
    if "stages" in attributes and not _are_stages(attributes["stages"]):
        problem = f"stages must be a list of names (or None), not {attributes['stages']!r}"
        yield Finding(f"the graph: {problem}", "g.nx.graph['stages'] = [None]")
    for node, attrs in graph.nx.nodes(data=True):
        yield from _node(node, attrs)
    for node_type in ("input", "output", "context", "condition"):
        found = graph.nodes(node_type)
        mend = take_out(found[-1]) if len(found) > 1 else ""
        if node_type in ("input", "output") and len(found) != 1:
            yield Finding(f"the graph has {len(found)} {node_type} nodes and needs one", mend)
        elif len(found) > 1:
            yield Finding(f"the graph has more than one {node_type}", mend)
    for node in graph.nodes("context"):
        attrs = graph.nx.nodes[node]
        if not isinstance(attrs.get("encoder", graph.nx), nx.DiGraph):
            problem = f"encoder must be a networkx.DiGraph, as another graph's nx, not {attrs['encoder']!r}"
            yield Finding(f"{node}: {problem}", f"del g.nx.nodes[{node!r}]['encoder']")
        if attrs.get("tie_token_emb", False) not in ((True, False) if "encoder" in attrs else (False,)):
            problem = "tie_token_emb must be true or false, and true only where there is an encoder"
            yield Finding(f"{node}: {problem}", set_attribute(node, "tie_token_emb", False))


def _mended_graph(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"g.nx.graph |= {value | ({'stages': [None]} if 'stages' in value else {})}"
    return "" if value is _UNKNOWN else f"g.nx.graph[{name!r}] = {value!r}"


_GRAPH_KNOWN = {"stages", *by_name(GRAPH_ATTRIBUTES)}


def _node(node: Any, attrs: Mapping[str, Any]) -> Iterator[Finding]:
    node_type = attrs.get("type")
    if not isinstance(node, str) or not node:
        yield Finding(f"{node!r}: a node's name must be a string", f"g.nx = nx.relabel_nodes(g.nx, {{{node!r}: 'x'}})")
    if not isinstance(node_type, str) or node_type not in NODE_ATTRIBUTES:
        problem = f"unknown node type {node_type!r}; the types are {', '.join(NODE_ATTRIBUTES)}"
        yield Finding(f"{node}: {problem}", f"g.replace({node!r}, 'f')" if node_type is None else take_out(node))
        return
    for problem, name, value in _problems({n: dict if isinstance(v, dict) else v for n, v in attrs.items()}):
        if node_type == "block" and _is_misplaced(name, attrs):
            here = f"g.nx.nodes[{node!r}]"
            said = f"{name} is an option, not an attribute of the node"
            yield Finding(f"{node}: {said}", f"{here}['options'][{name!r}] = {here}.pop({name!r})")
        else:
            yield Finding(f"{node}: {problem}", _mended(node, attrs, name, value))


def _is_misplaced(name: str, attrs: Mapping[str, Any]) -> bool:
    """Whether it is an option of a block's kind that stands beside the options."""
    kind = kinds().get(str(attrs.get("kind")))
    known = kind is not None and name in by_name(kind.all_options())
    return known and name in attrs and isinstance(attrs.get("options"), dict)


@by_content
def _problems(attrs: Mapping[str, Any]) -> tuple[_Problem, ...]:
    """What is wrong with what a node says of itself, where `dict` stands for each dict."""
    node_type = attrs["type"]
    dicts = ("options", "given") if node_type == "block" else ()
    declared = NODE_ATTRIBUTES[node_type]
    problems = [*_attributes(declared, attrs, dicts)]
    known = {"type", *dicts, *by_name(declared)}
    if node_type in LABELLED:
        known.add("labels")
        if not _are_names(attrs.get("labels", ())):
            said = f"labels must be names, of letters, digits and '_', not {attrs['labels']!r}"
            problems.append((said, "labels", ()))
    known |= {"encoder", "tie_token_emb"} if node_type == "context" else set()
    if node_type == "position" and not problems and (scheme := SCHEMES.get(attrs["scheme"])):
        problems = [*_attributes(scheme.attributes, scheme.with_defaults(attrs), ())]
        known |= by_name(scheme.attributes).keys()
    problems += _unknown(attrs, known)
    wrong = [name for name in dicts if name in attrs and attrs[name] is not dict]
    return (*problems, *((f"{name} must be a dict, not {attrs[name]!r}", name, {}) for name in wrong))


def _mended(node: Any, attrs: Mapping[str, Any], name: str, value: Any) -> str:
    """The call that gives a node an attribute; of a block without kind or options, one that makes it whole."""
    if {"kind", "options"} & {*name.split(", ")}:
        return f"g.replace({node!r}, {attrs['kind'] if attrs.get('kind') in [*kinds()] else 'f'!r})"
    if name == "given":
        return set_attribute(node, name, {})
    if isinstance(value, dict):
        return f"g.nx.nodes[{node!r}].update({', '.join(f'{k}={v!r}' for k, v in value.items())})"
    return "" if value is _UNKNOWN else set_attribute(node, name, value)


_UNKNOWN = object()
"""In the place of a value that nobody can guess."""

_Problem = tuple[str, str, Any]
"""What is wrong, of which attribute, and the value that it usually has."""


def _attributes(declared: Sequence[Option], attrs: Mapping[str, Any], others: Sequence[str]) -> Iterator[_Problem]:
    """What is missing (of the `others` too) or has a wrong value."""
    if missing := sorted(name for name in (*others, *(option.name for option in declared)) if name not in attrs):
        usual = {option.name: _usual(option) for option in declared} | {name: {} for name in others}
        values = {name: usual[name] for name in missing}
        known = _UNKNOWN not in [*values.values()]
        yield f"has no attribute {', '.join(missing)}", ", ".join(missing), values if known else _UNKNOWN
    for option in declared:
        if option.name in attrs and (fault := option.fault(attrs[option.name])):
            yield f"{option.name} {fault}", option.name, _usual(option)


def _usual(option: Option) -> Any:
    known = option.default is not None or option.optional
    return option.default if known else _USUAL.get(option.name, _UNKNOWN)


def _unknown(attrs: Mapping[str, Any], known: Collection[str]) -> Iterator[_Problem]:
    """Attributes that nothing reads, but for notes."""
    for name in attrs:
        if name not in known and not is_note(name):
            hint = did_you_mean(str(name), known) or f"to keep a note of your own, call it '_{name}'"
            yield f"unknown attribute {name!r}; {hint}", str(name), _UNKNOWN


def _are_names(labels: Any) -> bool:
    return isinstance(labels, tuple | list) and all(isinstance(name, str) and is_name(name) for name in labels)


def _are_stages(stages: Any) -> bool:
    return isinstance(stages, list) and bool(stages) and all(name is None or isinstance(name, str) for name in stages)


def edges(graph: Graph) -> Iterator[Finding]:
    types = {node: attrs.get("type") for node, attrs in graph.nx.nodes(data=True)}
    labelled = [option.reads for kind in kinds().values() for option in kind.options if option.reads]
    for source, target, attrs in graph.nx.edges(data=True):
        ends = types[source], types[target]
        if len(attrs) == 1 and _all_usual(attrs.get("carries"), ends):
            continue
        place = f"{source} → {target}"
        for problem, name, _ in _unknown(attrs, ("carries",)):
            yield Finding(f"{place}: {problem}", f"del g.nx.edges[{source!r}, {target!r}][{name!r}]")
        natural = _natural(ends)
        if not _are_carried(attrs.get("carries", ())):
            problem = f"carries must be a tuple of names, not {attrs['carries']!r}"
            mend = natural and f"g.nx.add_edge({source!r}, {target!r}, carries={natural!r})"
            yield Finding(f"{place}: {problem}", mend)
            continue
        if not carried(attrs):
            yield Finding(f"{place}: carries nothing", disconnect(graph, source, target, ""))
        for what in carried(attrs):
            if _usually_fits(*ends, what) or (ends[0] in _STREAM_FROM and _takes(graph, target, what)):
                continue
            mend = disconnect(graph, source, target, what)
            if natural and len(carried(attrs)) == 1:
                mend = f"g.nx.add_edge({source!r}, {target!r}, carries={natural!r})"
            if what not in (*EDGES, *labelled):
                known = ", ".join(dict.fromkeys((*EDGES, *labelled)))
                yield Finding(f"{place}: carries {what!r}, which is none of {known}", mend)
            else:
                yield Finding(f"{place}: {ends[0]} cannot hand {what} to {ends[1]}", mend)


def _all_usual(carries: Any, ends: tuple[str, str]) -> bool:
    """Whether all that an edge carries fits these types, whatever their options: most edges need no other look."""
    return type(carries) is tuple and bool(carries) and all(type(c) is str and _usually_fits(*ends, c) for c in carries)


def _usually_fits(source: str, target: str, what: str) -> bool:
    """Whether a node of one type may hand this to one of another, whatever their options."""
    sources, targets = _ENDS.get(what, ((), ()))
    return source in sources and target in targets


def _are_carried(carries: Any) -> bool:
    return isinstance(carries, str) or (isinstance(carries, tuple | list) and all(isinstance(c, str) for c in carries))


def _natural(ends: tuple[Any, Any]) -> str:
    """What an edge between nodes of these types carries, where there is one thing alone that it may."""
    if ends[0] in _STREAM_FROM and ends[1] in _STREAM_TO:
        return "stream"
    to = {"context": ("block",), "condition": ("block", "output"), "position": ("block", "input")}
    return ends[0] if ends[1] in to.get(ends[0], ()) else ""


def _takes(graph: Graph, node: str, what: str) -> bool:
    """Whether an option of a block that takes a label reads this; on or not, if nothing else may bring it."""
    attrs = graph.nx.nodes[node]
    kind = kinds().get(attrs.get("kind")) if attrs.get("type") == "block" else None
    reading = [option for option in kind.reading_options() if option.reads == what] if kind is not None else []
    return any(what not in EDGES or attrs["options"].get(option.name) for option in reading)


def blocks(graph: Graph) -> Iterator[Finding]:
    known, dim, causal = kinds(), graph.dim, graph.causal
    for node in graph.nodes("block"):
        attrs = graph.nx.nodes[node]
        name, options = attrs["kind"], attrs["options"]
        if "." in node:
            yield Finding(f"{node}: a block's name has no '.', since it is its module's name too", _without_dot(node))
        if name not in known:
            problem = f"unknown block kind {name!r}; registered: {', '.join(sorted(known))}"
            yield Finding(f"{node}: {problem}", f"g.replace({node!r}, 'f')")
            continue
        kind = known[name]
        problems = _judged(kind, options, dim)
        if len(problems) > 1 and (other := _kind_with(options)) not in (None, name):
            problem = f"its options are those of {other!r}, and its kind is {name!r}"
            yield Finding(f"{node}: {problem}", f"g.replace({node!r}, {name!r})")
            problems = ()
        for problem, option, value in problems:
            yield Finding(f"{node}: {problem}", _option_mended(node, option, value))
        if kind.has_scores() and options.get("dim_head", 0) is None:
            yield Finding(f"{node}: dim_head is none; in a graph it is a number", set_option(node, "dim_head", 64))
        bidirectional = kind.both_ways and options.get("bidirectional")
        if bidirectional and causal:
            problem = f"{kind.title} is bidirectional, and g.nx.graph['causal'] is true"
            yield Finding(f"{node}: {problem}", set_option(node, "bidirectional", False))
        if kind.causal_only and not bidirectional and not causal:
            problem = f"{kind.title} runs only in a causal stack; g.nx.graph['causal'] is false"
            yield Finding(f"{node}: {problem}", "g.nx.graph['causal'] = True")
        if attrs["shift"] and (attrs["shift"] * (1 if causal else 2)) + 1 > dim:
            problem = f"a shift of {attrs['shift']} splits dim={dim} into too many parts"
            yield Finding(f"{node}: {problem}", set_attribute(node, "shift", 0))
        if not attrs["scale"] > 0:
            problem = f"scale must be a number above 0, not {attrs['scale']!r}"
            yield Finding(f"{node}: {problem}", set_attribute(node, "scale", 1.0))


def _kind_with(options: Mapping[Any, Any]) -> str | None:
    """The kind that has just these options."""
    return next((name for name, kind in kinds().items() if by_name(kind.all_options()).keys() == options.keys()), None)


def _without_dot(node: str) -> str:
    return f"g.nx = nx.relabel_nodes(g.nx, {{{node!r}: {node.replace('.', '_')!r}}})"


def _option_mended(node: str, option: Any, value: Any) -> str:
    if value is _UNKNOWN:
        return f"del g.nx.nodes[{node!r}]['options'][{option!r}]"
    return set_option(node, option, value) if option else ""


@by_content
def _judged(kind: Kind, options: Mapping[Any, Any], dim: int) -> tuple[_Problem, ...]:
    """What is wrong with each option, or else with all of them together."""
    if found := tuple(_options(by_name(kind.all_options()), options)):
        return found
    clash = kind.clash(dim, options)
    return ((clash, "", None),) if clash else ()


def _options(declared: Mapping[str, Option], options: Mapping[Any, Any]) -> Iterator[_Problem]:
    for key, value in options.items():
        if key not in declared:
            hint = did_you_mean(str(key), declared)
            yield f"unknown option '{key}'" + (f"; {hint}" if hint else ""), key, _UNKNOWN
        elif declared[key].reads and not isinstance(value, bool):
            yield f"{key} must be true, where an edge carries {declared[key].reads}, or false; not {value!r}", key, True
        elif fault := declared[key].fault(value):
            yield f"{key} {fault}", key, declared[key].default
    for key in declared:
        if key not in options:
            yield f"option '{key}' is missing", key, declared[key].default


def stage_range(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes("block") + graph.nodes("sum") + graph.nodes("read"):
        stage, last = graph.nx.nodes[node]["stage"], len(graph.stages) - 1
        if stage > last:
            yield Finding(f"{node}: stage must be from 0 to {last}, not {stage!r}", set_attribute(node, "stage", last))
