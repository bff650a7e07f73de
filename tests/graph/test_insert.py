"""The edits that have a method: a graph edited by them is the one that the edited text compiles to."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, GraphError, PatternError, UserError

SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 4}


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


@pytest.mark.parametrize(
    ("pattern", "keywords", "after", "text", "want"),
    [
        ("(a f)*3", {}, "f1", "f(glu)", "a f f(glu) (a f)*2"),
        ("(a f)*2", {}, "input", "f/2", "f/2 (a f)*2"),
        ("(a f)*2", {}, "f3", "f@x f@x", "(a f)*2 f@x f@x"),
        ("(a f)*2", {}, "f1", "(a & f)*2", "a f (a & f)*2 a f"),
        ("(a f)*2", {}, "f1", "x = a f; x", "(a f)*3"),
        ("(a f)*2", {}, "f1", "f  # more\n", "a f f a f"),
        ("(a f)*2", {}, "f1", "^u a <u", "a f ^u a <u a f"),
        ("(a & (f f))*2", {}, "f1", "a", "(a & (f a f)) (a & (f f))"),
        ("(a & f)*2", {}, "sum0", "f", "a & f f (a & f)"),
        ("a ^u f <u a", {}, "a0", "f(glu)", "a ^u f(glu) f <u a"),
        ("s: a f | t: a f", {}, "f1", "a", "s: a f a | t: a f"),
        ("a f a", {}, "f1", "c", "a f c a"),
        ("a c f", {}, "f2", "c", "a c f c"),
        ("(a f)*2", {"residual_attn": True}, "f1", "a f", "(a f)*3"),
        ("(a f)*2", {"rotary_pos_emb": True, "causal": True}, "f1", "f", "a f f a f"),
        ("(a f)*2", {"rotary_pos_emb": True}, "f1", "a(heads=4)", "a f a(heads=4) a f"),
        ("(a f)*2", {"alibi_pos_bias": True, "num_tokens": 8, "max_seq_len": 4}, "a2", "a", "a f a a f"),
        ("(a f)*2", {"use_adaptive_rmsnorm": True, "dim_condition": 3}, "a2", "f", "a f a f f"),
        ("(a f)*2", {"ff_glu": True, "ff_swish": True, "use_rmsnorm": True}, "a2", "f", "a f a f f"),
    ],
)
def test_inserted(pattern: str, keywords: dict[str, Any], after: str, text: str, want: str) -> None:
    g = graph(pattern, **keywords)
    before = g.nx
    new = g.insert(after, text)
    assert g.lint() == graph(want, **keywords)
    assert g.nx is before
    assert {*new} <= {*g.nx}


@pytest.mark.parametrize(
    ("pattern", "keywords", "node", "want"),
    [
        ("(a f)*2", {}, "f1", "a a f"),
        ("(a f)*2", {}, "a0", "f a f"),
        ("(a f)*2", {}, "f3", "a f a"),
        ("(a & f & f) f", {}, "f1", "(a & f) f"),
        ("(a & f) f", {}, "f1", "a f"),
        ("(a & (f f)) f", {}, "f1", "(a & f) f"),
        ("a c f", {}, "c1", "a f"),
        ("a ^u f <u a", {}, "a0", "^u f <u a"),
        ("a ^u f <u(gain) a", {}, "read0", "a f a"),
        ("(a f)*3", {"residual_attn": True}, "a2", "a f f a f"),
        ("(a f)*2 f", {"rotary_pos_emb": True}, "f1", "a a f f"),
        ("f a(causal=false)", {"rotary_pos_emb": True}, "f0", "a(causal=false)"),
    ],
)
def test_removed(pattern: str, keywords: dict[str, Any], node: str, want: str) -> None:
    g = graph(pattern, **keywords)
    g.remove(node)
    assert g.lint() == graph(want, **keywords)


@pytest.mark.parametrize(
    ("pattern", "keywords", "node", "text", "want", "names"),
    [
        ("(a f)*2", {}, "a2", "a(heads=4)", "a f a(heads=4) f", ["a2"]),
        ("(a f)*2", {}, "a2", "f(glu)", "a f f(glu) f", ["f4"]),
        ("(a f)*2", {}, "f1", "a & f", "a (a & f) a f", ["a4", "f5", "sum0"]),
        ("a ^u f <u a", {}, "a0", "f", "f ^u f <u a", ["f3"]),
        ("a ^u f <u(gain) a", {}, "read0", "<u", None, None),
        ("a ^k f a(kv=k) f", {"causal": True}, "a0", "f", None, None),
        ("a ^k f a(kv=k) f", {"causal": True}, "a0", "a(dropout=0.5)", "a(dropout=0.5) ^k f a(kv=k) f", ["a0"]),
        ("(a f)*3", {"residual_attn": True}, "a2", "f", "a f*3 a f", ["f6"]),
        ("(a f)*3", {"residual_attn": True}, "a2", "a(dropout=0.1)", "a f a(dropout=0.1) f a f", ["a2"]),
        ("a c f", {}, "c1", "f", "a f f", ["f3"]),
        ("a & f & f", {}, "f1", "f(glu) f", "a & (f(glu) f) & f", ["f3", "f4"]),
    ],
)
def test_replaced(
    pattern: str, keywords: dict[str, Any], node: str, text: str, want: str | None, names: list[str] | None
) -> None:
    g = graph(pattern, **keywords)
    before = g.to_json()
    if want is None:
        with pytest.raises(UserError):
            g.replace(node, text)
        assert g.to_json() == before
    else:
        assert g.replace(node, text) == names
        assert g.lint() == graph(want, **keywords)


def test_a_skip_stays_where_it_was() -> None:
    g = graph("(a f)*3")
    g.nx.add_edge("f1", "a4")
    g.insert("f1", "f(glu)")
    assert g == graph("a f ^u f(glu) a f <u a f")
    g.remove("a4")
    assert g == graph("a f ^u f(glu) a f <u f")
    g.replace("f1", "f/2")
    assert g == graph("a f/2 ^u f(glu) a f <u f")


def test_a_bare_node_becomes_a_block() -> None:
    g = graph("s: (a f)*2 | t: (a f)*2")
    g.nx.remove_edge("f5", "a6")
    nx.add_path(g.nx, ["f5", "new", "a6"])
    assert g.replace("new", "f(glu)") == ["f8"]
    assert g == graph("s: (a f)*2 | t: a f f(glu) a f")


def test_an_encoder_is_edited_by_the_names_that_select_gives() -> None:
    g = graph("(a f)*2 => (a c f)*2")
    assert g.insert("encoder.f1", "f(glu)") == ["encoder.f4"]
    g.remove("encoder.a2")
    assert g.replace("c1", "c(heads=4)") == ["c1"]
    assert g == graph("a f f(glu) f => a c(heads=4) f a c f")


def test_other_nodes_keep_their_names_and_attributes() -> None:
    g = graph("(a f)*3")
    kept = {node: g.nx.nodes[node] | {} for node in g.nx if node != "a2"}
    g.insert("f1", "f")
    g.replace("a2", "f")
    assert {node: g.nx.nodes[node] for node in kept} == kept


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda g: g.insert("f9", "f"), "there is no node 'f9'; nodes: input, a0, f1"),
        (lambda g: g.insert("output", "f"), "output is no place on the stream"),
        (lambda g: g.insert("f1", "f | f"), "'f | f' is put inside a stage"),
        (lambda g: g.insert("f1", "set dim=3; f"), "is put inside a stage"),
        (lambda g: g.insert("f1", "f => c"), "is put inside a stage"),
        (lambda g: g.insert("f1", "a(kv=k)"), "k"),
        (lambda g: g.remove("input"), "input cannot be removed"),
        (lambda g: g.remove("sum0"), "sum0 is where branches meet; it goes with them: a2, f3"),
        (lambda g: g.replace("output", "f"), "output cannot be replaced"),
        (lambda g: (nx.freeze(g.nx), g.remove("f1")), "the graph is frozen, and a copy, g.copy(), is not"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(edit: Any, says: str) -> None:
    g = graph("a f (a & f)")
    before = g.to_json()
    with pytest.raises(UserError) as error:
        edit(g)
    assert says in str(error.value)
    assert g.to_json() == before


def test_a_text_at_fault_is_shown_alone() -> None:
    with pytest.raises(PatternError) as error:
        graph("a f").insert("a0", "f(gluu)")
    assert str(error.value).split("\n")[:2] == ["1:3: 'f' (feedforward) has no option 'gluu'", "  f(gluu)"]


def scores(g: BlockGraph) -> set[tuple[str, str]]:
    return {(source, target) for source, target, carries in g.nx.edges(data="carries") if "scores" in carries}


@pytest.mark.parametrize(
    ("after", "read"),
    [("f1", {("a6", "a3"), ("a3", "a5")}), ("a0", {("a0", "a6"), ("a6", "a3"), ("a3", "a5")})],
    ids=["in a later branch", "in its own"],
)
def test_scores_of_a_branch_go_on_through_what_is_put_into_one(after: str, read: set[tuple[str, str]]) -> None:
    """As a text is read, whose last branch with attention hands its scores on."""
    g = graph("(a & f) f a f a", residual_attn=True)
    before = scores(g)
    assert before == {("a0", "a3"), ("a3", "a5")}
    assert g.insert(after, "a") == ["a6"]
    assert scores(g) == read
    assert blockdsl.compile(g.to_pattern()) == g
    g.remove("a6")
    assert scores(g) == before


def test_what_others_need_does_not_go() -> None:
    g = graph("a ^k f a(kv=k) f", causal=True)
    with pytest.raises(GraphError, match="a0 cannot go: a2 takes the keys and values of a0; change a2 first"):
        g.remove("a0")


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_is_put_in_can_be_taken_out_again(data: st.DataObject) -> None:
    pattern = data.draw(st.sampled_from(["(a f)*3", "a & f f | (a c f)*2", "a ^u f <u(gain) a f", "(a f & (a & f)) f"]))
    g = graph(pattern, rotary_pos_emb=True, residual_attn=data.draw(st.booleans()))
    want = g.copy()
    places = [node for node in g.nx if g.node_type(node) in ("input", "block", "sum", "read")]
    for node in reversed(g.insert(data.draw(st.sampled_from(places)), data.draw(st.sampled_from(["f", "a f", "c a"])))):
        g.lint()
        assert blockdsl.compile(g.to_pattern()) == g
        g.remove(node)
    assert g == want
