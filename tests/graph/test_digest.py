"""Graphs that are one model are equal and have one digest, however they were written, named and put together."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from copy import deepcopy
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, GraphError

from .patterns import Model, models


def graph(text: str, **given: Any) -> BlockGraph:
    return blockdsl.compile(text, **({"dim": 16, "heads": 2, "attn_dim_head": 8} | given))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a f a f", "(a f)*2"),
        ("x = a f; x x", "set ff_mult=4; (a f)*2"),
        ("a@x f a@x", "a@y f a@y"),
        ("a@x f", "a f"),  # shared with nothing
        ("(a f)@x*2", "a@y f@z a@y f@z"),
        ("f(inner=64)", "f"),
        ("f(mult=4.0)", "f(mult=4)"),
        ("a(rotary)", "set rotary_pos_emb; a"),
        ("a/2", "a(branch_scale=0.5)"),
        ("a/2(f)", "a/2 f"),
        ("a & f", "f & a"),
        ("(a & f) & c", "a & f & c"),
        ("(a@x f@y) & (a@x f@z) & f@z", "(a@x f@z) & (a@x f@y) & f@z"),
        ("a@x f a@x => a c", "set enc_heads=2; x = a@z; x f x => a c"),
        ("set deepnorm; f", "f(pre_norm=false, scale_residual, init_gain=0.7071067811865476)"),
    ],
)
def test_spellings_of_one_model_are_equal(one: str, other: str) -> None:
    ours, theirs = graph(one, final_norm=True), graph(other, final_norm=True)
    assert ours == theirs
    assert ours.digest() == theirs.digest()


MODELS = (
    "a f",
    "f a",
    "a f f",
    "a & f",
    "a f | f",
    "a | f f",
    "x: a f | f",
    "a f(glu) f",
    "a f f/2",
    "a f f>>1",
    "a f@x f@x",
    "a(rotary) f f",
    "a(rotary, rotary_theta=5e5) f f",
    "(a f) & f",
    "(a@x f@y) & (a@x f@z) & f@z",
    "(a@x f@y) & (a@x f@z) & f",
    "(a f) & (a f)",
    "a (f & f)",
    "set causal; a f",
    "set dim=24; a f",
    "set use_rmsnorm; a f",
    "set final_norm=false; a f",
    "set num_tokens=8, max_seq_len=4; a f",
    "set num_tokens=8, max_seq_len=4, tie_embedding; a f",
    "a f => a c f",
    "f a => a c f",
    "set num_tokens=8, max_seq_len=4; a f => a c f",
    "set num_tokens=8, max_seq_len=4, tie_token_emb; a f => a c f",
)


def test_models_that_differ_are_not_equal() -> None:
    compiled = [blockdsl.compile(text, **({} if "dim" in text else {"dim": 16})) for text in MODELS]
    assert len({g.digest() for g in compiled}) == len(MODELS)
    assert all(ours != theirs for i, ours in enumerate(compiled) for theirs in compiled[:i])


def mixed(g: BlockGraph, order: random.Random) -> BlockGraph:
    """The same model with names dealt anew, and nodes and edges added in another order."""
    dealt = dict(zip(g.nx, order.sample([f"n{i}" for i in range(len(g.nx))], len(g.nx)), strict=True))
    nodes = [(dealt[node], deepcopy(attrs)) for node, attrs in g.nx.nodes(data=True)]
    edges = [(dealt[source], dealt[target], dict(attrs)) for source, target, attrs in g.nx.edges(data=True)]
    for _, attrs in nodes:
        if attrs["type"] == "block":
            attrs |= {"given": {}, "tie": None if attrs["tie"] is None else f"tie {attrs['tie']}"}
    out = nx.DiGraph(**(g.nx.graph | {"pattern": "written by hand"}))
    out.add_nodes_from(order.sample(nodes, len(nodes)))
    out.add_edges_from(order.sample(edges, len(edges)))
    return BlockGraph(out)


@settings(max_examples=25, deadline=None)
@given(model=models(), order=st.randoms(use_true_random=False))
def test_names_and_the_order_of_insertion_do_not_count(model: Model, order: random.Random) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    again = mixed(g, order)
    assert again == g
    assert again.digest() == g.digest()
    block = order.choice(again.nodes("block"))
    again.nx.nodes[block]["options"]["layer_dropout"] = 0.25
    assert again != g


def test_a_shared_position_with_parameters_is_another_model_than_two_alike() -> None:
    def apart(**given: Any) -> tuple[BlockGraph, BlockGraph]:
        g = graph("a a", **given)
        (position,) = g.nodes("position")
        h = g.copy()
        h.nx.add_node("other", **h.nx.nodes[position])
        h.nx.remove_edge(position, "a1")
        h.nx.add_edge("other", "a1", carries="position")
        return g, h.lint()

    assert graph("a a", rel_pos_bias=True) != graph("a a")
    ours, theirs = apart(rel_pos_bias=True)
    assert ours.parameters() != theirs.parameters()
    assert ours != theirs
    ours, theirs = apart(rotary_pos_emb=True)
    assert ours == theirs  # nothing is learned


def test_a_sum_whose_branches_have_gone_is_what_is_left() -> None:
    g = graph("a (f & c) f")
    g.nx.remove_nodes_from(["c2", "context"])
    assert g.lint() == graph("a f f")
    g = graph("a (f & c)")
    g.nx.add_node("f9", **g.nx.nodes["f1"])
    g.nx.add_node("outer", type="sum", stage=0)
    g.nx.add_edge("a0", "f9")
    g.nx.add_edge("a0", "outer", carries="base")
    g.nx.add_edges_from([("f9", "outer"), ("sum0", "outer"), ("outer", "output")])
    g.nx.remove_edge("sum0", "output")
    assert g.lint() == graph("a (f & c & f)")  # a sum inside a sum, with one base


def test_the_digest_is_that_of_another_process() -> None:
    text = "stem: a>>1 f/2 | (a & f(glu))@x*2 a(rotary, causal)"
    code = f"import blockdsl; print(blockdsl.compile({text!r}, dim=16, num_tokens=8, max_seq_len=4).digest())"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    out = run.stdout.strip()
    assert out == graph(text, heads=8, attn_dim_head=64, num_tokens=8, max_seq_len=4).digest()
    assert out == DIGEST


DIGEST = "2710992b7611f1d863e488c131bc196561846ec33e31b09722b40efa552e3364"  # of any release


def test_graphs_that_cannot_be_read_are_equal_when_they_are_written_alike() -> None:
    g = graph("a f")
    g.nx.add_edge("f1", "a0")
    with pytest.raises(GraphError, match="is part of a cycle"):
        g.digest()
    assert g == g.copy()
    assert g != graph("a f")
    assert g != "a f"
