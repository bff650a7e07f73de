"""Each rule of lint, broken by plain networkx calls: the message is asserted whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, GraphError, zoo
from blockdsl.graph import lint

from ..built_in import LISTED
from ..work import LINEAR, growth, lines
from .patterns import Model, models

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 4}


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def found(g: BlockGraph) -> list[str]:
    """The faults that lint names."""
    with pytest.raises(GraphError) as error:
        g.lint()
    text = str(error.value)
    head, *lines = text.replace("\n  ", "\n").split("\n")
    faults = [line for line in lines if not line.startswith("  g.") and not line.startswith("  del g.")]
    assert head == "the graph cannot be lowered:" + (f" {len(faults)} faults" if len(faults) > 1 else "")
    return faults


def node(name: str, **values: Any) -> Callable[[BlockGraph], None]:
    """Set attributes of a node."""
    return lambda g: g.nx.nodes[name].update(values)


def option(name: str, **values: Any) -> Callable[[BlockGraph], None]:
    """Set options of a block."""
    return lambda g: g.nx.nodes[name]["options"].update(values)


def attribute(**values: Any) -> Callable[[BlockGraph], None]:
    """Set attributes of the graph."""
    return lambda g: g.nx.graph.update(values)


def edge(source: str, target: str, *carries: str) -> Callable[[BlockGraph], None]:
    """Add an edge that carries this, the stream by default."""
    return lambda g: g.nx.add_edge(source, target, **({"carries": carries} if carries else {}))


def gone(*path: str) -> Callable[[BlockGraph], None]:
    """Remove an attribute (of the graph, or of a node), or an option."""

    def remove(g: BlockGraph) -> None:
        at: Any = g.nx.graph if path[0] == "graph" else g.nx.nodes[path[0]]
        for step in path[1:-1]:
            at = at[step]
        del at[path[-1]]

    return remove


def cut(source: str, target: str) -> Callable[[BlockGraph], None]:
    return lambda g: g.nx.remove_edge(source, target)


def both(*edits: Callable[[BlockGraph], None]) -> Callable[[BlockGraph], None]:
    def edit(g: BlockGraph) -> None:
        for each in edits:
            each(g)

    return edit


def places(name: str) -> Callable[[BlockGraph], None]:
    """Hand the input absolute positions of this name."""
    return both(
        lambda g: g.nx.add_node(name, type="position", scheme="absolute"),
        edge(name, "input", "position"),
    )


def named(old: str, new: Any) -> Callable[[BlockGraph], None]:
    return lambda g: setattr(g, "nx", nx.relabel_nodes(g.nx, {old: new}))


TOKENS: dict[str, Any] = {"num_tokens": 30, "max_seq_len": 9}
RANGE = "must be a whole number of at least"
ADD_FROM = "nothing reads its output"
ADD_TO = "reads no stream"

# pattern, settings, edit → every fault
BROKEN: list[tuple[str, dict[str, Any], Callable[[BlockGraph], None], list[str]]] = [
    # the graph's attributes
    ("a", {}, gone("graph", "dim"), ["the graph: has no attribute dim"]),
    ("a", {}, gone("graph", "stages"), ["the graph: has no attribute stages"]),
    ("a", {}, attribute(dim=0), [f"the graph: dim {RANGE} 1, not 0"]),
    ("a", {}, attribute(dim=16.0), [f"the graph: dim {RANGE} 1, not 16.0"]),
    ("a", {}, attribute(causal=None), ["the graph: causal must be true or false, not none"]),
    ("a", {}, attribute(pattern=3), ["the graph: pattern must be a name, not 3"]),
    ("a", {}, attribute(stages=[]), ["the graph: stages must be a list of names (or None), not []"]),
    ("a", {}, attribute(stages=["x", 2]), ["the graph: stages must be a list of names (or None), not ['x', 2]"]),
    # the nodes' attributes
    (
        "a f",
        {},
        node("f1", type="blok"),
        ["f1: unknown node type 'blok'; the types are input, context, condition, position, block, sum, read, output"],
    ),
    (
        "a f",
        {},
        edge("f1", "extra"),
        ["extra: unknown node type None; the types are input, context, condition, position, block, sum, read, output"],
    ),
    ("a f", {}, gone("f1", "scale"), ["f1: has no attribute scale"]),
    ("a f", {}, gone("f1", "options"), ["f1: has no attribute options"]),
    ("a f", {}, gone("input", "num_tokens"), ["input: has no attribute num_tokens"]),
    ("a f", {}, gone("output", "norm"), ["output: has no attribute norm"]),
    ("a & f", {}, gone("sum0", "stage"), ["sum0: has no attribute stage"]),
    ("a f", {}, node("f1", options=[]), ["f1: options must be a dict, not []"]),
    ("a f", {}, node("f1", given=None), ["f1: given must be a dict, not None"]),
    ("a f", {}, node("f1", shift=-1), [f"f1: shift {RANGE} 0, not -1"]),
    ("a f", {}, node("f1", shift=0.5), [f"f1: shift {RANGE} 0, not 0.5"]),
    ("a f", {}, node("f1", scale="half"), ["f1: scale must be a number, not half"]),
    ("a f", {}, node("f1", scale=float("inf")), ["f1: scale must be below 1e18"]),
    ("a f", {}, node("f1", scale=0), ["f1: scale must be a number above 0, not 0"]),
    ("a f", {}, node("f1", tie=3), ["f1: tie must be a name or none, not 3"]),
    ("a f", {}, node("f1", stage=None), [f"f1: stage {RANGE} 0, not none"]),
    (
        "a f",
        {},
        node("output", norm="batch"),
        [
            "output: norm must be one of 'layernorm', 'rmsnorm', 'scalenorm', 'simple_rmsnorm', 'adaptive_layernorm', 'adaptive_rmsnorm' or none, not batch"
        ],
    ),
    (
        "a",
        TOKENS,
        node("absolute", scheme="sideways"),
        [
            "absolute: scheme must be one of 'rotary', 't5', 'dynamic', 'alibi', 'absolute', 'sinusoidal', not sideways",
        ],
    ),
    ("a", TOKENS, node("input", max_seq_len=-1), [f"input: max_seq_len {RANGE} 0 or none, not -1"]),
    (
        "a",
        TOKENS,
        node("input", emb_dropout=1.0),
        ["input: emb_dropout must be a number of at least 0 and below 1, not 1.0"],
    ),
    ("a", TOKENS, node("output", tied="yes"), ["output: tied must be true or false, not yes"]),
    # attributes that nothing reads
    ("a", {}, attribute(casual=True), ["the graph: unknown attribute 'casual'; did you mean 'causal'?"]),
    ("a f", {}, node("f1", shfit=1), ["f1: unknown attribute 'shfit'; did you mean 'shift'?"]),
    ("a & f", {}, node("sum0", Stage=0), ["sum0: unknown attribute 'Stage'; did you mean 'stage'?"]),
    (
        "a",
        TOKENS,
        node("input", emb_dropuot=0.1),
        ["input: unknown attribute 'emb_dropuot'; did you mean 'emb_dropout'?"],
    ),
    ("a", {}, node("output", norms="rmsnorm"), ["output: unknown attribute 'norms'; did you mean 'norm'?"]),
    (
        "a c",
        {},
        node("context", pos=0),
        ["context: unknown attribute 'pos'; to keep a note of your own, call it '_pos'"],
    ),
    (
        "a",
        {"alibi_pos_bias": True},
        node("alibi2", baised=1),
        ["alibi2: unknown attribute 'baised'; did you mean 'biased'?"],
    ),
    (
        "a",
        TOKENS,
        node("absolute", dim=3),
        ["absolute: unknown attribute 'dim'; to keep a note of your own, call it '_dim'"],
    ),
    (
        "a f",
        {},
        lambda g: g.nx.nodes["a0"].update({3: 4}),
        ["a0: unknown attribute 3; to keep a note of your own, call it '_3'"],
    ),
    (
        "a f",
        {},
        lambda g: g.nx.add_edge("input", "f1", carry="stream"),
        ["input → f1: unknown attribute 'carry'; did you mean 'carries'?"],
    ),
    # which nodes there are
    ("a f", {}, named("f1", 7), ["7: a node's name must be a string"]),
    ("a f", {}, named("f1", "f.1"), ["f.1: a block's name has no '.', since it is its module's name too"]),
    ("a f", {}, lambda g: g.nx.remove_node("input"), ["the graph has 0 input nodes and needs one"]),
    (
        "a f",
        {},
        lambda g: g.nx.add_node("out2", **g.nx.nodes["output"]),
        ["the graph has 2 output nodes and needs one"],
    ),
    ("a c", {}, lambda g: g.nx.add_node("memory", type="context"), ["the graph has more than one context"]),
    # what edges carry
    (
        "a f",
        {},
        edge("input", "f1", "steam"),
        [
            "input → f1: carries 'steam', which is none of stream, base, context, condition, position, scores, normed, "
            "read, concat, kv, values"
        ],
    ),
    (
        "a f",
        {},
        lambda g: g.nx.add_edge("input", "f1", carries=1),
        ["input → f1: carries must be a tuple of names, not 1"],
    ),
    (
        "a f",
        {},
        lambda g: g.nx.add_edge("input", "f1", carries=()),
        ["input → f1: carries nothing"],
    ),
    ("a c", {}, edge("context", "a0"), ["context → a0: context cannot hand stream to block"]),
    ("a f", {}, edge("f1", "input"), ["f1 → input: block cannot hand stream to input"]),
    ("a f", {}, edge("output", "f1"), ["output → f1: output cannot hand stream to block"]),
    ("a f", {}, edge("a0", "f1", "base"), ["a0 → f1: block cannot hand base to block"]),
    ("a c", {}, edge("a0", "c1", "context"), ["a0 → c1: block cannot hand context to block"]),
    ("a & c", {}, edge("context", "sum0", "context"), ["context → sum0: context cannot hand context to sum"]),
    ("a f", {}, edge("input", "a0", "position"), ["input → a0: input cannot hand position to block"]),
    ("a & a", {}, edge("sum0", "a1", "scores"), ["sum0 → a1: sum cannot hand scores to block"]),
    # a block's kind and options
    ("a f", {}, node("f1", kind="g"), [f"f1: unknown block kind 'g'; registered: {LISTED}"]),
    ("a f", {}, option("a0", heads=0), [f"a0: heads {RANGE} 1, not 0"]),
    ("a f", {}, option("f1", mult="4"), ["f1: mult must be a number of at least 0, not '4'"]),
    ("a f", {}, option("f1", hedas=2), ["f1: unknown option 'hedas'"]),
    ("a f", {}, option("f1", glue=True), ["f1: unknown option 'glue'; did you mean 'glu'?"]),
    ("a f", {}, gone("f1", "options", "glu"), ["f1: option 'glu' is missing"]),
    (
        "a f",
        {"use_rmsnorm": True},
        option("f1", use_scalenorm=True),
        ["f1: use_rmsnorm and use_scalenorm are both set; give one"],
    ),
    (
        "a f",
        {"sandwich_norm": True},
        option("a0", pre_norm=False),
        ["a0: sandwich_norm is set, but it needs pre_norm"],
    ),
    ("a f", {}, option("a0", init_gain=0), ["a0: init_gain must be a number above 0 or none, not 0"]),
    ("a f", {}, option("a0", dim_head=None), ["a0: dim_head is none; in a graph it is a number"]),
    (
        "a f",
        {},
        option("f1", swish=True, relu_squared=True),
        ["f1: swish and relu_squared are both set; a feedforward has one activation"],
    ),
    ("a f", {}, node("a0", heads=4), ["a0: heads is an option, not an attribute of the node"]),
    ("a f", {}, node("f1", kind="a"), ["f1: its options are those of 'f', and its kind is 'a'"]),
    ("a f a", {}, option("a2", kv="u"), ["a2: kv must be true, where an edge carries kv, or false; not 'u'"]),
    ("a f a", {}, option("a2", kv=True), ["a2: its option kv is on, and no nodes hand it kv"]),
    ("a f", {}, node("f1", shift=8), ["f1: a shift of 8 splits dim=16 into too many parts"]),
    ("a f", {"causal": True}, node("f1", shift=16), ["f1: a shift of 16 splits dim=16 into too many parts"]),
    # the stream
    ("a f f", {}, edge("f2", "f1"), ["f1: is part of a cycle: f1 → f2 → f1"]),
    ("a f", {}, edge("f1", "f1"), ["f1: is part of a cycle: f1 → f1"]),
    (
        "^u a f <u a",
        {},
        edge("a2", "read0", "read"),
        ["read0: reads a2, which comes after it (read0 → a2 → read0); only an earlier place can be read"],
    ),
    (
        "a ^k f a(kv=k) f a",
        {"causal": True},
        lambda g: (g.nx.remove_edge("a0", "a2"), g.nx.add_edge("a4", "a2", carries="kv")),
        ["a2: reads a4, which comes after it (a2 → f3 → a4 → a2); only an earlier place can be read"],
    ),
    ("a f f", {}, cut("a0", "f1"), [f"a0: {ADD_FROM}", f"f1: {ADD_TO}"]),
    ("a f", {}, cut("input", "a0"), [f"a0: {ADD_TO}"]),
    ("a f", {}, cut("f1", "output"), [f"f1: {ADD_FROM}", f"output: {ADD_TO}"]),
    (
        "a f",
        {},
        lambda g: g.nx.add_node("f9", **g.nx.nodes["f1"]),
        [f"f9: {ADD_TO}", f"f9: {ADD_FROM}"],
    ),
    # sums
    ("f a & f", {}, edge("input", "sum0", "base"), ["sum0: has more than one base: f0, input"]),
    (
        "f a & f",
        {},
        lambda g: g.nx.remove_edges_from([("a1", "sum0"), ("f2", "sum0")]),
        [f"a1: {ADD_FROM}", f"f2: {ADD_FROM}", "sum0: no branch meets here"],
    ),
    (
        "f a & f",
        {},
        both(cut("f0", "f2"), edge("input", "f2")),
        ["sum0: the branch f2 does not start at its base f0 but at input"],
    ),
    ("f a & f", {}, edge("input", "f2"), ["sum0: the branch f2 does not start at its base f0 but at input"]),
    # context, positions, scores
    (
        "a c f",
        {},
        cut("context", "c1"),
        [
            "c1: cross-attention has no context",
            "context: nothing reads it",
        ],
    ),
    ("a c f", {}, edge("context", "f2", "context"), ["f2: feedforward does not read a context"]),
    (
        "a f",
        {"rotary_pos_emb": True},
        edge("rotary2", "f1", "position"),
        ["f1: feedforward does not read rotary positions"],
    ),
    (
        "a a(dim_head=16)",
        {"rotary_pos_emb": True},
        edge("rotary8", "a0", "position"),
        [
            "rotary8 → a0: rotary positions of 8 features do not fit a head of 4",
            "a0: reads more than one position of the scheme rotary",
        ],
    ),
    (
        "a f",
        {"rotary_pos_emb": True},
        node("rotary2", dim=3),
        ["rotary2 → a0: rotary positions of 3 features do not fit a head of 4"],
    ),
    (
        "a f",
        {"rotary_pos_emb": True},
        gone("rotary2", "dim"),
        ["rotary2: has no attribute dim"],
    ),
    ("a f", TOKENS, edge("absolute", "a0", "position"), ["a0: reads absolute positions, which belong to the input"]),
    (
        "a f",
        {"rotary_pos_emb": True},
        cut("rotary2", "a0"),
        ["rotary2: nothing reads it"],
    ),
    ("a f a", {}, edge("a0", "a2", "scores"), ["a2: reads scores, but its option residual_attn is false"]),
    (
        "a f a a",
        {"residual_attn": True},
        edge("a0", "a3", "scores"),
        ["a3: reads the scores of more than one block"],
    ),
    (
        "f a",
        {"residual_attn": True},
        edge("f0", "a1", "stream", "scores"),
        ["f0 → a1: feedforward passes on no scores"],
    ),
    ("a f", {}, edge("a0", "f1", "stream", "scores"), ["f1: feedforward does not read scores"]),
    ("a f a", {"residual_attn": True}, option("a2", heads=3), ["a0 → a2: scores of 2 heads do not fit 3"]),
    (
        "a f a",
        {"residual_attn": True},
        option("a2", num_mem_kv=1),
        ["a0 → a2: scores of 0 memory key-values do not fit 1"],
    ),
    (
        "a c",
        {"cross_residual_attn": True},
        edge("a0", "c1", "stream", "scores"),
        ["a0 → c1: scores over tokens do not fit scores over the context"],
    ),
    # tokens
    ("a", {}, node("output", logits_dim=30), ["output: gives logits, but the input embeds no tokens"]),
    (
        "a",
        TOKENS | {"tie_embedding": True},
        node("output", logits_dim=31),
        ["output: is tied to an embedding of 30 tokens, but has logits_dim=31"],
    ),
    (
        "a",
        TOKENS | {"tie_embedding": True},
        node("output", logits_dim=None),
        ["output: is tied to an embedding of 30 tokens, but has logits_dim=None"],
    ),
    (
        "a",
        TOKENS | {"tie_embedding": True},
        node("input", emb_dim=6),
        ["output: is tied to an embedding of 6 features, but the stream has 16"],
    ),
    (
        "a",
        TOKENS | {"scaled_sinu_pos_emb": True},
        node("input", emb_dim=5),
        ["sinusoidal: sinusoids come in pairs, but the embedding has 5 features"],
    ),
    (
        "a",
        TOKENS,
        node("input", emb_frac_gradient=0),
        ["input: emb_frac_gradient must be a number above 0 and at most 1, not 0"],
    ),
    ("a", TOKENS, node("input", shift_mem_down=1), ["input: has shift_mem_down, but no max_mem_len keeps memories"]),
    ("a", {}, node("input", num_memory_tokens=2), ["input: has num_memory_tokens, but embeds no tokens"]),
    ("a", TOKENS, node("input", max_seq_len=None), ["input: embeds tokens and needs max_seq_len"]),
    ("a", {}, node("output", tied=True), ["output: is tied to an embedding, but the input has none"]),
    ("a", {}, node("input", max_mem_len=5), ["input: has max_mem_len, but embeds no tokens"]),
    ("a", {}, node("input", emb_dropout=0.1), ["input: has emb_dropout, but embeds no tokens"]),
    (
        "a",
        {},
        places("absolute"),
        ["input: reads positions, but embeds no tokens"],
    ),
    (
        "a",
        TOKENS,
        places("second"),
        ["input: reads more than one position"],
    ),
    (
        "a",
        TOKENS | {"rotary_pos_emb": True},
        edge("rotary2", "input", "position"),
        ["input: reads rotary positions, which belong to blocks"],
    ),
    (
        "a",
        TOKENS | {"rotary_pos_emb": True},
        places("absolute"),
        ["input: reads absolute positions while blocks read rotary positions; a model has one or the other"],
    ),
    # ties and stages
    (
        "a f",
        {},
        both(node("a0", tie="x"), node("f1", tie="x")),
        ["f1: is tied to a0, which is another kind of block"],
    ),
    ("f@x f@x", {}, option("f1", glu=True, mult=2), ["f1: is tied to f0, which differs in glu and mult"]),
    ("a | f", {}, node("f1", stage=2), ["f1: stage must be from 0 to 1, not 2"]),
    ("a | f f", {}, node("f2", stage=0), ["f2: is in stage 0, before its source f1 in stage 1"]),
]


@pytest.mark.parametrize(
    ("pattern", "keywords", "edit", "faults"), BROKEN, ids=[f"{i}: {row[3][0][:60]}" for i, row in enumerate(BROKEN)]
)
def test_each_rule_names_the_node_and_the_fault(
    pattern: str, keywords: dict[str, Any], edit: Callable[[BlockGraph], None], faults: list[str]
) -> None:
    g = graph(pattern, **keywords)
    assert g.lint() is g
    edit(g)
    assert found(g) == faults


NO_ONE_CALL = (  # what is meant nobody can tell, or it takes more than a call
    "the graph: has no attribute dim|the graph: dim|unknown attribute|0 input nodes|are both set|but it needs|is set, but|"
    "needs absolute positions|has logits_dim=None|sinusoids come|embedding of 6 features|must be one of 'rotary'|"
    "has no attribute dim|does not start at its base|reads rotary positions, which|reads absolute positions while"
)


@pytest.mark.parametrize(
    ("pattern", "keywords", "edit"),
    [row[:3] for row in BROKEN],
    ids=[f"{i}: {r[3][0][:60]}" for i, r in enumerate(BROKEN)],
)
def test_the_call_beside_a_fault_mends_it(
    pattern: str, keywords: dict[str, Any], edit: Callable[[BlockGraph], None]
) -> None:
    g = graph(pattern, **keywords)
    edit(g)
    for problem, mend in lint.faults(g):
        if not mend:
            assert re.search(NO_ONE_CALL, problem), problem
            continue
        mended = g.copy()
        exec(mend, {"g": mended, "nx": nx})
        assert problem not in {each.problem for each in lint.faults(mended)}, mend


def test_the_calls_of_lint_close_a_gap_and_make_a_bare_node_a_block() -> None:
    g = graph("(a f)*3")
    g.nx.remove_node("a2")
    with pytest.raises(GraphError) as error:
        g.lint()
    assert str(error.value) == (
        "the graph cannot be lowered: 2 faults\n"
        "  f1: nothing reads its output\n"
        "    g.nx.add_edge('f1', 'f3')\n"
        "  f3: reads no stream\n"
        "    g.nx.add_edge('f1', 'f3')"
    )
    g.nx.add_edge("f1", "f3")
    assert g == graph("a f f a f")
    g.nx.remove_edge("f1", "f3")
    nx.add_path(g.nx, ["f1", "new", "f3"])
    assert [fault.mend for fault in lint.faults(g)] == ["g.replace('new', 'f')"]
    g.replace("new", "a")
    assert g == graph("(a f)*3")


@pytest.mark.parametrize(
    "edit",
    [
        gone("a0", "options", "heads"),
        gone("f1", "options", "mult"),
        option("a0", heads=0),
        option("f1", extra=[1]),
        node("a0", scale=0),
        node("a0", kind="g"),
        node("a0", stage=2),
    ],
)
def test_a_block_that_cannot_be_is_an_error_of_drawings_and_differences_too(edit: Callable[[BlockGraph], None]) -> None:
    g = graph("a f", **TOKENS)
    edit(g)
    for read in (g.to_text, g.to_svg, g.to_html, g.to_dot, g.to_mermaid, lambda: g.diff(graph("a f"))):
        with pytest.raises(GraphError, match=r"the graph cannot be read:\n  (a0|f1): "):
            read()


def test_a_graph_that_is_being_edited_can_be_drawn() -> None:
    g = graph("a f", **TOKENS)
    g.nx.nodes["input"]["max_seq_len"] = None
    assert "9" not in g.to_text().splitlines()[1]
    assert g.diff(graph("a f", **TOKENS))


def test_notes_are_let_be() -> None:
    import xt_blocks

    def said(g: BlockGraph) -> tuple[object, ...]:
        drawn = g.to_text(), g.to_svg(), g.to_dot(), g.to_mermaid(), g.to_html()
        return (g.parameters(), g.flops(5), *drawn, g.to_json())

    g = graph("a c & f | f", rotary_pos_emb=True, **TOKENS)
    before = said(g)
    g.nx.graph["_run"] = 3
    for attrs in (*(attrs for _, attrs in g.nx.nodes(data=True)), *(attrs for *_, attrs in g.nx.edges(data=True))):
        attrs["_note"] = object()
    assert g.lint() is g
    assert said(g) == before
    assert sum(p.numel() for p in xt_blocks.lower(g).parameters()) == g.parameters()


def test_every_fault_is_named_at_once() -> None:
    g = graph("a f & f c", rotary_pos_emb=True)
    g.nx.nodes["a0"]["options"] |= {"heads": 0, "hheads": 2}
    del g.nx.nodes["a0"]["options"]["dropout"]
    g.nx.nodes["f2"]["kind"] = "ff"
    g.nx.add_edge("context", "f1")
    assert found(g) == [
        "context → f1: context cannot hand stream to block",
        "a0: heads must be a whole number of at least 1, not 0",
        "a0: unknown option 'hheads'; did you mean 'heads'?",
        "a0: option 'dropout' is missing",
        f"f2: unknown block kind 'ff'; registered: {LISTED}",
    ]


def test_a_gap_in_a_long_stack_is_named_once_and_not_for_every_block_after_it() -> None:
    g = graph("(a f)*500")
    g.nx.remove_edge("f499", "a500")
    assert len(found(g)) == 2


def test_edges_without_carries_or_with_a_plain_name_are_read_as_meant() -> None:
    g = graph("a c f")
    for source, target in g.nx.edges:
        attrs = g.nx.edges[source, target]
        (what,) = attrs["carries"]
        if what == "stream":
            del attrs["carries"]
        else:
            attrs["carries"] = what
    assert g.lint() is g
    assert g == graph("a c f")


def test_lowering_and_reading_judge_the_graph_too() -> None:
    import xt_blocks

    g = graph("a f")
    g.nx.remove_edge("a0", "f1")
    with pytest.raises(GraphError, match="f1: reads no stream"):
        xt_blocks.lower(g)
    with pytest.raises(GraphError, match="f1: reads no stream"):
        BlockGraph.from_json(g.to_json())
    with pytest.raises(GraphError, match="f1: reads no stream"):
        g.with_tokens(30, 9)


@settings(max_examples=80)
@given(models(), st.data())
def test_a_random_graph_passes_and_without_any_one_stream_edge_does_not(model: Model, data: st.DataObject) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    assert g.lint() is g
    streams = [edge for edge in g.nx.edges if "stream" in g.nx.edges[edge]["carries"]]
    g.nx.remove_edge(*data.draw(st.sampled_from(streams)))
    assert found(g)


@pytest.mark.parametrize(
    "text",
    [
        "^u a ^k f a(kv=k) <u(soft) f <u(cat, all) (f & a) ^u <u(gain) a",
        "^x <x(soft) f",
        "set causal, residual_attn, rotary_pos_emb; stem: a f | (a & (f a) & f f)*3 | ^v a f@t a f@t <v(pop)",
        "set enc_heads=2, enc_dim=16, dec_dim=16, dec_heads=2; (a f)*2 => (a c f & f)*2",
        "set use_adaptive_layernorm; sandwich(2) | macaron(2)",
        "(a & f(shared_norm))*2 c",
        *(zoo.entry(name).text for name in zoo.names()),
    ],
)
def test_no_text_breaks_the_rules_that_are_not_asked_of_what_is_just_built(text: str) -> None:
    pattern = blockdsl.parse(text)
    g = blockdsl.compile(pattern, **({} if {"dim", "enc_dim"} & {*pattern.settings} else SIZES))
    assert g.lint() is g


def test_what_is_compiled_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = graph("a f a").nx
    faulty.nodes["a2"]["options"]["heads"] = 0
    monkeypatch.setattr("blockdsl.api.build", lambda stack: faulty)
    with pytest.raises(GraphError, match="a2: heads must be"):
        graph("a f a")


@pytest.mark.parametrize("ends", [("input", "f1"), ("a0", "output")])
def test_a_norm_is_shared_between_blocks_alone(ends: tuple[str, str]) -> None:
    g = graph("a f")
    before = g.nx.edges[ends]["carries"] if g.nx.has_edge(*ends) else ()
    g.nx.add_edge(*ends, carries=(*before, "normed"))
    types = [g.node_type(node) for node in ends]
    assert found(g) == [f"{ends[0]} → {ends[1]}: {types[0]} cannot hand normed to {types[1]}"]


@pytest.mark.parametrize("pattern", ["(a f)*{0}", "(a & f)*{0}", "((a f)*{0})@x ((a f)*{0})@x", "(a*{0} & f) | f*{0}"])
def test_many_blocks_are_judged_in_steps_that_grow_with_their_number(pattern: str) -> None:
    graphs = {size: graph(pattern.format(size)) for size in (150, 300)}
    graphs[300].lint()  # what is known of each node's text is known by now
    assert growth(lambda size: graphs[size].lint(), 150) < LINEAR


def test_deeply_nested_branches_take_hardly_more_steps_than_flat_ones() -> None:
    # a rule that walked through every branch once more for each sum around it would take some eight times as many
    text = "(f a*1000)"
    for _ in range(60):
        text = f"(f {text} & f)"
    nested, flat = graph(text), graph("(a f & f)*333")
    assert lines(nested.lint) / len(nested.nx) < 2 * lines(flat.lint) / len(flat.nx)


def test_a_label_is_a_name_that_a_text_can_have() -> None:
    g = graph("a f")
    g.nx.nodes["a0"]["labels"] = ["a b"]
    assert found(g) == ["a0: labels must be names, of letters, digits and '_', not ['a b']"]
    g.nx.nodes["a0"]["labels"] = ["a_b"]
    assert g.lint() is g


def test_what_is_known_of_options_is_not_taken_for_others_that_are_equal() -> None:
    """1 and True are equal: what was found for one graph is no answer for the other."""
    good = blockdsl.compile("f(glu)", dim=8).lint()
    bad = good.copy()
    bad.nx.nodes["f0"]["options"]["glu"] = 1
    with pytest.raises(GraphError, match="glu must be true or false, not 1"):
        bad.lint()
    wider = blockdsl.compile("a(heads=3)", dim=9, attn_dim_head=3)
    assert wider.parameters() != blockdsl.compile("a(heads=3)", dim=12, attn_dim_head=3).parameters()
    good.lint()
