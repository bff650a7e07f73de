"""A graph that is only read says what the graph says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest

import blockdsl
from blockdsl.graph import lint
from blockdsl.graph.graph import Graph
from blockdsl.graph.nodes import EDGES, NODE_ATTRIBUTES
from blockdsl.graph.still import Still, still

PATTERNS = {
    "stages": "a f | (a & f f)*2 | sandwich(2)",
    "wires": "^u a ^k f a(kv=k) f <u(cat) f",
    "streams": "(a f)*2 => (a c f)*2",
}


@pytest.mark.parametrize("name", PATTERNS)
def test_it_says_what_the_graph_says(name: str) -> None:
    graph = blockdsl.compile(PATTERNS[name], dim=64, heads=2, residual_attn=True)
    g = Graph(graph.nx)
    view = still(g)
    for node_type in NODE_ATTRIBUTES:
        assert view.nodes(node_type) == g.nodes(node_type)
    for node in g.nx:
        for what in (*EDGES, "kv", "none"):
            assert view.sources(node, what) == g.sources(node, what)
    assert (view.start, view.end, view.order(), view.tied()) == (g.start, g.end, g.order(), g.tied())
    encoder = view.encoder
    assert (encoder is None) == (name != "streams")
    if encoder is not None:
        assert isinstance(encoder, Still)
        assert encoder.nx is g.nx.nodes["context"]["encoder"]
    assert still(view) is view


def test_its_text_is_that_of_the_edited_graph() -> None:
    graph = blockdsl.compile("(a f)*2", dim=64, heads=2)
    graph.insert("f1", "a")
    assert still(graph).pattern == graph.pattern == "set dim=64, heads=2; a f a a f"


def test_answers_are_not_shared() -> None:
    view = still(blockdsl.compile("(a f)*2", dim=64, heads=2))
    view.nodes("block").clear()
    view.sources("a0", "stream").clear()
    assert view.nodes("block") == ["a0", "f1", "a2", "f3"]
    assert view.sources("a0", "stream") == ["input"]


def test_nodes_at_fault_are_passed_over() -> None:
    graph = blockdsl.compile("a f", dim=64, heads=2)
    graph.nx.nodes["a0"]["type"] = ["block"]
    graph.nx.edges["a0", "f1"]["carries"] = (["stream"],)
    view = still(graph)
    assert view.nodes("block") == ["f1"]
    assert view.sources("f1", "stream") == []
    with pytest.raises(blockdsl.UserError, match=r"a0: unknown node type \['block'\]"):
        graph.lint()


DAMAGES: dict[str, Callable[[nx.DiGraph], Any]] = {
    "nothing": lambda g: None,
    "an option": lambda g: g.nodes["a6"]["options"].update(heads=0),
    "an unknown option": lambda g: g.nodes["f7"]["options"].update(head=1),
    "an option that reads": lambda g: g.nodes["a6"]["options"].update(kv=True),
    "a norm shared with nobody": lambda g: g.nodes["f7"]["options"].update(shared_norm=True),
    "residual streams": lambda g: g.nodes["f7"]["options"].update(num_residual_streams=4),
    "a table": lambda g: [
        g.nodes[node]["options"].update(value_embed=0, heads=n) for node, n in (("a2", 2), ("a6", 4))
    ],
    "a shift": lambda g: g.nodes["f7"].update(shift=64),
    "a scale": lambda g: g.nodes["f7"].update(scale=0.0),
    "an unknown kind": lambda g: g.nodes["f7"].update(kind="g"),
    "a tie": lambda g: [g.nodes[node].update(tie="x") for node in ("a0", "f7")],
    "scores": lambda g: g.add_edge("a0", "a6", carries=("scores",)),
    "a context": lambda g: g.add_edge("a0", "f7", carries=("context",)),
    "a condition": lambda g: g.add_edge("a0", "f7", carries=("condition",)),
    "a norm": lambda g: g.add_edge("a4", "f7", carries=("normed",)),
    "a name": lambda g: nx.relabel_nodes(g, {"f7": "f.7"}, copy=False),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_of_many_blocks_at_fault_is_found_among_the_few(damage: str) -> None:
    graph = blockdsl.compile("(a f)*5", dim=64, heads=2)
    DAMAGES[damage](graph.nx)
    few = still(Graph(graph.nx)).thinned()
    assert len(few.nodes("block")) < 5
    assert bool(lint.faults(few)) == bool(lint.faults(graph)) == (damage != "nothing")


def test_blocks_that_say_the_same_are_counted() -> None:
    graph = blockdsl.compile("(a f f(glu) a(heads=2))*3 f>>1", dim=64, heads=2)
    for view in (Graph(graph.nx), still(Graph(graph.nx))):
        found = [(attrs["kind"], [*attrs["given"]], count) for attrs, count in view.distinct()]
        assert found == [("a", [], 3), ("f", [], 4), ("f", ["glu"], 3), ("a", ["heads"], 3)]
