"""Whether a graph can be lowered, and if not, every reason why, each with the call that mends it.

Owns which rules are judged when: one that would trip over an earlier fault runs only when there is none. The rules are
in `rules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import networkx as nx

from ..errors import GraphError
from .graph import Graph
from .rules import attributes, ends, inputs, wiring
from .rules.finding import Finding, set_attribute
from .still import Still, still

Rule = Callable[[Graph], Iterator[Finding]]


def check(graph: Graph) -> None:
    """Whether a graph can be lowered.

    Raises:
        GraphError: it cannot; the message says how many faults there are and lists each.
    """
    _refuse("the graph cannot be lowered", faults(graph))


def check_built(graph: Graph) -> None:
    """The same of a graph that `compile.build` made a moment ago: some rules no text can break.

    Raises:
        GraphError: as above.
    """
    if faults(still(graph).thinned(), _OF_BUILT):
        _refuse("the graph cannot be lowered", faults(graph, _OF_BUILT))


def check_readable(graph: Graph) -> None:
    """Whether a graph can be drawn and compared, which takes less than lowering it.

    Raises:
        GraphError: a node or an edge says of itself what it cannot, or there is a cycle.
    """
    if not (isinstance(graph, Still) and graph.readable):
        _refuse("the graph cannot be read", faults(graph, _READABLE))


def _refuse(what: str, found: list[Finding]) -> None:
    if found:
        count = f" {len(found):,} faults" if len(found) > 1 else ""
        raise GraphError("\n".join([f"{what}:{count}", *(f"  {fault}" for fault in found)]))


def faults(graph: Graph, groups: tuple[tuple[Rule, ...], ...] | None = None) -> list[Finding]:
    """Every reason the graph cannot be lowered; empty when it can. `groups`: of rules, instead of all."""
    if not isinstance(graph.nx, nx.DiGraph) or graph.nx.is_multigraph():
        problem = f"the graph: must be a networkx.DiGraph, not {type(graph.nx).__name__}"
        return [Finding(problem, "g.nx = nx.DiGraph(g.nx)" if isinstance(graph.nx, nx.Graph) else "")]
    graph = still(graph)
    for rules in _RULES if groups is None else groups:
        found = [fault for rule in rules for fault in rule(graph)]
        if found:
            return found
    return []


def _encoder(graph: Graph) -> Iterator[Finding]:
    """What the graph of the stream that is read says of itself, and whether it fits."""
    encoder = graph.encoder
    if encoder is None:
        return
    found = faults(encoder)
    for problem, mend in found:
        yield Finding(f"the encoder: {problem}", re.sub(r"\bg\.", "g.encoder.", mend))
    if found:
        return
    start, end = encoder.nx.nodes[encoder.start], encoder.nx.nodes[encoder.end]
    if encoder.nodes("context"):
        yield Finding(
            f"the encoder: {encoder.nodes('context')[0]}: it attends to a context, and there is none to give it"
        )
    if end["logits_dim"] is not None or end["num_classes"] is not None:
        yield Finding(f"the encoder: {encoder.end}: gives logits; what the decoder reads are vectors")
    if end["pool"] is not None or (encoder.reads == "images" and end["dim_out"] is not None):
        yield Finding(
            f"the encoder: {encoder.end}: gives one vector of a row, and the decoder reads those of its tokens"
        )
    width = encoder.dim if end["dim_out"] is None else end["dim_out"]
    if width != (wanted := graph.dim_context):
        yield Finding(
            f"the encoder gives vectors of {width} features, and the decoder's cross-attention reads {wanted}"
        )
    if not graph.tie_token_emb:
        return
    if encoder.reads != "tokens" or graph.reads != "tokens":
        problem = "tie_token_emb is set, but encoder and decoder do not both read tokens"
        yield Finding(problem, set_attribute(graph.nodes("context")[0], "tie_token_emb", False))
        return
    ours = graph.nx.nodes[graph.start]
    for name, theirs, own in (
        ("emb_dim", encoder.emb_dim, graph.emb_dim),
        *((name, start[name], ours[name]) for name in ("num_tokens", "l2norm_embed")),
    ):
        if theirs != own:
            yield Finding(f"tie_token_emb is set, but the encoder has {name}={theirs} and the decoder {name}={own}")


# Each row is judged when those above it hold.
_RULES: tuple[tuple[Rule, ...], ...] = (
    (attributes.nodes,),
    (attributes.edges, attributes.blocks, attributes.stage_range),
    (
        wiring.acyclic,
        wiring.broken_streams,
        wiring.wrong_reads,
        wiring.sums,
        inputs.contexts,
        inputs.wrong_conditions,
        _encoder,
        inputs.positions,
        inputs.scores,
        inputs.shared_norms,
        inputs.value_embeds,
        inputs.alike,
        ends.ends,
        wiring.without_readers,
        wiring.ties,
        wiring.wrong_stages,
    ),
)
_READABLE: tuple[tuple[Rule, ...], ...] = (
    (attributes.nodes,),
    (attributes.edges, attributes.blocks, attributes.stage_range),
    (wiring.acyclic,),
)
_KEPT_BY_BUILD = {
    attributes.nodes,
    attributes.edges,
    attributes.stage_range,
    wiring.acyclic,
    wiring.broken_streams,
    wiring.without_readers,
    wiring.wrong_stages,
}
"""Which no text can break."""
_OF_BUILT = tuple(tuple(rule for rule in rules if rule not in _KEPT_BY_BUILD) for rules in _RULES)
