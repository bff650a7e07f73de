"""A graph gives back its text: compiled, that is the same graph; and what has no text is refused in words."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, GraphError
from blockdsl.graph.graph import Graph
from tests.properties.models import SIZES, TOKENS
from tests.properties.models import Model as AnyModel
from tests.properties.models import models as any_models

from .patterns import Model, models

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[*HealthCheck])


def graph(text: str, **given: Any) -> BlockGraph:
    return blockdsl.compile(text, **({"dim": 16, "heads": 2, "attn_dim_head": 8} | given))


def text(g: BlockGraph) -> str:
    """Its text without the settings that all here have; it compiles to the same graph."""
    pattern = g.to_pattern()
    assert blockdsl.compile(pattern) == g
    return str(pattern).replace("set dim=16, heads=2, attn_dim_head=8; ", "").replace("heads=2, attn_dim_head=8", "…")


# Any graph ------------------------------------------------------------------------------------------------------------


@FEW
@given(model=models())
def test_every_pattern_comes_back(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    assert blockdsl.compile(g.to_pattern()) == g


@FEW
@given(model=any_models())
def test_every_option_comes_back(model: AnyModel) -> None:
    g = blockdsl.compile(model.text, **(SIZES | model.settings | TOKENS | model.around))
    assert blockdsl.compile(g.to_pattern()) == g


def test_the_nodes_are_not_gone_through_for_each_block(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []
    nodes = Graph.nodes
    monkeypatch.setattr(Graph, "nodes", lambda self, node_type: times.append(node_type) or nodes(self, node_type))

    def counted(size: int) -> int:
        g = graph(f"(a f)*{size}")
        g.replace("f1", "f(glu)")
        times.clear()
        g.to_pattern()
        return len(times)

    assert counted(8) == counted(4)


def _edit(g: BlockGraph, order: random.Random) -> None:
    """One change that leaves a graph which can be lowered, if it does."""
    blocks = g.nodes("block")
    node = order.choice(blocks)
    what = order.choice(["option", "scale", "shift", "gone", "copy", "skip", "tie", "rotary"])
    attrs = g.nx.nodes[node]
    if what == "option":
        name, value = order.choice([("layer_dropout", 0.25), ("pre_norm", False), ("layer_scale", 0.5)])
        attrs["options"][name] = value
    elif what == "scale":
        attrs["scale"] = order.choice([0.19, 1 / 3, 2.0])
    elif what == "shift":
        attrs["shift"] = order.choice([0, 2])
    elif what in ("gone", "copy"):
        source, readers = g.sources(node, "stream")[-1], list(g.nx.succ[node].items())
        if what == "gone":
            g.nx.remove_node(node)
            g.nx.add_edges_from((source, reader, dict(edge)) for reader, edge in readers)
        else:
            g.nx.add_node("new", **attrs | {"tie": None, "options": dict(attrs["options"])})
            g.nx.add_edges_from((before, "new", dict(edge)) for before, edge in g.nx.pred[node].items())
            g.nx.remove_edge(source, node)
            g.nx.add_edge("new", node)
    elif what == "skip":
        g.nx.add_edge(order.choice(["input", *blocks]), order.choice([*blocks, "output"]))
    elif what == "tie":
        for other in blocks:
            if g.nx.nodes[other]["options"] == attrs["options"] and g.nx.nodes[other]["kind"] == attrs["kind"]:
                g.nx.nodes[other]["tie"] = "a tie"
    else:
        rotary = [edge for edge in g.nx.in_edges(blocks) if g.node_type(edge[0]) == "position"]
        g.nx.remove_edges_from(rotary[:1] if len(rotary) > 1 else [])


@settings(FEW, max_examples=30)
@given(model=models(), order=st.randoms(use_true_random=False), edits=st.integers(1, 4))
def test_what_is_edited_comes_back_or_is_refused(model: Model, order: random.Random, edits: int) -> None:
    g = blockdsl.compile(model.text, **(model.settings | {"residual_attn": False, "cross_residual_attn": False}))
    for _ in range(edits):
        changed = g.copy()
        _edit(changed, order)
        try:
            changed.lint()
        except GraphError:
            continue
        g = changed
    refusal = ""
    try:
        assert blockdsl.compile(g.to_pattern()) == g
    except GraphError as error:
        refusal = str(error)
    assert not refusal or any(reason in refusal for reason in (" in a parallel branch, ", " on the way ", "no block"))


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "stem: f a f | (a f)*6",
        "f/2 a>>1 f/2",
        "(a f@x | f)*2",
        "a & f",
        "a f & (a f) & c f",
        "f & ((a f) & c f) a",
        "a@x f a@x",
        "(a f)*3 a(rotary)",
        "a*3 & f/2 & (a f/2) f",
        "a(branch_scale=0.19) f",
        "^u a f <u/3 a",
        "(^u a f)*6 (<u(pop, cat) a f)*6",
        "^x (<x(gain) a f)*12",
        "^h (a f <h(all, gain) ^h)*12",
        "^h (<h(all, soft) a ^h <h(all, soft) f ^h)*12",
        "a ^e f (<e(cat)@core a@t f)*4",
        "(a f)*3 f ^e (<e(cat)@mix (a ^u f>>1)@core <u)*8 a",
        "a & (f a)@x (f (a & f c)@y)*2 (f a)@x",
        "(a f)*7 ^b (a f)*4 <b(gain, init=-0.5)",
        "a ^v f (a(values=v) f)*3",
        "(a ^k f a(kv=k) f)*3",
        "a ^s f (a(scores=s) ^s f)*3",
        "(a f)*3 ^mid | (a c(context=mid) f)*3",
        "^x (a ^u f)*3 <u(1) <x <u(first, gate)",
        "^u a <u & f ^v | a <v f",
    ],
)
def test_a_text_comes_back_as_it_was_written(written: str) -> None:
    assert text(graph(written)) == written.replace("(a f@x | f)*2", "a f@x | f a f@x | f")


@pytest.mark.parametrize(
    ("written", "comes_back"),
    [
        ("x = a f; x x x f f f", "(a f)*3 f*3"),
        ("(a f(glu))*6", "set dim=16, …, ff_glu; (a f)*6"),
        ("set residual_attn; a f a f a(residual_attn=false)", "a f a(residual_attn) f a"),
        ("x = a f; x@t x@t", "(a f)@t*2"),
        ("set causal; a(causal=false) f a*2", "set dim=16, causal, …; a(causal=false) f a a"),
        ("set causal, rotary_pos_emb; a(rotary=false) f a", "set dim=16, causal, …; a f a(rotary)"),
        ("set alibi_pos_bias, alibi_num_heads=1; a f", "set dim=16, alibi_pos_bias, alibi_num_heads=1, …; a f"),
        (
            "set num_tokens=9, max_seq_len=0, tie_embedding; a f",
            "set dim=16, num_tokens=9, max_seq_len=0, tie_embedding, …; a f",
        ),
        ("set use_adaptive_rmsnorm, dim_condition=8; a f", "set dim=16, dim_condition=8, …, use_adaptive_rmsnorm; a f"),
    ],
)
def test_what_blocks_have_in_common_is_set(written: str, comes_back: str) -> None:
    found = text(graph(written))
    assert found == comes_back


def test_two_streams_come_back_as_one_text() -> None:
    written = "set dim=16, num_tokens=9, max_seq_len=4, enc_heads=4, tie_token_emb; (^u a f <u)*2 => (a@x c f)*2"
    g = blockdsl.compile(written)
    assert blockdsl.compile(g.to_pattern()) == g
    g.encoder.nx.remove_node("f1")
    g.encoder.nx.add_edge("a0", "read0")
    assert "=>" in str(g.to_pattern())
    assert blockdsl.compile(g.to_pattern()) == g


# Edits ----------------------------------------------------------------------------------------------------------------


def test_a_skip_edge_is_a_label_and_a_read() -> None:
    g = graph("a f a")
    g.nx.add_edge("input", "a2")
    assert text(g) == "^u a f <u a"
    g.nx.nodes["input"]["labels"] = ("x",)
    assert text(g) == "^x a f <x a"
    g = graph("a f a")
    g.nx.add_edges_from([("a0", "output"), ("f1", "output")])
    assert text(g) == "a ^u f ^v a <u <v"


def test_many_skips_share_one_label_and_fold() -> None:
    g = graph("(a f)*12")
    for i in range(6):
        g.nx.add_edge(f"f{2 * i - 1}" if i else "input", f"a{22 - 2 * i}")
    assert text(g) == "(^u a f)*6 (<u(pop) a f)*6"
    for node in g.nx:
        g.nx.nodes[node].pop("labels", None)
    assert text(g) == "(^u a f)*6 (<u(pop) a f)*6"
    g = graph("^h (a f <h(all, gain) ^h)*4")
    for node in g.nx:
        g.nx.nodes[node].pop("labels", None)
    assert text(g) == "(^u a f <u(all, gain))*4"


def test_blocks_that_are_gone_and_new() -> None:
    g = graph("(a f)*2")
    g.nx.remove_node("f1")
    g.nx.add_edge("a0", "a2")
    assert text(g) == "a a f"
    g.nx.add_node("new", **g.nx.nodes["f3"] | {"scale": 0.5})
    g.nx.remove_edge("a0", "a2")
    g.nx.add_edges_from([("a0", "new"), ("new", "a2")])
    assert text(g) == "a f/2 a f"
    g.nx.nodes["new"]["tie"] = g.nx.nodes["f3"]["tie"] = "the same"
    assert text(g) == "a f/2@the_same a f@the_same"


def test_rotary_positions_that_are_taken_from_a_block() -> None:
    g = graph("(a f)*3", rotary_pos_emb=True)
    (rotary,) = g.nodes("position")
    g.nx.remove_edge(rotary, "a2")
    assert text(g) == "set dim=16, rotary_pos_emb, …; a f a(rotary=false) f a f"
    g.nx.remove_edge(rotary, "a4")
    assert text(g) == "a(rotary) f a f a f"


def test_scores_that_a_block_no_longer_adds() -> None:
    g = graph("a f a f a", residual_attn=True)
    g.nx.remove_edge("a0", "a2")
    assert text(g) == "a f a f a(residual_attn)"
    g.nx.remove_edge("a2", "a4")
    g.nx.add_edge("a0", "a4", carries="scores")
    assert text(g) == "a ^u f a f a(scores=u)"


# What has no text -----------------------------------------------------------------------------------------------------


def refused(g: BlockGraph) -> str:
    with pytest.raises(GraphError) as error:
        g.to_pattern()
    return str(error.value)


def test_what_has_no_text_is_refused_in_words() -> None:
    g = graph("a f")
    g.nx.remove_edge("a0", "f1")
    g.nx.add_edge("input", "f1")
    g.nx.add_edge("a0", "output")
    assert refused(g) == (
        "the graph has no text: output reads a0, which is not on the way of the stream to it; branches have a text "
        "where they start at one node and meet in a sum"
    )
    g = graph("a (f f) & c f")
    g.nx.add_edge("f1", "f4")
    assert refused(g) == "the graph has no text: f4 reads f1 in a parallel branch, where no label may stand"
    g = graph("f & a f")
    g.nx.add_edge("f0", "a1")
    assert refused(g) == "the graph has no text: a1 reads f0, which is not on the way from input to it"
    g = graph("a f a", rel_pos_bias=True)
    (bias,) = g.nodes("position")
    g.nx.remove_edge(bias, "a2")
    assert refused(g) == "the graph has no text: a2 reads no T5 bias, and others do, which no option of a block says"
    g = graph("a | f | a")
    g.nx.remove_node("f1")
    g.nx.add_edge("a0", "a2")
    assert refused(g) == "the graph has no text: stage 1 has no block"
    g = graph("a | f")
    g.stages[0] = "my stage"
    assert refused(g).endswith("'my stage' is no name for a stage: a letter, then letters, digits and '_'")
    g = graph("a f").with_vectors(8)
    assert refused(g).endswith("the model reads vectors, which a text says by dim_in or dim_out, and it has neither")
    g = graph("a f")
    g.nx.remove_node("f1")
    assert refused(g).startswith("the graph cannot be lowered:")
    g = graph("a a", rel_pos_bias=True)
    g.nx.add_node("other", **g.nx.nodes[g.nodes("position")[0]])
    g.nx.remove_edge(g.nodes("position")[0], "a1")
    g.nx.add_edge("other", "a1", carries="position")
    assert refused(g).startswith("the graph has no text; the nearest is set dim=16, rel_pos_bias, ")
