"""How a graph says the options of the model around a stack.

Most are attributes of the input node under their own names. The others are said by what the graph has: the scheme of
the position that the input reads, and the output's logits.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..registry.options import Option, Value, by_name
from ..registry.positions import REPLACE_ABSOLUTE
from ..registry.tokens import INPUT_OPTIONS, INPUT_SCHEMES, TOKEN_OPTIONS, input_attributes
from .graph import Graph


def write(graph: Graph, options: Mapping[str, Value], dim: int) -> None:
    """Say `options`, all of them and without a clash, on a graph that embeds no tokens."""
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    declared = by_name(TOKEN_OPTIONS)
    start.update({option.name: _typed(declared[option.name], options[option.name]) for option in INPUT_OPTIONS})
    if options["emb_dim"] == dim:
        start["emb_dim"] = None
    width = options["num_tokens"] if options["logits_dim"] is None else options["logits_dim"]
    end.update(logits_dim=None if options["return_only_embed"] else width, tied=options["tie_embedding"])
    if options["use_abs_pos_emb"] and not block_schemes(graph) & REPLACE_ABSOLUTE:
        scheme = "sinusoidal" if options["scaled_sinu_pos_emb"] else "absolute"
        node = _free_name(graph, scheme)
        graph.nx.add_node(node, type="position", scheme=scheme)
        graph.nx.add_edge(node, graph.start, carries=("position",))


def erase(graph: Graph) -> None:
    """Take away all that `write` says."""
    graph.nx.nodes[graph.start].update(input_attributes())
    graph.nx.nodes[graph.end].update(logits_dim=None, tied=False)
    graph.nx.remove_nodes_from(graph.sources(graph.start, "position"))


def read(graph: Graph) -> dict[str, Value]:
    """The options that a graph with tokens says; `write` of them is the same model."""
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    scheme = input_scheme(graph)
    only_embed, tied = end["logits_dim"] is None, end["tied"]
    return {option.name: start[option.name] for option in INPUT_OPTIONS} | {
        "use_abs_pos_emb": scheme is not None,
        "scaled_sinu_pos_emb": scheme == "sinusoidal",
        "tie_embedding": tied,
        "logits_dim": None if tied or end["logits_dim"] == start["num_tokens"] else end["logits_dim"],
        "return_only_embed": only_embed,
    }


def input_scheme(graph: Graph) -> str | None:
    """The scheme of the positions that are added to the embedded tokens."""
    for node in graph.sources(graph.start, "position"):
        scheme = graph.nx.nodes[node]["scheme"]
        assert isinstance(scheme, str)
        return scheme
    return None


def block_schemes(graph: Graph) -> set[str]:
    """The schemes of the positions that blocks read."""
    return {graph.nx.nodes[node].get("scheme") for node in graph.nodes("position")} - {*INPUT_SCHEMES}


def _typed(option: Option, value: Value) -> Value:
    return float(value) if option.type is float and isinstance(value, int) else value


def _free_name(graph: Graph, name: str) -> str:
    names = (name, *(f"{name}{i}" for i in range(len(graph.nx))))
    return next(name for name in names if name not in graph.nx)
