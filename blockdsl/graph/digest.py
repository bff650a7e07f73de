"""Which graphs are one model: a canonical form, which is the same for all of them, and a digest of it.

Names of nodes, labels and ties do not count, nor do the order in which nodes and edges were added, the text that a
graph was made from, and which options that text gave. What changes numbers or parameters does, and so do stages: where
they are cut changes no number, but pipelines, checkpoints and selectors go by them and by their names.

Values that come to the same are the same: an option that is not given and its default, `f(inner=2048)` and `f` where
dim is 512, `f/2` and `f(branch_scale=0.5)`. A read that merely adds is an edge of the stream: `^u a <u f` is `a f` with
an edge from the input to f. A sum of one branch is that branch. The order of what is summed does not count; that of
what a learned read joins does, as its parameters are in that order.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..registry.content import content
from ..registry.kinds import kind_of
from ..registry.options import Option, by_name, plain
from ..registry.positions import SCHEMES
from ..registry.reads import JOINS
from ..registry.tokens import logits_defaults
from .graph import Graph
from .lint import check_readable
from .nodes import NODE_ATTRIBUTES, carried, without_notes


def digest(graph: Graph) -> str:
    """64 hexadecimal digits, the same in every process for all graphs that are one model.

    Raises:
        GraphError: a node or an edge says of itself what it cannot, or there is a cycle.
    """
    return hashlib.sha256(canonical(graph).encode()).hexdigest()


def canonical(graph: Graph) -> str:
    """The graph as JSON, its nodes numbered in an order that does not depend on their names; errors as of `digest`."""
    check_readable(graph)
    return _form(graph)[0]


def same_nodes(one: Graph, other: Graph) -> dict[str, str] | None:
    """The nodes of a graph → those of another that is the same model; None: it is not.

    Nodes that the canonical form does without are not among them. Errors are as of `digest`.
    """
    check_readable(one)
    check_readable(other)
    if _blocks(one) != _blocks(other):  # most models differ here, which takes a tenth of the time
        return None
    (form, numbers), (other_form, other_numbers) = _form(one), _form(other)
    node = {number: node for node, number in other_numbers.items()}
    return {own: node[number] for own, number in numbers.items()} if form == other_form else None


def _blocks(graph: Graph) -> Counter[str]:
    """What blocks say of themselves, and how many say it."""
    blocks = [graph.block(node) for node in graph.nodes("block")]
    same = [(b["kind"], content(b["options"]), b["shift"], b["scale"], b["stage"]) for b in blocks]
    first, counts = dict(zip(reversed(same), reversed(blocks), strict=True)), Counter(same)
    said: Counter[str] = Counter()
    for key, block in first.items():
        said[_text(_block(graph.dim, block, {}))] += counts[key]
    return said


def _form(graph: Graph) -> tuple[str, dict[str, int]]:
    """The canonical form, and the number that each node has there."""
    nodes = _nodes(graph)
    numbers = _numbered(nodes)
    said = [nodes[node].form(lambda other: numbers[other]) for node in numbers]
    first: dict[Any, int] = {}
    for node, number in numbers.items():
        if nodes[node].tie is not None and number != first.setdefault(nodes[node].tie, number):
            said[number]["tied to"] = first[nodes[node].tie]
    return _text({"dim": graph.dim, "causal": graph.causal, "stages": graph.stages, "nodes": said}), numbers


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)


# What nodes say ------------------------------------------------------------------------------------------------------

Stream = tuple[str, ...]
"""A value of the stream: the nodes whose outputs are added up."""


@dataclass
class _Node:
    """A node of the canonical form: what it says of itself, and by what the edges carry what it reads."""

    own: dict[str, Any]
    reads: dict[str, list[Stream]]
    ordered: bool  # whether the order of what its read edges bring counts
    tie: Any

    def form(self, name: Callable[[str], Any]) -> dict[str, Any]:
        """As JSON, with the nodes it reads by the names that `name` gives them."""
        out = dict(self.own)
        for what, streams in self.reads.items():
            named = [sorted(map(name, stream)) for stream in streams]
            out[what] = named if what == "read" and self.ordered else sorted(named)
        return out


def _nodes(graph: Graph) -> dict[str, _Node]:
    gives: dict[str, Stream] = {}  # node → the value that it hands on
    out: dict[str, _Node] = {}
    known: dict[Hashable, Any] = {}
    for node in graph.order():
        attrs = without_notes(graph.nx.nodes[node])
        reads: dict[str, list[Stream]] = {}
        for source, edge in graph.nx.pred[node].items():
            for what in carried(edge) if source in gives else ():
                reads.setdefault(what, []).append(gives[source])
        for what in {"stream", "base"} & {*reads} if attrs["type"] != "sum" else {"base"} & {*reads}:
            reads[what] = [_added(reads[what])]
        if attrs["type"] == "position" and not _has_parameters(attrs):
            continue  # it is said of the blocks that read it
        gives[node] = (node,)
        if _only_adds(attrs, reads):
            value = _added(streams for what in ("stream", "read") for streams in reads.get(what, ()))
            if _in_one_stage(graph, node):
                gives[node] = value
            else:  # a cut between the addition and what reads it would be lost
                out[node] = _Node({"type": "sum", "stage": attrs["stage"]}, {"stream": [value]}, False, None)
            continue
        if attrs["type"] == "sum":
            branches = [*_branches(graph, node, reads, out)]
            if len(branches) < 2:
                gives[node] = _added([*branches, *reads["base"]][:1])
                continue
            reads["stream"] = branches
        out[node] = _Node(
            _own(graph, node, attrs, known), reads, attrs["type"] == "read" and _learns(attrs), _tie(attrs)
        )
    read = {
        source for node in out.values() for streams in node.reads.values() for stream in streams for source in stream
    }
    return {node: said for node, said in out.items() if said.own["type"] != "sum" or node in read}


def _only_adds(attrs: Mapping[str, Any], reads: Mapping[str, list[Stream]]) -> bool:
    """Whether a node gives the sum of what it reads: a read that adds, or a sum of streams that share no base."""
    if attrs["type"] == "read":
        return attrs["join"] == "add" and attrs["scale"] == 1
    return attrs["type"] == "sum" and "base" not in reads


def _in_one_stage(graph: Graph, node: str) -> bool:
    """Whether all that read a node are in its stage."""
    nodes, last = graph.nx.nodes, len(graph.stages) - 1
    return all(nodes[reader].get("stage", last) == nodes[node]["stage"] for reader in graph.nx.succ[node])


def _learns(attrs: Mapping[str, Any]) -> bool:
    """Whether a read has parameters."""
    return bool(JOINS[attrs["join"]].shapes(1, 1))


def _added(streams: Iterable[Stream]) -> Stream:
    return tuple(sorted(node for stream in streams for node in stream))


def _branches(
    graph: Graph, node: str, reads: Mapping[str, list[Stream]], known: Mapping[str, _Node]
) -> Iterator[Stream]:
    """Where the branches of a sum end; those of a sum inside that starts where it does are its own."""
    for end in reads.get("stream", ()):
        inner = known.get(end[0]) if len(end) == 1 else None
        alone = inner is not None and inner.own["type"] == "sum" and len(graph.nx.succ[end[0]]) == 1
        if alone and inner is not None and inner.reads.get("base") == reads.get("base"):
            yield from inner.reads["stream"]
        elif [end] != reads.get("base"):
            yield end


def _has_parameters(attrs: Mapping[str, Any]) -> bool:
    """Whether it matters which blocks share a position: one of a block has none, or is added to the input."""
    scheme = SCHEMES.get(attrs["scheme"])
    return scheme is None or bool(scheme.shapes(scheme.complete(attrs)))


def _tie(attrs: Mapping[str, Any]) -> Any:
    learns = attrs["type"] == "block" or (attrs["type"] == "read" and _learns(attrs))
    return (attrs["type"], attrs["tie"]) if learns and attrs["tie"] is not None else None


def _own(graph: Graph, node: str, attrs: Mapping[str, Any], known: dict[Hashable, Any]) -> dict[str, Any]:
    """What a node says of itself, without what it would say anyway; `known`: what options say, met before."""
    node_type = attrs["type"]
    out: dict[str, Any] = {"type": node_type}
    if node_type == "block":
        out |= _block(graph.dim, attrs, known)
        positions = (graph.nx.nodes[position] for position in graph.sources(node, "position"))
        out["positions"] = sorted((_position(p) for p in positions if not _has_parameters(p)), key=_text)
    elif node_type == "position":
        out |= _position(attrs)
    else:
        own = {name: value for name, value in attrs.items() if name not in ("type", "tie", "labels")}
        if node_type == "read":
            own["scale"] = _rounded(attrs["scale"])
        if own.get("encoder") is not None:
            own |= {"encoder": canonical(Graph(own["encoder"])), "tie_token_emb": graph.tie_token_emb}
        usual: dict[str, Any] = {"emb_dim": graph.dim} if node_type == "input" else {}
        usual = logits_defaults(attrs["tied"], graph.dim) if node_type == "output" else usual
        own |= {name: None for name, value in usual.items() if own[name] == value}
        out |= _said(own, NODE_ATTRIBUTES[node_type])
    return out


def _block(dim: int, attrs: Mapping[str, Any], known: dict[Hashable, Any]) -> dict[str, Any]:
    kind, options = kind_of(attrs["kind"]), attrs["options"]
    key = kind.name, content(options)
    if key not in known:  # blocks alike are many
        meant = vars(kind.completed(dim, options))
        by_edges = {"branch_scale", "residual_attn", *(option.name for option in kind.reading_options())}
        own = {name: meant[name] for name in options if name not in by_edges}
        known[key] = _said(own, kind.all_options())
    factor = _rounded(attrs["scale"] * options["branch_scale"])
    own = {"kind": kind.name, "options": known[key], "factor": factor}
    return own | {name: attrs[name] for name in ("shift", "stage")}


def _rounded(factor: Any) -> Any:
    """A text divides, and 0.19 is one over no float."""
    return _plain(float(f"{factor:.12g}"))


def _position(attrs: Mapping[str, Any]) -> dict[str, Any]:
    scheme = SCHEMES.get(attrs["scheme"])
    own = {} if scheme is None else _said(scheme.with_defaults(attrs), scheme.attributes)
    return {"scheme": attrs["scheme"], **own}


def _said(values: Mapping[str, Any], declared: Iterable[Option]) -> dict[str, Any]:
    """Values without the declared defaults, so that an option that a later release adds changes nothing."""
    known = by_name([*declared])
    out = {}
    for name, value in values.items():
        option, value = known.get(name), _plain(value)
        if option is not None and option.pair and isinstance(value, list) and value[0] == value[1]:
            value = value[0]
        if option is None or value != _plain(option.default):
            out[name] = value
    return out


def _plain(value: Any) -> Any:
    """A value in JSON's types, with one way to write each number: 4 for 4.0."""
    value = plain(value)
    if isinstance(value, tuple | list):
        return [*map(_plain, value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Their order ---------------------------------------------------------------------------------------------------------


def _numbered(nodes: Mapping[str, _Node]) -> dict[str, int]:
    """Each node's number, after those it reads: where there is a choice, by what nodes say, read and are read by.

    The colours are those of Weisfeiler and Leman, refined along the graph's edges in either direction and along ties.
    Two nodes of one colour that read the same are images of each other, and either may come first.
    """
    colours = _coloured(nodes, dict.fromkeys(nodes, ""))
    mates: dict[Any, list[str]] = {}
    for node, said in nodes.items():
        mates.setdefault(said.tie, []).append(colours[node])
    ties = {
        tie: _hash(sorted(members)) if tie is not None and len(members) > 1 else "" for tie, members in mates.items()
    }
    if any(ties.values()):
        colours = _coloured(nodes, {node: _hash([colours[node], ties[said.tie]]) for node, said in nodes.items()})

    readers: dict[str, set[str]] = {node: set() for node in nodes}
    waits = {}
    for node, said in nodes.items():
        sources = {source for _, stream in _each(said) for source in stream}
        waits[node] = len(sources)
        for source in sources:
            readers[source].add(node)
    numbers: dict[str, int] = {}
    ready: list[tuple[str, str, str]] = []

    def enter(node: str) -> None:
        heapq.heappush(ready, (colours[node], _text(nodes[node].form(lambda other: numbers[other])), node))

    for node, count in waits.items():
        if not count:
            enter(node)
    while ready:
        node = heapq.heappop(ready)[-1]
        numbers[node] = len(numbers)
        for reader in readers[node]:
            waits[reader] -= 1
            if not waits[reader]:
                enter(reader)
    return numbers


def _coloured(nodes: Mapping[str, _Node], before: Mapping[str, str]) -> dict[str, str]:
    """Nodes that say the same, read the same and are read by the same have one colour."""
    down: dict[str, str] = {}
    for node, said in nodes.items():
        down[node] = _hash([before[node], said.form(lambda other: down[other])])
    up: dict[str, list[Any]] = {node: [] for node in nodes}
    colours: dict[str, str] = {}
    for node in reversed([*nodes]):
        colours[node] = _hash([down[node], sorted(up[node])])
        for what, stream in _each(nodes[node]):
            for source in stream:
                up[source].append([what, colours[node]])
    return colours


def _each(node: _Node) -> Iterator[tuple[str, Stream]]:
    return ((what, stream) for what, streams in node.reads.items() for stream in streams)


def _hash(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()
