"""How a graph says the options of the model around a stack, which reads tokens, vectors or images.

Most are attributes of the input or the output node under their own names. The others are said by what the graph has:
the scheme of the position that the input reads, and the output's logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..registry.options import Option, Value, by_name
from ..registry.positions import REPLACE_ABSOLUTE
from ..registry.tokens import INPUT_OPTIONS, INPUT_SCHEMES, MODELS, OUTPUT_OPTIONS, input_attributes, logits_defaults
from .nodes import output_attributes

if TYPE_CHECKING:
    from .graph import Graph


def write(graph: Graph, model: str, options: Mapping[str, Value], dim: int) -> None:
    """Say `options`, all of a model's and without a clash, on the graph of a stack alone."""
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    for node, declared in ((start, INPUT_OPTIONS), (end, OUTPUT_OPTIONS)):
        own = by_name(declared)
        node.update({name: _plain(own[name], value) for name, value in options.items() if name in own})
    if start["emb_dim"] == dim:
        start["emb_dim"] = None
    if model == "tokens":
        width = options["num_tokens"] if options["logits_dim"] is None else options["logits_dim"]
        end.update(logits_dim=None if options["return_only_embed"] else width, tied=options["tie_embedding"])
        defaults = logits_defaults(end["tied"], dim)
        end.update({name: None for name, default in defaults.items() if end[name] == default})
    replaced = model != "images" and block_schemes(graph) & REPLACE_ABSOLUTE
    if options.get("use_abs_pos_emb", True) and not replaced:
        scheme = "sinusoidal" if options.get("scaled_sinu_pos_emb") else "absolute"
        node = _free_name(graph, scheme)
        graph.nx.add_node(node, type="position", scheme=scheme)
        graph.nx.add_edge(node, graph.start, carries=("position",))


def erase(graph: Graph) -> None:
    """Take away all that `write` says."""
    graph.nx.nodes[graph.start].update(input_attributes())
    graph.nx.nodes[graph.end].update(output_attributes())
    graph.nx.remove_nodes_from(graph.sources(graph.start, "position"))


def read(graph: Graph) -> dict[str, Value]:
    """The options of the model that a graph says; `write` of them is the same model. A stack alone has none."""
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    scheme = input_scheme(graph)
    said = {**start, **{option.name: end[option.name] for option in OUTPUT_OPTIONS}} | {
        "use_abs_pos_emb": scheme is not None,
        "scaled_sinu_pos_emb": scheme == "sinusoidal",
        "tie_embedding": end["tied"],
        "logits_dim": None if end["tied"] or end["logits_dim"] == start["num_tokens"] else end["logits_dim"],
        "return_only_embed": end["logits_dim"] is None,
    }
    return {option.name: said[option.name] for option in MODELS.get(graph.reads or "", ())}


def of_logits(graph: Graph) -> dict[str, Value]:
    """The options of logits as the output has them, with their values where they are none."""
    end = graph.nx.nodes[graph.end]
    defaults = logits_defaults(end["tied"], graph.dim)
    return {name: default if end[name] is None else end[name] for name, default in defaults.items()}


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


def _plain(option: Option, value: Value) -> Value:
    """A value as a graph has it: a whole number as a float where the option is one, two equal sizes as one."""
    if option.pair and isinstance(value, tuple | list):
        return value[0] if value[0] == value[1] else tuple(value)
    return float(value) if option.type is float and isinstance(value, int) else value


def _free_name(graph: Graph, name: str) -> str:
    names = (name, *(f"{name}{i}" for i in range(len(graph.nx))))
    return next(name for name in names if name not in graph.nx)
