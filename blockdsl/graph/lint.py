"""Whether a graph can be lowered, and if not, every reason why.

One function a rule; each yields sentences that start with the node they are about. Rules that would trip over
an earlier fault run only when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import networkx as nx

from ..errors import GraphError, did_you_mean
from ..language.unparse import is_name
from ..registry.kinds import OF_ALL_BLOCKS, SCORE_SIZES, Kind, kinds
from ..registry.norms import final_norm, reads_condition, shares
from ..registry.options import Option, by_name, content, spell
from ..registry.pools import SEQUENCE_POOLS, end_clash, image_pool_clash, pool_clash, pool_of
from ..registry.positions import REPLACE_ABSOLUTE, SCHEMES
from ..registry.reads import JOINS
from ..registry.tokens import (
    INPUT_OPTIONS,
    INPUT_SCHEMES,
    LOGITS_OPTIONS,
    MODELS,
    OUTPUT_OPTIONS,
    not_tiled,
    odd_sinusoid,
)
from .given import misread
from .graph import Graph
from .nodes import EDGES, GRAPH_ATTRIBUTES, LABELLED, NODE_ATTRIBUTES, carried, is_note

_STREAM_FROM = {"input", "block", "sum", "read"}
_STREAM_TO = {"block", "sum", "read", "output"}

Rule = Callable[[Graph], Iterator[str]]


def check(graph: Graph) -> None:
    """Whether a graph can be lowered.

    Raises:
        GraphError: it cannot; the message lists every fault.
    """
    if found := faults(graph):
        raise GraphError("the graph cannot be lowered:\n" + "\n".join(f"  {fault}" for fault in found))


def check_readable(graph: Graph) -> None:
    """Whether a graph can be drawn and compared, which takes less than lowering it.

    Raises:
        GraphError: a node or an edge says of itself what it cannot, or there is a cycle.
    """
    if found := faults(graph, _READABLE):
        raise GraphError("the graph cannot be read:\n" + "\n".join(f"  {fault}" for fault in found))


def faults(graph: Graph, groups: tuple[tuple[Rule, ...], ...] | None = None) -> list[str]:
    """Every reason the graph cannot be lowered; empty when it can. `groups`: of rules, instead of all."""
    if not isinstance(graph.nx, nx.DiGraph) or graph.nx.is_multigraph():
        return [f"the graph: must be a networkx.DiGraph, not {type(graph.nx).__name__}"]
    for rules in _RULES if groups is None else groups:
        found = [fault for rule in rules for fault in rule(graph)]
        if found:
            return found
    return []


def _nodes(graph: Graph) -> Iterator[str]:
    attributes = graph.nx.graph
    for fault in _attributes(GRAPH_ATTRIBUTES, attributes, ("stages",)):
        yield f"the graph: {fault}"
    for fault in _unknown(attributes, {"stages", *by_name(GRAPH_ATTRIBUTES)}):
        yield f"the graph: {fault}"
    if "stages" in attributes and not _are_stages(attributes["stages"]):
        yield f"the graph: stages must be a list of names (or None), not {attributes['stages']!r}"
    for node, attrs in graph.nx.nodes(data=True):
        node_type = attrs.get("type")
        if not isinstance(node, str) or not node:
            yield f"{node!r}: a node's name must be a string"
        if not isinstance(node_type, str) or node_type not in NODE_ATTRIBUTES:
            yield f"{node}: unknown node type {node_type!r}; the types are {', '.join(NODE_ATTRIBUTES)}"
            continue
        dicts = ("options", "given") if node_type == "block" else ()
        problems = [*_attributes(NODE_ATTRIBUTES[node_type], attrs, dicts)]
        known = {"type", *dicts, *by_name(NODE_ATTRIBUTES[node_type])}
        if node_type in LABELLED:
            known.add("labels")
            if not _are_names(attrs.get("labels", ())):
                problems.append(f"labels must be names, of letters, digits and '_', not {attrs['labels']!r}")
        known |= {"encoder", "tie_token_emb"} if node_type == "context" else set()
        if node_type == "position" and not problems and (scheme := SCHEMES.get(attrs["scheme"])):
            problems = [*_attributes(scheme.attributes, scheme.with_defaults(attrs), ())]
            known |= by_name(scheme.attributes).keys()
        problems += _unknown(attrs, known)
        for fault in problems:
            yield f"{node}: {fault}"
        for name in dicts:
            if name in attrs and not isinstance(attrs[name], dict):
                yield f"{node}: {name} must be a dict, not {attrs[name]!r}"
    for node_type in ("input", "output"):
        if len(graph.nodes(node_type)) != 1:
            yield f"the graph has {len(graph.nodes(node_type))} {node_type} nodes and needs one"
    for node_type in ("context", "condition"):
        if len(graph.nodes(node_type)) > 1:
            yield f"the graph has more than one {node_type}"
    for node in graph.nodes("context"):
        attrs = graph.nx.nodes[node]
        if not isinstance(attrs.get("encoder", graph.nx), nx.DiGraph):
            yield f"{node}: encoder must be a networkx.DiGraph, as another graph's nx, not {attrs['encoder']!r}"
        if attrs.get("tie_token_emb", False) not in ((True, False) if "encoder" in attrs else (False,)):
            yield f"{node}: tie_token_emb must be true or false, and true only where there is an encoder"


def _attributes(declared: tuple[Option, ...], attrs: Mapping[str, Any], others: tuple[str, ...]) -> Iterator[str]:
    """What is missing (of the `others` too) or has a wrong value."""
    if missing := {*others, *(option.name for option in declared)} - attrs.keys():
        yield f"has no attribute {', '.join(sorted(missing))}"
    for option in declared:
        if option.name in attrs and (fault := option.fault(attrs[option.name])):
            yield f"{option.name} {fault}"


def _unknown(attrs: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """Attributes that nothing reads, but for notes."""
    for name in attrs:
        if name not in known and not is_note(name):
            hint = did_you_mean(str(name), known) or f"to keep a note of your own, call it '_{name}'"
            yield f"unknown attribute {name!r}; {hint}"


def _are_names(labels: Any) -> bool:
    return isinstance(labels, tuple | list) and all(isinstance(name, str) and is_name(name) for name in labels)


def _are_stages(stages: Any) -> bool:
    return isinstance(stages, list) and bool(stages) and all(name is None or isinstance(name, str) for name in stages)


def _edges(graph: Graph) -> Iterator[str]:
    types = {node: attrs.get("type") for node, attrs in graph.nx.nodes(data=True)}
    labelled = [option.reads for kind in kinds().values() for option in kind.options if option.reads]
    for source, target, attrs in graph.nx.edges(data=True):
        for fault in _unknown(attrs, ("carries",)):
            yield f"{source} → {target}: {fault}"
        if not isinstance(attrs.get("carries", ()), str | tuple | list):
            yield f"{source} → {target}: carries must be a tuple of names, not {attrs['carries']!r}"
            continue
        if not carried(attrs):
            yield f"{source} → {target}: carries nothing; remove it, as in g.nx.remove_edge('{source}', '{target}')"
        for what in carried(attrs):
            ends = types[source], types[target]
            fits = {
                "stream": ends[0] in _STREAM_FROM and ends[1] in _STREAM_TO,
                "base": ends[0] in _STREAM_FROM and ends[1] == "sum",
                "read": ends[0] in _STREAM_FROM and ends[1] == "read",
                "context": ends == ("context", "block"),
                "condition": ends[0] == "condition" and ends[1] in ("block", "output"),
                "position": ends[0] == "position" and ends[1] in ("block", "input"),
                "scores": ends == ("block", "block"),
                "normed": ends == ("block", "block"),
            }
            if what not in (*EDGES, *labelled):
                known = ", ".join(dict.fromkeys((*EDGES, *labelled)))
                yield f"{source} → {target}: carries {what!r}, which is none of {known}"
            elif not fits.get(what) and not (ends[0] in _STREAM_FROM and _takes(graph, target, what)):
                yield f"{source} → {target}: {ends[0]} cannot hand {what} to {ends[1]}"


def _takes(graph: Graph, node: str, what: str) -> bool:
    """Whether an option of a block that takes a label reads this; on or not, if nothing else may bring it."""
    attrs = graph.nx.nodes[node]
    kind = kinds().get(attrs.get("kind")) if attrs.get("type") == "block" else None
    reading = [option for option in kind.reading_options() if option.reads == what] if kind is not None else []
    return any(what not in EDGES or attrs["options"].get(option.name) for option in reading)


def _blocks(graph: Graph) -> Iterator[str]:
    known = kinds()
    declared = {name: by_name(kind.all_options()) for name, kind in known.items()}
    judged: dict[Hashable, list[str]] = {}
    for node in graph.nodes("block"):
        attrs = graph.nx.nodes[node]
        name, options = attrs["kind"], attrs["options"]
        if "." in node:
            yield f"{node}: a block's name has no '.', since it is its module's name too"
        if name not in known:
            yield f"{node}: unknown block kind {name!r}; registered: {', '.join(sorted(known))}"
            continue
        key = name, content(options)
        if key not in judged:
            judged[key] = [*_options(declared[name], options)]
            if not judged[key] and (clash := known[name].clash(graph.dim, options)):
                judged[key] = [clash]
        for problem in judged[key]:
            yield f"{node}: {problem}"
        if known[name].has_scores() and options.get("dim_head", 0) is None:
            yield f"{node}: dim_head is none; in a graph it is a number"
        bidirectional = known[name].both_ways and options.get("bidirectional")
        if bidirectional and graph.causal:
            yield f"{node}: {known[name].title} is bidirectional, and g.nx.graph['causal'] is true"
        if known[name].causal_only and not bidirectional and not graph.causal:
            yield f"{node}: {known[name].title} runs only in a causal stack; g.nx.graph['causal'] is false"
        if attrs["shift"] and (attrs["shift"] * (1 if graph.causal else 2)) + 1 > graph.dim:
            yield f"{node}: a shift of {attrs['shift']} splits dim={graph.dim} into too many parts"
        if not attrs["scale"] > 0:
            yield f"{node}: scale must be a number above 0, not {attrs['scale']!r}"


def _options(declared: Mapping[str, Option], options: Mapping[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        if key not in declared:
            hint = did_you_mean(str(key), declared)
            yield f"unknown option '{key}'" + (f"; {hint}" if hint else "")
        elif fault := declared[key].fault(value):
            yield f"{key} {fault}"
    for key in declared:
        if key not in options:
            yield f"option '{key}' is missing"


def _acyclic(graph: Graph) -> Iterator[str]:
    if nx.is_directed_acyclic_graph(graph.nx):
        return
    edges = [edge[:2] for edge in nx.find_cycle(graph.nx)]
    way = " → ".join([*(source for source, _ in edges), edges[0][0]])
    for source, target in edges:
        carries = carried(graph.nx.edges[source, target])
        if {*carries} & {"read", *(option.reads for kind in kinds().values() for option in kind.reading_options())}:
            yield f"{target}: reads {source}, which comes after it ({way}); only an earlier place can be read"
            return
    yield f"{edges[0][0]}: is part of a cycle: {way}"


def _stream(graph: Graph) -> Iterator[str]:
    """Dead ends. Without one, and without a cycle, every node is on a way from the input to the output."""
    edges = graph.nx.edges(data=True)
    stream = [(source, target) for source, target, attrs in edges if {"stream", "base"} & {*carried(attrs)}]
    reading = {target for _, target in stream}
    read = {source for source, _ in stream} | {s for s, _, attrs in edges if {"read", "context"} & {*carried(attrs)}}
    for node in graph.nodes("block") + graph.nodes("sum") + graph.nodes("read") + [graph.end]:
        if node not in reading:
            yield f"{node}: reads no stream; add an edge to it, as in g.nx.add_edge('…', '{node}')"
        if node not in read and node != graph.end:
            yield f"{node}: nothing reads its output; add an edge from it, as in g.nx.add_edge('{node}', '…')"


def _reads(graph: Graph) -> Iterator[str]:
    """Reads, and options that take a label."""
    for node in graph.nodes("read"):
        attrs = graph.nx.nodes[node]
        if "." in node:
            yield f"{node}: a read's name has no '.', since it is its module's name too"
        if not graph.sources(node, "read"):
            yield f"{node}: reads no earlier value; add an edge, as in g.nx.add_edge('…', '{node}', carries='read')"
        if (attrs["init"] is None) != (JOINS[attrs["join"]].init is None):
            wanted = "is none" if JOINS[attrs["join"]].init is None else "is a number"
            yield f"{node}: init of a read by {attrs['join']} {wanted}, not {attrs['init']!r}"
        if not attrs["scale"] > 0:
            yield f"{node}: scale must be a number above 0, not {attrs['scale']!r}"
    for node, kind, attrs in _each_block(graph):
        for option in kind.reading_options():
            sources, on = graph.sources(node, option.reads), attrs["options"][option.name]
            if on and len(sources) != 1:
                yield f"{node}: its option {option.name} is on, and {len(sources)} nodes hand it {option.reads}"
            elif sources and not on and option.reads not in EDGES:
                yield f"{node}: reads {option.reads} of {sources[0]}, but its option {option.name} is false"
            for source in sources if on else ():
                if problem := misread(graph, source, node, option.reads):
                    yield f"{node}: {option.name} reads {problem}"


def _sums(graph: Graph) -> Iterator[str]:
    start = graph.start
    for node in graph.nodes("sum"):
        bases = graph.sources(node, "base")
        if len(bases) > 1:
            yield f"{node}: has more than one base: {', '.join(bases)}"
        if not graph.sources(node, "stream"):
            yield f"{node}: no branch meets here"
        for base in bases[:1]:
            for branch in graph.sources(node, "stream"):
                if base != start and start in _upstream(graph, branch, base):
                    yield f"{node}: the branch {branch} does not start at its base {base} but at {start}"


def _upstream(graph: Graph, node: str, base: str) -> set[str]:
    """The nodes that the stream into `node` comes through, back to `base` and not past it.

    Branches inside are left out: their own sum is judged by itself.
    """
    waiting, seen = [node], {base}
    while waiting:
        at = waiting.pop()
        if at not in seen:
            seen.add(at)
            waiting += graph.sources(at, "base") or graph.sources(at, "stream")
    return seen


def _each_block(graph: Graph) -> Iterator[tuple[str, Kind, dict[str, Any]]]:
    known = kinds()
    for node in graph.nodes("block"):
        attrs = graph.nx.nodes[node]
        yield node, known[attrs["kind"]], attrs


def _contexts(graph: Graph) -> Iterator[str]:
    for node, kind, attrs in _each_block(graph):
        reads = bool(graph.sources(node, "context"))
        if ("context" in kind.inputs) != reads:
            yield f"{node}: {kind.title} {'does not read a' if reads else 'has no'} context"
        for source in graph.sources(node, "context"):
            has = graph.dim_context if graph.node_type(source) == "context" else graph.dim
            if (wants := attrs["options"].get("dim_context") or graph.dim) != has:
                yield f"{node}: reads a context of {wants} features (dim_context), and {source} has {has}"


def _conditions(graph: Graph) -> Iterator[str]:
    last = final_norm(graph.nx.nodes[graph.end])
    wanted = {graph.end: last is not None and last.adaptive}
    wanted |= {node: reads_condition(attrs["options"]) for node, _, attrs in _each_block(graph)}
    for node, reads in wanted.items():
        if reads != bool(graph.sources(node, "condition")):
            wrong = "has no condition, and is adaptive" if reads else "reads a condition, but nothing of it is adaptive"
            yield f"{node}: {wrong}"


def _encoder(graph: Graph) -> Iterator[str]:
    """What the graph of the stream that is read says of itself, and whether it fits."""
    encoder = graph.encoder
    if encoder is None:
        return
    found = faults(encoder)
    yield from (f"the encoder: {fault}" for fault in found)
    if found:
        return
    start, end = encoder.nx.nodes[encoder.start], encoder.nx.nodes[encoder.end]
    if encoder.nodes("context"):
        yield f"the encoder: {encoder.nodes('context')[0]}: it attends to a context, and there is none to give it"
    if end["logits_dim"] is not None or end["num_classes"] is not None:
        yield f"the encoder: {encoder.end}: gives logits; what the decoder reads are vectors"
    if end["pool"] is not None or (encoder.reads == "images" and end["dim_out"] is not None):
        yield f"the encoder: {encoder.end}: gives one vector of a row, and the decoder reads those of its tokens"
    width = encoder.dim if end["dim_out"] is None else end["dim_out"]
    if width != (wanted := graph.dim_context):
        yield f"the encoder gives vectors of {width} features, and the decoder's cross-attention reads {wanted}"
    if not graph.tie_token_emb:
        return
    if encoder.reads != "tokens" or graph.reads != "tokens":
        yield "tie_token_emb is set, but encoder and decoder do not both read tokens"
        return
    ours = graph.nx.nodes[graph.start]
    for name, theirs, own in (
        ("emb_dim", encoder.emb_dim, graph.emb_dim),
        *((name, start[name], ours[name]) for name in ("num_tokens", "l2norm_embed")),
    ):
        if theirs != own:
            yield f"tie_token_emb is set, but the encoder has {name}={theirs} and the decoder {name}={own}"


def _positions(graph: Graph) -> Iterator[str]:
    for node, kind, attrs in _each_block(graph):
        schemes: list[str] = []
        for position in graph.sources(node, "position"):
            spec = graph.nx.nodes[position]
            schemes.append(spec["scheme"])
            if spec["scheme"] in INPUT_SCHEMES:
                yield f"{node}: reads {spec['scheme']} positions, which belong to the input"
                continue
            scheme = SCHEMES[spec["scheme"]]
            if scheme.read_by not in kind.inputs:
                yield f"{node}: {kind.title} does not read {scheme.title}"
            elif misfit := scheme.misfit(scheme.complete(spec), SimpleNamespace(**attrs["options"])):
                yield f"{position} → {node}: {misfit.problem}"
        if attrs["options"].get("rotary", "rotary" in schemes) != ("rotary" in schemes):
            what = "reads" if "rotary" in schemes else "reads no"
            yield f"{node}: {what} rotary positions, and its option rotary is {str(attrs['options']['rotary']).lower()}"
        for scheme_name in {name for name in schemes if schemes.count(name) > 1}:
            yield f"{node}: reads more than one position of the scheme {scheme_name}"


def _scores(graph: Graph) -> Iterator[str]:
    known = kinds()
    for node, kind, attrs in _each_block(graph):
        sources, options = graph.sources(node, "scores"), attrs["options"]
        if sources and "scores" not in kind.inputs:
            yield f"{node}: {kind.title} does not read scores"
            continue
        if len(sources) > 1:
            yield f"{node}: reads the scores of more than one block"
        if sources and not (options["residual_attn"] or options.get("scores")):
            yield f"{node}: reads scores, but its option residual_attn is false"
        for source in sources:
            other = graph.nx.nodes[source]
            if other["type"] != "block":  # which `_reads` says
                continue
            other_kind, other_options = known[other["kind"]], other["options"]
            if "scores" not in other_kind.inputs:
                yield f"{source} → {node}: {other_kind.title} passes on no scores"
            elif unlike := [name for name in SCORE_SIZES if other_options.get(name) != options.get(name)]:
                for name in unlike:
                    theirs, ours = other_options.get(name), options.get(name)
                    yield f"{source} → {node}: scores of {theirs} {SCORE_SIZES[name]} do not fit {ours}"
            elif _over_context(kind, options) != _over_context(other_kind, other_options):
                yield f"{source} → {node}: scores over tokens do not fit scores over the context"


def _over_context(kind: Kind, options: Mapping[str, Any]) -> bool:
    """Whether keys are of another sequence."""
    return "context" in kind.inputs and not options.get("context")


def _shared_norms(graph: Graph) -> Iterator[str]:
    for node, _, attrs in _each_block(graph):
        sources = graph.sources(node, "normed")
        if sources and not attrs["options"]["shared_norm"]:
            yield f"{node}: reads what {sources[0]} has normed, but its option shared_norm is false"
        elif attrs["options"]["shared_norm"] and len(sources) != 1:
            yield f"{node}: its option shared_norm is on, and what {len(sources)} blocks have normed enters it"
        for source in sources:
            if not shares(graph.nx.nodes[source]["options"]):
                yield f"{source} → {node}: {source} has no norm before its branch"
            elif graph.sources(source, "stream") != graph.sources(node, "stream"):
                yield f"{source} → {node}: a norm is shared by blocks that read the same stream"


def _value_embeds(graph: Graph) -> Iterator[str]:
    tables = graph.value_embeds
    for node, kind, attrs in _each_block(graph):
        if (number := attrs["options"].get("value_embed")) is None:
            continue
        if graph.reads not in (None, "tokens"):
            yield f"{node}: reads embeddings of tokens (value_embed), and the model reads {graph.reads}"
        elif (features := kind.value_features(graph.dim, attrs["options"])) != tables[number]:
            yield f"{node}: value_embed={number} has {features} features here, and {tables[number]} before"


def _alike(graph: Graph) -> Iterator[str]:
    said = {option.name: graph.of_all_blocks(option.name) for option in OF_ALL_BLOCKS}
    for node, _, attrs in _each_block(graph):
        for name, value in said.items():
            if (own := attrs["options"][name]) != value:
                yield f"{node}: {name} is {spell(own)}, and {spell(value)} of the first block; all blocks say the same"


def _ends(graph: Graph) -> Iterator[str]:
    yield from _of_another_model(graph)
    if graph.reads in ("tokens", "vectors"):
        yield from _sequences(graph)
    elif graph.reads == "images":
        yield from _images(graph)
    elif graph.sources(graph.start, "position"):
        yield f"{graph.start}: reads positions, but embeds no tokens"
    schemes = [graph.nx.nodes[position]["scheme"] for position in graph.sources(graph.start, "position")]
    if len(schemes) > 1:
        yield f"{graph.start}: reads more than one position"
    if inner := sorted(SCHEMES.keys() & {*schemes}):
        yield f"{graph.start}: reads {SCHEMES[inner[0]].title}, which belong to blocks"


def _of_another_model(graph: Graph) -> Iterator[str]:
    """What the input or the output has, and the model that the graph says has not."""
    start, end, reads = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end], graph.reads
    own = {option.name for option in MODELS.get(reads or "", ())}
    lacks = "embeds no tokens" if reads is None else f"reads {reads}"
    for option in INPUT_OPTIONS:
        if option.name not in own and start[option.name] != option.default:
            yield f"{graph.start}: has {option.name}, but {lacks}"
    for option in OUTPUT_OPTIONS:
        if option.name not in {*own, "num_classes", "dim_out"} and end[option.name] != option.default:
            yield f"{graph.end}: has {option.name}, but the input {lacks}"
    if end["logits_dim"] is not None and reads != "tokens":
        yield f"{graph.end}: gives logits, but the input embeds no tokens"
    if end["tied"] and reads != "tokens":
        yield f"{graph.end}: is tied to an embedding, but the input has none"
    if end["num_classes"] is not None and reads != "images":
        yield f"{graph.end}: gives classes, but the input reads no images"
    if end["dim_out"] is not None and reads not in ("vectors", "images"):
        yield f"{graph.end}: gives vectors, but the input reads {reads}"
    if not end["dim_out_bias"] and end["dim_out"] is None:
        yield f"{graph.end}: has dim_out_bias, but no dim_out"


def _sequences(graph: Graph) -> Iterator[str]:
    """Of models over tokens and over vectors."""
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    if start["max_seq_len"] is None:
        yield f"{graph.start}: {'embeds tokens' if graph.reads == 'tokens' else 'reads vectors'} and needs max_seq_len"
    if start["shift_mem_down"] and not start["max_mem_len"]:
        yield f"{graph.start}: has shift_mem_down, but no max_mem_len keeps memories"
    if start["max_mem_len"] and (reason := graph.why_not_segmented()):
        yield f"{graph.start}: has max_mem_len, but the stack cannot read a text in segments: {reason}"
    if end["tied"] and end["logits_dim"] != start["num_tokens"]:
        tokens = start["num_tokens"]
        yield f"{graph.end}: is tied to an embedding of {tokens} tokens, but has logits_dim={end['logits_dim']}"
    if graph.reads == "tokens" and (found := pool_clash(end, graph.dim)):
        yield f"{graph.end}: {found[0]} is set, but {found[1]}"
    if end["pool"] == "cls" and graph.sees_later() is None:
        yield f"{graph.end}: class tokens are in front, and in a causal stack they see nothing: pool=last"
    if end["pool"] == "cls" and start["max_mem_len"]:
        yield f"{graph.end}: class tokens see one segment alone, and {graph.start} has max_mem_len"
    if end["squeeze_out_last_dim"] and end["logits_dim"] != 1:
        yield f"{graph.end}: has squeeze_out_last_dim, and logits_dim={end['logits_dim']}"
    if end["pool"] not in (None, *SEQUENCE_POOLS):
        yield f"{graph.end}: pools by {end['pool']}, and a model over {graph.reads} by {', '.join(SEQUENCE_POOLS)}"
    if graph.reads == "tokens" and (problem := end_clash(end, start["num_tokens"])):
        yield f"{graph.end}: end_token is set, but {problem}"
    for option in OUTPUT_OPTIONS:
        if option in LOGITS_OPTIONS and end[option.name] != option.default and end["logits_dim"] is None:
            yield f"{graph.end}: has {option.name}, but gives no logits"
    if not end["logits_transform_bias"] and end["logits_transform"] is None:
        yield f"{graph.end}: has logits_transform_bias=false, but no logits_transform"
    if end["tied"] and graph.emb_dim != graph.dim and end["logits_transform"] is None:
        yield f"{graph.end}: is tied to an embedding of {graph.emb_dim} features, but the stream has {graph.dim}"
    own = {graph.nx.nodes[position]["scheme"]: position for position in graph.sources(graph.start, "position")}
    if "sinusoidal" in own and odd_sinusoid(graph.emb_dim):
        yield f"{own['sinusoidal']}: sinusoids come in pairs, but the embedding has {graph.emb_dim} features"
    if start["pos_offset"] and "absolute" not in own:
        yield f"{graph.start}: has pos_offset, but reads no learned positions"
    if "absolute" in own and start["max_seq_len"] == 0:
        yield f"{own['absolute']}: positions are learned up to a max_seq_len, and {graph.start} has 0, any length"
    read = {graph.nx.nodes[position]["scheme"] for position in graph.nodes("position")}
    if (added := sorted({*own} & {*INPUT_SCHEMES})) and (instead := sorted(read & REPLACE_ABSOLUTE)):
        title = SCHEMES[instead[0]].title
        yield f"{graph.start}: reads {added[0]} positions while blocks read {title}; a model has one or the other"


def _images(graph: Graph) -> Iterator[str]:
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    if start["patch_size"] is None:
        yield f"{graph.start}: reads images and needs patch_size"
    elif problem := not_tiled(start["image_size"], start["patch_size"], start["crop"]):
        yield f"{graph.start}: {problem}"
    if [graph.nx.nodes[position]["scheme"] for position in graph.sources(graph.start, "position")] != ["absolute"]:
        yield f"{graph.start}: reads images, whose patches need absolute positions"
    if graph.nodes("context"):
        yield f"{graph.start}: reads images, and has no context to give to cross-attention"
    if found := image_pool_clash(end, graph.dim):
        yield f"{graph.end}: {found[0]} is set, but {found[1]}"
    if graph.sees_later() is not None:
        return
    if start["num_register_tokens"] and not start["class_token"]:
        yield f"{graph.start}: register tokens come after the patches, and no patch of a causal stack sees them"
    if pool_of(end) in ("first", "first_mean"):
        yield f"{graph.end}: gives the first token's vector, and that of a causal stack sees no other"


def _readers(graph: Graph) -> Iterator[str]:
    for node in graph.nodes("context") + graph.nodes("condition") + graph.nodes("position"):
        if not graph.nx.succ[node]:
            yield f"{node}: nothing reads it; remove it, as in g.nx.remove_node('{node}')"


def _ties(graph: Graph) -> Iterator[str]:
    for owner, nodes in graph.tied().items():
        first = graph.nx.nodes[owner]
        for node in nodes[1:]:
            attrs = graph.nx.nodes[node]
            if attrs["type"] != first["type"]:
                yield f"{node}: is tied to {owner}, and one of them is a read"
            elif attrs["type"] == "read":
                counts = [len(graph.sources(each, "read")) for each in (owner, node)]
                differ = [name for name in ("join", "init") if attrs[name] != first[name]]
                if counts[0] != counts[1] and JOINS[attrs["join"]].shapes(1, 1):
                    differ.append("how many values it reads")
                if differ:
                    yield f"{node}: is tied to {owner}, which differs in {' and '.join(differ)}"
            elif attrs["kind"] != first["kind"]:
                yield f"{node}: is tied to {owner}, which is another kind of block"
            elif attrs["options"] != first["options"]:
                differ = [key for key in attrs["options"] if attrs["options"][key] != first["options"].get(key)]
                yield f"{node}: is tied to {owner}, which differs in {' and '.join(sorted(differ))}"


def _stage_range(graph: Graph) -> Iterator[str]:
    for node in graph.nodes("block") + graph.nodes("sum") + graph.nodes("read"):
        stage = graph.nx.nodes[node]["stage"]
        if stage >= len(graph.stages):
            yield f"{node}: stage must be from 0 to {len(graph.stages) - 1}, not {stage!r}"


def _stages(graph: Graph) -> Iterator[str]:
    for node in graph.nodes("block") + graph.nodes("sum") + graph.nodes("read"):
        attrs = graph.nx.nodes[node]
        for source in graph.sources(node, "stream"):
            before = graph.nx.nodes[source].get("stage", 0)
            if before > attrs["stage"]:
                yield f"{node}: is in stage {attrs['stage']}, before its source {source} in stage {before}"


# Each row is judged when those above it hold.
_RULES: tuple[tuple[Rule, ...], ...] = (
    (_nodes,),
    (_edges, _blocks, _stage_range),
    (
        _acyclic,
        _stream,
        _reads,
        _sums,
        _contexts,
        _conditions,
        _encoder,
        _positions,
        _scores,
        _shared_norms,
        _value_embeds,
        _alike,
        _ends,
        _readers,
        _ties,
        _stages,
    ),
)
_READABLE: tuple[tuple[Rule, ...], ...] = ((_nodes,), (_edges, _blocks, _stage_range, _acyclic))
