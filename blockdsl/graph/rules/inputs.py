"""What blocks and the output read beside the stream: context, condition, positions, scores, norms, embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

from ...registry.kinds import OF_ALL_BLOCKS, SCORE_SIZES, Kind, kinds
from ...registry.norms import final_norm, reads_condition, shares
from ...registry.options import spell
from ...registry.positions import SCHEMES
from ...registry.tokens import INPUT_SCHEMES
from ..given import over_context
from ..graph import Graph
from ..nodes import BlockNode
from .finding import Finding, connect, disconnect, set_option


def contexts(graph: Graph) -> Iterator[Finding]:
    for node, kind, attrs in _each_block(graph):
        reads = graph.sources(node, "context")
        if ("context" in kind.inputs) != bool(reads):
            mend = disconnect(graph, reads[0], node, "context") if reads else _give(graph, node, "context")
            yield Finding(f"{node}: {kind.title} {'does not read a' if reads else 'has no'} context", mend)
        for source in reads:
            has = graph.dim_context if graph.node_type(source) == "context" else graph.dim
            if (wants := attrs["options"].get("dim_context") or graph.dim) != has:
                problem = f"reads a context of {wants} features (dim_context), and {source} has {has}"
                yield Finding(f"{node}: {problem}", set_option(node, "dim_context", has))


def wrong_conditions(graph: Graph) -> Iterator[Finding]:
    last = final_norm(graph.nx.nodes[graph.end])
    wanted = {graph.end: last is not None and last.adaptive}
    wanted |= {node: reads_condition(attrs["options"]) for node, _, attrs in _each_block(graph)}
    for node, reads in wanted.items():
        if reads == bool(found := graph.sources(node, "condition")):
            continue
        if reads:
            yield Finding(f"{node}: has no condition, and is adaptive", _give(graph, node, "condition"))
        else:
            problem = "reads a condition, but nothing of it is adaptive"
            yield Finding(f"{node}: {problem}", disconnect(graph, found[0], node, "condition"))


def _give(graph: Graph, node: str, what: str) -> str:
    """The edge from the context or the condition, and that node where there is none."""
    if found := graph.nodes(what):
        return connect(graph, found[0], node, what)
    dim = "" if what == "context" else f", dim={graph.dim}, expansion=None"
    return f"g.nx.add_node({what!r}, type={what!r}{dim}); g.nx.add_edge({what!r}, {node!r}, carries={what!r})"


def positions(graph: Graph) -> Iterator[Finding]:
    for node, kind, attrs in _each_block(graph):
        schemes: list[str] = []
        options = attrs["options"]
        for position in graph.sources(node, "position"):
            spec, mend = graph.nx.nodes[position], disconnect(graph, position, node, "position")
            schemes.append(spec["scheme"])
            if spec["scheme"] in INPUT_SCHEMES:
                yield Finding(f"{node}: reads {spec['scheme']} positions, which belong to the input", mend)
                continue
            scheme = SCHEMES[spec["scheme"]]
            if scheme.read_by not in kind.inputs:
                yield Finding(f"{node}: {kind.title} does not read {scheme.title}", mend)
            elif misfit := scheme.misfit(scheme.complete(spec), SimpleNamespace(**options)):
                yield Finding(f"{position} → {node}: {misfit.problem}", mend)
        if options.get("rotary", "rotary" in schemes) != ("rotary" in schemes):
            what = "reads" if "rotary" in schemes else "reads no"
            problem = f"{what} rotary positions, and its option rotary is {spell(options['rotary'])}"
            yield Finding(f"{node}: {problem}", set_option(node, "rotary", "rotary" in schemes))
        for position in graph.sources(node, "position"):
            if schemes.count(scheme_name := graph.nx.nodes[position]["scheme"]) > 1:
                schemes = [name for name in schemes if name != scheme_name]
                problem = f"reads more than one position of the scheme {scheme_name}"
                yield Finding(f"{node}: {problem}", disconnect(graph, position, node, "position"))


def scores(graph: Graph) -> Iterator[Finding]:
    known = kinds()
    for node, kind, attrs in _each_block(graph):
        sources, options = graph.sources(node, "scores"), attrs["options"]
        mends = {source: disconnect(graph, source, node, "scores") for source in sources}
        if sources and "scores" not in kind.inputs:
            yield Finding(f"{node}: {kind.title} does not read scores", mends[sources[0]])
            continue
        if len(sources) > 1:
            yield Finding(f"{node}: reads the scores of more than one block", mends[sources[0]])
        if sources and not (options["residual_attn"] or options.get("scores")):
            problem = "reads scores, but its option residual_attn is false"
            yield Finding(f"{node}: {problem}", set_option(node, "residual_attn", True))
        for source in sources:
            other = graph.nx.nodes[source]
            if other["type"] != "block":  # which `wiring.reads` says
                continue
            other_kind, other_options = known[other["kind"]], other["options"]
            problems: list[str] = []
            if "scores" not in other_kind.inputs:
                problems = [f"{other_kind.title} passes on no scores"]
            elif unlike := [name for name in SCORE_SIZES if other_options.get(name) != options.get(name)]:
                ends = [(SCORE_SIZES[name], other_options.get(name), options.get(name)) for name in unlike]
                problems = [f"scores of {theirs} {what} do not fit {ours}" for what, theirs, ours in ends]
            elif over_context(kind, options) != over_context(other_kind, other_options):
                problems = ["scores over tokens do not fit scores over the context"]
            yield from (Finding(f"{source} → {node}: {problem}", mends[source]) for problem in problems)


def shared_norms(graph: Graph) -> Iterator[Finding]:
    for node, _, attrs in _each_block(graph):
        sources, on = graph.sources(node, "normed"), attrs["options"]["shared_norm"]
        if sources and not on:
            problem = f"reads what {sources[0]} has normed, but its option shared_norm is false"
            yield Finding(f"{node}: {problem}", set_option(node, "shared_norm", True))
        elif on and len(sources) != 1:
            problem = f"its option shared_norm is on, and what {len(sources)} blocks have normed enters it"
            mend = disconnect(graph, sources[-1], node, "normed") if sources else set_option(node, "shared_norm", False)
            yield Finding(f"{node}: {problem}", mend)
        for source in sources:
            mend = disconnect(graph, source, node, "normed")
            if not shares(graph.nx.nodes[source]["options"]):
                yield Finding(f"{source} → {node}: {source} has no norm before its branch", mend)
            elif graph.sources(source, "stream") != graph.sources(node, "stream"):
                yield Finding(f"{source} → {node}: a norm is shared by blocks that read the same stream", mend)


def value_embeds(graph: Graph) -> Iterator[Finding]:
    tables = graph.value_embeds
    for node, kind, attrs in _each_block(graph):
        if (number := attrs["options"].get("value_embed")) is None:
            continue
        mend = set_option(node, "value_embed", None)
        if graph.reads not in (None, "tokens"):
            problem = f"reads embeddings of tokens (value_embed), and the model reads {graph.reads}"
            yield Finding(f"{node}: {problem}", mend)
        elif (features := kind.value_features(graph.dim, attrs["options"])) != tables[number]:
            problem = f"value_embed={number} has {features} features here, and {tables[number]} before"
            yield Finding(f"{node}: {problem}", mend)


def alike(graph: Graph) -> Iterator[Finding]:
    said = {option.name: graph.of_all_blocks(option.name) for option in OF_ALL_BLOCKS}
    for node, _, attrs in _each_block(graph):
        for name, value in said.items():
            if (own := attrs["options"][name]) != value:
                problem = f"{name} is {spell(own)}, and {spell(value)} of the first block; all blocks say the same"
                yield Finding(f"{node}: {problem}", set_option(node, name, value))


def _each_block(graph: Graph) -> list[tuple[str, Kind, BlockNode]]:
    known = kinds()
    return graph.once(
        "blocks with their kinds",
        lambda: [(node, known[(attrs := graph.block(node))["kind"]], attrs) for node in graph.nodes("block")],
    )
