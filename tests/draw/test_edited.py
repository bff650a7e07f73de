"""Pictures of edited graphs: one notation, with residual blocks on streams, whatever way the stream was led."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph
from blockdsl.graph.layout import Branching, Side, chain, every_node, whole_chain

from ..graph.test_dot_mermaid import check as check_outlines
from ..graph.test_text_drawing import read_all
from .reading import check


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


def test_a_branch_that_begins_elsewhere_is_a_way_and_its_gain_an_arc_and_the_others_stay_branches() -> None:
    g = lead(graph("a f (a & f) a"), ("f3", "f1", "a0"))
    items = whole_chain(g)
    assert items == ("a0", Side(("f3",)), "f1", Branching((("a2",),), "sum0"), "a4")
    svg = g.to_svg()
    assert edges(svg, "read") == [("f3", "sum0")]
    assert ("a2", "sum0") in edges(svg, "branch")
    assert ">Δ<" in svg
    assert "the gain of the stream after f3, added" in svg
    assert "what this branch added" in svg, "the legend explains the sign"
    check(svg, g)
    assert "its gain added" in g.to_dot()
    assert "its gain added" in g.to_mermaid()
    assert "<f3    the gain of the stream after f3, added" in g.to_text()


def test_a_way_that_goes_on_in_another_stage_says_which() -> None:
    g = lead(graph("a f | a f"), ("a2", "f1", "a0"))
    g.nx.add_edge("f1", "output")
    assert whole_chain(g) == ("a0", Side(("f1",)), "a2", "f3")
    g.nx.nodes["f1"]["stage"] = 1
    assert all("of stage 2" in text for text in (g.to_text(), g.to_dot(), g.to_mermaid(), g.to_svg()))


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


PATTERNS = ("(a f)*3", "a f (a & f) a", "^u a f <u(gain) (a & f f) f", "a & f | (a f)*2", "(a (f & (a f & f)) f)*2")
OF_STREAM = ("block", "sum", "read")


@st.composite
def edited(draw: st.DrawFn) -> BlockGraph:
    """A graph after a few edits, whatever these leave of it: edges more and fewer, nodes gone, sums of any streams."""
    g = graph(draw(st.sampled_from(PATTERNS)))
    for number in range(draw(st.integers(1, 5))):
        order = [node for node in g.order() if g.node_type(node) in OF_STREAM]
        at = draw(st.integers(0, len(order)))
        target = [*order, "output"][at]
        before = ["input", *order[:at]]
        edit = draw(st.sampled_from(["add", "remove", "lead", "take out", "sum"]))
        sources = [s for s in g.nx.pred[target] if s in before]
        if edit in ("remove", "lead") and sources:
            g.nx.remove_edge(draw(st.sampled_from(sources)), target)
        if edit in ("add", "lead"):
            g.nx.add_edge(draw(st.sampled_from(before)), target)
        elif edit == "take out" and target != "output":
            g.nx.remove_node(target)
        elif edit == "sum":
            name = f"edit{number}"
            g.nx.add_node(name, type="sum", stage=g.nx.nodes[target].get("stage", len(g.stages) - 1))
            for source in draw(st.lists(st.sampled_from(before), max_size=3, unique=True)):
                g.nx.add_edge(source, name, carries=(draw(st.sampled_from(["stream", "base"])),))
            g.nx.add_edge(name, target)
    return g


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edited())
def test_whatever_is_edited_every_node_is_in_every_form_once(g: BlockGraph) -> None:
    """And every edge."""
    check(g.to_svg(unfold=True), g, unfolded=True)
    check(g.to_svg(), g)
    items, wanted = whole_chain(g), [node for node in g.nx if g.node_type(node) in OF_STREAM]
    assert items is None or sorted(every_node(items)) == sorted(wanted)
    told = Counter(kind for kind, *_ in read_all(g.to_text()))
    assert told == Counter(g.nx.nodes[node].get("kind", g.node_type(node)) for node in wanted)
    check_outlines(g)
