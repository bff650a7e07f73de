"""A graph that is only read says what the graph says."""

from __future__ import annotations

import pytest

import blockdsl
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
