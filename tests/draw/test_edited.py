"""Pictures of edited graphs: one notation, with residual blocks on streams, whatever way the stream was led."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph
from blockdsl.graph.layout import Side, blocks_of, chain, whole_chain


def graph(pattern: str = "(a f)*4") -> BlockGraph:
    return blockdsl.compile(pattern, dim=16, heads=2)


def edges(svg: str, role: str) -> list[tuple[str, str]]:
    return re.findall(rf'class="edge {role}[^"]*" data-from="(\w+)" data-to="(\w+)"', svg)


def lead(g: BlockGraph, *ways: tuple[str, str, str]) -> BlockGraph:
    """Let nodes read another node: (reader, what it read, what it reads now)."""
    for reader, old, new in ways:
        g.nx.remove_edge(old, reader)
        g.nx.add_edge(new, reader)
    return g


def test_a_fork_is_a_stream_beside_the_stream_and_its_end_an_arc() -> None:
    g = lead(graph(), ("a2", "f1", "a0"))
    g.nx.add_edge("f1", "a4")
    g.lint()
    svg = g.to_svg(unfold=True)
    assert edges(svg, "read") == [("f1", "a4")]
    assert {source for source, target in edges(svg, "branch") if source == target} == {*g.nodes("block")}
    assert ("a0", "f1") in edges(svg, "rail") + edges(svg, "branch")
    items = whole_chain(g)
    assert items is not None
    assert [item.chain for item in items if isinstance(item, Side)] == [("f1",)]


def test_a_plain_sum_adds_an_arc_to_the_stream() -> None:
    g = graph("a f")
    g.nx.add_node("both", type="sum", stage=0)
    g.nx.remove_edge("a0", "f1")
    g.nx.add_edges_from([("input", "both"), ("a0", "both"), ("both", "f1")])
    svg = g.to_svg()
    assert edges(svg, "read") == [("input", "both")]
    assert ("both", "f1") in edges(svg, "branch")


def test_where_the_stream_has_a_gap_the_line_has_one() -> None:
    g = graph()
    g.nx.remove_node("a2")
    svg = g.to_svg(unfold=True)
    assert not [edge for edge in edges(svg, "rail") + edges(svg, "branch") if edge == ("f1", "f3")]
    assert len(edges(svg, "branch")) == 2 * 7
    whole_line = graph("a f f a f a f").to_svg(unfold=True)
    assert [*edges(whole_line, "rail")] != [*edges(svg, "rail")]


def test_what_has_no_stream_is_nodes_and_arrows() -> None:
    g = graph("a f")
    g.nx.remove_edges_from([*g.nx.edges])
    assert whole_chain(g) is None
    assert 'data-node="a0"' in g.to_svg() or "a0" in g.to_svg()


@pytest.mark.parametrize("pattern", ["(a f)*3", "a & f | (a f)*2", "^u a f <u(gain) a ^v f <v"])
def test_a_compiled_graph_has_no_ways_beside_its_chain(pattern: str) -> None:
    g = graph(pattern)
    assert whole_chain(g) == chain(g)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_block_is_drawn_once_however_the_stream_is_led(data: st.DataObject) -> None:
    g = graph("(a f)*3")
    nodes = ["input", *g.nodes("block"), "output"]
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(1, len(nodes) - 1))
        edit: Callable[..., None] = data.draw(st.sampled_from([g.nx.add_edge, g.nx.remove_edges_from]))
        source = nodes[data.draw(st.integers(0, at - 1))]
        edit(source, nodes[at]) if edit == g.nx.add_edge else edit([(source, nodes[at])])
    items = whole_chain(g)
    if items is not None:
        assert sorted(blocks_of(items)) == sorted(g.nodes("block"))
    svg = g.to_svg(unfold=True)
    assert all(svg.count(f'data-node="{node}"') == svg.count('data-node="a0"') for node in g.nodes("block"))
