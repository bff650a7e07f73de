"""Whether a graph can be lowered, and if not, every reason why.

One function a rule; each yields sentences that start with the node they are about. Rules that would trip over
an earlier fault run only when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import networkx as nx

from .errors import did_you_mean
from .kinds import kinds, namespace
from .options import by_name

if TYPE_CHECKING:
    from .graph import BlockGraph

# The attributes each kind of node has.
NODE_ATTRIBUTES = {
    "input": {"num_tokens", "max_seq_len", "emb_dropout"},
    "context": set(),
    "position": {"scheme"},
    "block": {"block", "options", "given", "shift", "scale", "tie", "stage"},
    "sum": {"stage"},
    "output": {"norm", "num_tokens", "tied"},
}

_STREAM_FROM = {"input", "block", "sum"}
_STREAM_TO = {"block", "sum", "output"}

Rule = Callable[["BlockGraph"], Iterator[str]]


def faults(graph: BlockGraph) -> list[str]:
    """Every reason the graph cannot be lowered; empty when it can."""
    for rules in (_SHAPE_RULES, _FLOW_RULES):
        found = [fault for rule in rules for fault in rule(graph)]
        if found:
            return found
    return []


def _nodes(graph: BlockGraph) -> Iterator[str]:
    for name in ("dim", "causal", "stages", "pattern"):
        if name not in graph.nx.graph:
            yield f"the graph has no attribute '{name}'"
    for node, attrs in graph.nx.nodes(data=True):
        kind = attrs.get("kind")
        if kind not in NODE_ATTRIBUTES:
            yield f"{node}: unknown kind of node {kind!r}; there are {', '.join(NODE_ATTRIBUTES)}"
        elif missing := NODE_ATTRIBUTES[kind] - attrs.keys():
            yield f"{node}: has no attribute {', '.join(sorted(missing))}"
    for kind in ("input", "output"):
        if len(graph.nodes(kind)) != 1:
            yield f"the graph has {len(graph.nodes(kind))} {kind} nodes and needs one"
    if len(graph.nodes("context")) > 1:
        yield "the graph has more than one context"


def _edges(graph: BlockGraph) -> Iterator[str]:
    from .graph import EDGES, carried

    kind_of = {node: attrs.get("kind") for node, attrs in graph.nx.nodes(data=True)}
    for source, target, attrs in graph.nx.edges(data=True):
        for what in carried(attrs):
            ends = kind_of[source], kind_of[target]
            fits = {
                "stream": ends[0] in _STREAM_FROM and ends[1] in _STREAM_TO,
                "base": ends[0] in _STREAM_FROM and ends[1] == "sum",
                "context": ends == ("context", "block"),
                "position": ends[0] == "position" and ends[1] in ("block", "input"),
                "scores": ends == ("block", "block"),
            }
            if what not in EDGES:
                yield f"{source} → {target}: carries {what!r}, which is none of {', '.join(EDGES)}"
            elif not fits[what]:
                yield f"{source} → {target}: {ends[0]} cannot hand {what} to {ends[1]}"


def _blocks(graph: BlockGraph) -> Iterator[str]:
    known = kinds()
    for node in graph.nodes("block"):
        attrs = graph.nx.nodes[node]
        name, options = attrs.get("block"), attrs.get("options")
        if name not in known:
            yield f"{node}: unknown block kind {name!r}; registered: {', '.join(sorted(known))}"
            continue
        if not isinstance(options, dict):
            continue  # said by _nodes
        declared = by_name(known[name].all_options())
        wrong = [f"{key} {declared[key].fault(v)}" for key, v in options.items() if key in declared and declared[key].fault(v)]
        unknown = [
            f"unknown option '{key}'" + (f"; {hint}" if (hint := did_you_mean(key, declared)) else "")
            for key in options
            if key not in declared
        ]
        missing = [f"option '{key}' is missing" for key in declared if key not in options]
        for problem in wrong + unknown + missing:
            yield f"{node}: {problem}"
        if not wrong + unknown + missing and (clash := known[name].check(namespace(graph.dim, options))):
            yield f"{node}: {clash}"
        if options.get("dim_head", 0) is None:
            yield f"{node}: dim_head is none; in a graph it is a number"
        if not isinstance(attrs.get("shift"), int) or attrs["shift"] < 0:
            yield f"{node}: shift must be a whole number of at least 0, not {attrs.get('shift')!r}"
        elif attrs["shift"] and (attrs["shift"] * (1 if graph.causal else 2)) + 1 > graph.dim:
            yield f"{node}: a shift of {attrs['shift']} cuts dim={graph.dim} into too many parts"
        if not isinstance(attrs.get("scale"), int | float) or not attrs["scale"] > 0:
            yield f"{node}: scale must be a number above 0, not {attrs.get('scale')!r}"


def _acyclic(graph: BlockGraph) -> Iterator[str]:
    if not nx.is_directed_acyclic_graph(graph.nx):
        cycle = [source for source, _ in nx.find_cycle(graph.nx)]
        yield f"{cycle[0]}: is part of a cycle: {' → '.join([*cycle, cycle[0]])}"


def _stream(graph: BlockGraph) -> Iterator[str]:
    stream = _stream_graph(graph)
    start, end = graph.nodes("input")[0], graph.nodes("output")[0]
    from_input = {start, *nx.descendants(stream, start)}
    to_output = {end, *nx.ancestors(stream, end)}
    for node in stream:
        if node in (start, end):
            continue
        if not stream.pred[node]:
            yield f"{node}: reads no stream; add an edge to it, as in g.nx.add_edge('…', '{node}')"
        elif not stream.succ[node]:
            yield f"{node}: nothing reads what it gives; add an edge from it, as in g.nx.add_edge('{node}', '…')"
        elif node not in from_input or node not in to_output:
            yield f"{node}: is not on a way from the input to the output"
    if not graph.sources(end, "stream"):
        yield f"{end}: reads no stream; add an edge to it, as in g.nx.add_edge('…', '{end}')"
    elif end not in from_input:
        yield f"{end}: is not reached from the input"


def _stream_graph(graph: BlockGraph) -> nx.DiGraph:
    from .graph import carried

    stream = nx.DiGraph()
    stream.add_nodes_from(n for n, attrs in graph.nx.nodes(data=True) if attrs["kind"] not in ("context", "position"))
    stream.add_edges_from(
        (a, b) for a, b, attrs in graph.nx.edges(data=True) if {"stream", "base"} & set(carried(attrs))
    )
    return stream


def _sums(graph: BlockGraph) -> Iterator[str]:
    for node in graph.nodes("sum"):
        bases = graph.sources(node, "base")
        if len(bases) > 1:
            yield f"{node}: has more than one base: {', '.join(bases)}"
        if not graph.sources(node, "stream"):
            yield f"{node}: no branch meets here"
        for base in bases[:1]:
            for branch in graph.sources(node, "stream"):
                if outside := _leaves(graph, branch, base):
                    yield f"{node}: the branch {branch} does not start at its base {base} but at {outside}"


def _leaves(graph: BlockGraph, node: str, base: str) -> str | None:
    """A node without a source that the stream into `node` comes from past `base`; None if all of it is from `base`."""
    waiting, seen = [node], {base}
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        sources = graph.sources(at, "stream") + graph.sources(at, "base")
        if not sources:
            return at
        waiting += sources
    return None


def _inputs(graph: BlockGraph) -> Iterator[str]:
    known = kinds()
    for node in graph.nodes("block"):
        attrs = graph.nx.nodes[node]
        kind, options = known[attrs["block"]], attrs["options"]
        contexts, positions = graph.sources(node, "context"), graph.sources(node, "position")
        scores = graph.sources(node, "scores")
        if ("context" in kind.inputs) != bool(contexts):
            yield f"{node}: {kind.title} {'has no' if not contexts else 'does not read a'} context"
        if positions and "rotary" not in kind.inputs:
            yield f"{node}: {kind.title} does not read positions"
        if len(positions) > 1 or len(scores) > 1:
            yield f"{node}: reads more than one position or more than one block's scores"
        for position in positions:
            spec = graph.nx.nodes[position]
            dim = spec.get("dim")
            if spec["scheme"] != "rotary":
                yield f"{node}: reads {spec['scheme']} positions, which belong to the input"
            elif not isinstance(dim, int) or dim < 2 or dim % 2 or dim > options["dim_head"]:
                yield f"{position}: dim must be even, at least 2 and at most the head's {options['dim_head']}, not {dim}"
        if scores and not options.get("residual_attn"):
            yield f"{node}: reads scores, but its option residual_attn is false"
        for source in scores:
            other = graph.nx.nodes[source]
            if "scores" not in kind.inputs or "scores" not in known[other["block"]].inputs:
                yield f"{source} → {node}: only attention hands on scores"
            elif other["options"]["heads"] != options["heads"]:
                yield f"{source} → {node}: scores of {other['options']['heads']} heads for {options['heads']}"
            elif ("context" in kind.inputs) != ("context" in known[other["block"]].inputs):
                yield f"{source} → {node}: scores over tokens do not fit scores over the context"


def _ends(graph: BlockGraph) -> Iterator[str]:
    start, end = graph.nx.nodes[graph.nodes("input")[0]], graph.nx.nodes[graph.nodes("output")[0]]
    if end["norm"] not in (None, "layernorm", "rmsnorm"):
        yield f"output: norm must be layernorm, rmsnorm or None, not {end['norm']!r}"
    if end["num_tokens"] is not None and start["num_tokens"] is None:
        yield "output: gives logits, but the input embeds no tokens"
    if end["num_tokens"] is None and start["num_tokens"] is not None:
        yield "output: gives no logits, but the input embeds tokens"
    if end["tied"] and start["num_tokens"] != end["num_tokens"]:
        yield "output: is tied to an embedding of another size"
    if start["num_tokens"] is not None and start["max_seq_len"] is None:
        yield "input: embeds tokens and needs max_seq_len"


def _ties(graph: BlockGraph) -> Iterator[str]:
    for owner, nodes in graph.tied().items():
        first = graph.nx.nodes[owner]
        for node in nodes[1:]:
            attrs = graph.nx.nodes[node]
            if attrs["block"] != first["block"]:
                yield f"{node}: is tied to {owner}, which is another kind of block"
            elif attrs["options"] != first["options"]:
                differ = [key for key in attrs["options"] if attrs["options"][key] != first["options"].get(key)]
                yield f"{node}: is tied to {owner}, which has another {' and '.join(sorted(differ))}"


def _stages(graph: BlockGraph) -> Iterator[str]:
    for node, attrs in graph.nx.nodes(data=True):
        if "stage" not in attrs:
            continue
        if not isinstance(attrs["stage"], int) or not 0 <= attrs["stage"] < len(graph.stages):
            yield f"{node}: stage must be from 0 to {len(graph.stages) - 1}, not {attrs['stage']!r}"
            continue
        for source in graph.sources(node, "stream"):
            before = graph.nx.nodes[source].get("stage", 0)
            if before > attrs["stage"]:
                yield f"{node}: is in stage {attrs['stage']}, before its source {source} in stage {before}"


_SHAPE_RULES: tuple[Rule, ...] = (_nodes, _edges, _blocks)
_FLOW_RULES: tuple[Rule, ...] = (_acyclic, _stream, _sums, _inputs, _ends, _ties, _stages)
