"""The one definition of what nodes say: its attributes are what graphs have and what lint checks."""

from __future__ import annotations

from typing import get_args, get_type_hints

import blockdsl
from blockdsl.graph import nodes
from blockdsl.registry.keywords import annotation
from blockdsl.registry.norms import NORM_DETAILS
from blockdsl.registry.options import Option
from blockdsl.registry.rotary import ROTARY_ATTRIBUTES
from blockdsl.registry.tokens import INPUT_OPTIONS, OUTPUT_OPTIONS

TYPES = {
    "input": nodes.InputNode,
    "context": nodes.ContextNode,
    "position": nodes.PositionNode,
    "block": nodes.BlockNode,
    "condition": nodes.ConditionNode,
    "sum": nodes.SumNode,
    "read": nodes.ReadNode,
    "output": nodes.OutputNode,
}


def test_the_input_says_its_options() -> None:
    hints = get_type_hints(nodes.InputNode)
    del hints["type"]
    assert hints == {option.name: annotation(option) for option in INPUT_OPTIONS}


def test_a_compiled_graph_says_what_is_declared_and_no_more() -> None:
    g = blockdsl.compile(
        "a ^u c(use_adaptive_layerscale) & f <u",
        dim=16,
        heads=2,
        rotary_pos_emb=True,
        num_tokens=9,
        max_seq_len=8,
        scaled_sinu_pos_emb=False,
    )
    assert nodes.without_notes(g.nx.graph).keys() == get_type_hints(nodes.GraphAttributes).keys()
    assert {attrs["type"] for _, attrs in g.nx.nodes(data=True)} == TYPES.keys() == nodes.NODE_ATTRIBUTES.keys()
    for node, attrs in g.nx.nodes(data=True):
        declared = get_type_hints(TYPES[attrs["type"]])
        own = {option.name for option in ROTARY_ATTRIBUTES} if node.startswith("rotary") else set()
        optional = {"labels", "encoder", "tie_token_emb"}
        assert attrs.keys() - own - optional == declared.keys() - optional, node
        assert get_args(declared["type"]) == (attrs["type"],)


def test_fields_are_options_with_their_ranges() -> None:
    norm = next(option for option in nodes.NODE_ATTRIBUTES["output"] if option.name == "norm")
    softcap, logits, tied, *details = (option for option in nodes.NODE_ATTRIBUTES["output"] if option is not norm)
    assert (softcap.name, softcap.type, softcap.above, softcap.optional) == ("softcap", float, 0, True)
    names = ("layernorm", "rmsnorm", "scalenorm", "simple_rmsnorm", "adaptive_layernorm", "adaptive_rmsnorm")
    assert norm == Option("norm", str, None, "the final norm", choices=names, optional=True)
    assert (logits.name, logits.type, logits.least, logits.optional) == ("logits_dim", int, 1, True)
    assert details == [*NORM_DETAILS, *OUTPUT_OPTIONS]
    assert (tied.name, tied.type, tied.optional) == ("tied", bool, False)
    assert [o.name for o in nodes.NODE_ATTRIBUTES["block"]] == ["kind", "shift", "scale", "tie", "stage"]


def test_a_block_is_the_dict_that_the_graph_holds() -> None:
    g = blockdsl.compile("a f", dim=16, heads=2)
    assert g.block("a0") is g.nx.nodes["a0"]
    g.block("a0")["shift"] = 1
    assert g.nx.nodes["a0"]["shift"] == 1
    assert (g.node_type("a0"), g.node_type("output")) == ("block", "output")
