"""From pattern to graph: the nodes and edges expected of small patterns, written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, PatternError, UserError
from blockdsl.graph.nodes import without_notes

from .patterns import PLAIN_ATTENTION, PLAIN_BLOCK, PLAIN_FEEDFORWARD, PLAIN_INPUT, PLAIN_OUTPUT, Model, models

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 4}


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def edges(g: BlockGraph) -> set[str]:
    """`source → target` of stream edges; others have what they carry in front."""
    return {
        f"{source} → {target}" if what == "stream" else f"{what}: {source} → {target}"
        for source, target, attrs in g.nx.edges(data=True)
        for what in attrs["carries"]
    }


def at(error: PatternError) -> tuple[int, int, str]:
    """Where an error points, and what it says."""
    return error.line, error.column, error.problem


def options(g: BlockGraph, node: str) -> dict[str, Any]:
    return g.nx.nodes[node]["options"]


def test_a_whole_graph_attribute_by_attribute() -> None:
    g = blockdsl.compile("x: a(heads=4)>>1 | f/2@t", dim=16, attn_dim_head=4, causal=True, ff_mult=2, use_rmsnorm=True)
    around = PLAIN_BLOCK | {"use_rmsnorm": True}
    assert dict(g.nx.nodes(data=True)) == {
        "input": PLAIN_INPUT,
        "a0": {
            "type": "block",
            "kind": "a",
            "options": PLAIN_ATTENTION
            | {"heads": 4, "dim_head": 4, "causal": True, "max_attend_past": None, "max_attend_future": None}
            | {"kv_rank": None, "q_rank": None, "shared_key_dim": None}
            | {"lora_rank": None, "concat": False}
            | {"kv": False, "values": False, "value_mix": "half", "forget_gate": False}
            | {"value_embed": None}
            | around,
            "given": {"heads": 4},
            "shift": 1,
            "scale": 1.0,
            "tie": None,
            "stage": 0,
        },
        "f1": {
            "type": "block",
            "kind": "f",
            "options": PLAIN_FEEDFORWARD | {"mult": 2} | around,
            "given": {},
            "shift": 0,
            "scale": 0.5,
            "tie": "t",
            "stage": 1,
        },
        "output": PLAIN_OUTPUT | {"norm": "rmsnorm"},
    }
    assert [*g.nx.edges(data="carries")] == [
        ("input", "a0", ("stream",)),
        ("a0", "f1", ("stream",)),
        ("f1", "output", ("stream",)),
    ]
    assert without_notes(g.nx.graph) == {
        "dim": 16,
        "causal": True,
        "stages": ["x", None],
        "pattern": "x: a(heads=4)>>1 | f/2@t",
    }
    assert (g.dim, g.causal, g.stages, g.pattern) == (16, True, ["x", None], "x: a(heads=4)>>1 | f/2@t")


def test_blocks_follow_one_another() -> None:
    g = graph("(a f)*2 f")
    assert [*g.nx] == ["input", "a0", "f1", "a2", "f3", "f4", "output"]
    assert edges(g) == {"input → a0", "a0 → f1", "f1 → a2", "a2 → f3", "f3 → f4", "f4 → output"}


def test_parallel_branches_start_at_one_node_and_meet_in_a_sum() -> None:
    g = graph("f a & (f f) & c f")
    assert edges(g) == {
        "input → f0",
        "base: f0 → sum0",
        "f0 → a1",
        "a1 → sum0",
        "f0 → f2",
        "f2 → f3",
        "f3 → sum0",
        "f0 → c4",
        "c4 → sum0",
        "context: context → c4",
        "sum0 → f5",
        "f5 → output",
    }
    assert g.sources("sum0", "stream") == ["a1", "f3", "c4"]  # in the order of the branches


def test_nested_branches_have_sums_of_their_own() -> None:
    g = graph("a & (f (a & f) f)")
    assert edges(g) == {
        "input → a0",
        "a0 → sum1",
        "input → f1",
        "f1 → a2",
        "f1 → f3",
        "base: f1 → sum0",
        "a2 → sum0",
        "f3 → sum0",
        "sum0 → f4",
        "f4 → sum1",
        "base: input → sum1",
        "sum1 → output",
    }


def test_a_branch_may_begin_and_end_with_branches() -> None:
    g = graph("(a & f)*2 & f")
    assert edges(g) == {
        "input → a0",
        "input → f1",
        "base: input → sum0",
        "a0 → sum0",
        "f1 → sum0",
        "sum0 → a2",
        "sum0 → f3",
        "base: sum0 → sum1",
        "a2 → sum1",
        "f3 → sum1",
        "input → f4",
        "base: input → sum2",
        "sum1 → sum2",
        "f4 → sum2",
        "sum2 → output",
    }


def test_stages_are_numbered_and_named() -> None:
    g = graph("f a f | deep: a*2 f & a | f")
    assert g.stages == [None, "deep", None]
    stage = {node: attrs["stage"] for node, attrs in g.nx.nodes(data=True) if "stage" in attrs}
    assert stage == {"f0": 0, "a1": 0, "f2": 0, "a3": 1, "a4": 1, "f5": 1, "a6": 1, "sum0": 1, "f7": 2}


def test_a_boundary_inside_a_repeated_group_repeats() -> None:
    g = graph("(a | f)*2 a")
    assert g.stages == [None, None, None]
    assert [g.nx.nodes[node]["stage"] for node in g.nodes("block")] == [0, 1, 1, 2, 2]


def test_the_number_of_boundaries_does_not_change_blocks_or_edges() -> None:
    cut, whole = graph("f a f | a f | f"), graph("f a f a f f")
    assert edges(cut) == edges(whole)
    assert [*cut.nx] == [*whole.nx]


def test_blocks_with_one_label_are_tied() -> None:
    g = graph("(a@x f)*2 a a@x>>1/2")
    assert {node: g.nx.nodes[node]["tie"] for node in g.nodes("block")} == {
        "a0": "x",
        "f1": None,
        "a2": "x",
        "f3": None,
        "a4": None,
        "a5": "x",
    }
    assert g.tied() == {"a0": ["a0", "a2", "a5"], "f1": ["f1"], "f3": ["f3"], "a4": ["a4"]}
    # what differs by use is not shared
    assert (g.nx.nodes["a0"]["shift"], g.nx.nodes["a5"]["shift"]) == (0, 1)
    assert (g.nx.nodes["a0"]["scale"], g.nx.nodes["a5"]["scale"]) == (1.0, 0.5)


def test_the_nth_block_of_a_tied_group_is_tied_to_the_nth_of_the_others() -> None:
    g = graph("(a f f)@g f (a f f)@g")
    assert g.tied() == {"a0": ["a0", "a4"], "f1": ["f1", "f5"], "f2": ["f2", "f6"], "f3": ["f3"]}


def test_ties_reach_across_stages_and_branches() -> None:
    g = graph("a@x & f@y | f@y a@x")
    assert g.tied() == {"a0": ["a0", "a3"], "f1": ["f1", "f2"]}


def test_tied_blocks_with_other_options_are_refused() -> None:
    with pytest.raises(PatternError) as error:
        graph("a(heads=2)@x f a(heads=4, dropout=0.5)@x")
    assert at(error.value) == (1, 16, "the tie 'x' has different options here than before: dropout, heads")


def test_cross_attention_reads_one_context() -> None:
    g = graph("(a c f)*2")
    assert g.nodes("context") == ["context"]
    assert {edge for edge in edges(g) if edge.startswith("context")} == {
        "context: context → c1",
        "context: context → c4",
    }
    assert graph("a f").nodes("context") == []


def test_cross_attention_without_a_context_points_at_the_block() -> None:
    with pytest.raises(PatternError) as error:
        graph("a c f", context=False)
    assert at(error.value) == (1, 3, "'c' (cross-attention) without a context to attend to")
    with pytest.raises(UserError, match="context is set, but no block of the pattern attends to a context"):
        graph("a f", context=True)
    with pytest.raises(PatternError, match="1:5: context is set, but no block of the pattern attends to a context"):
        graph("set context; a f")


ROTARY = {
    "type": "position",
    "scheme": "rotary",
    "theta": 10_000.0,
    "interleaved": False,
    "scaling": None,
    "factor": None,
    "original_len": None,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": True,
    "attention_factor": None,
    "short_factors": None,
    "long_factors": None,
    "xpos_scale_base": None,
}


def test_rotary_positions_are_one_node_for_each_size() -> None:
    g = graph("a a(dim_head=12) f c a a(dim_head=3)", rotary_pos_emb=True)
    assert {node: g.nx.nodes[node] for node in g.nodes("position")} == {
        "rotary2": ROTARY | {"dim": 2},  # half of 4, and at least 2
        "rotary6": ROTARY | {"dim": 6},  # half of 12
    }
    assert {edge for edge in edges(g) if edge.startswith("position")} == {
        "position: rotary2 → a0",
        "position: rotary6 → a1",
        "position: rotary2 → a4",
        "position: rotary2 → a5",
    }


def test_the_rotated_size_can_be_given_and_is_held_against_the_head() -> None:
    g = graph("a f", rotary_pos_emb=True, rotary_emb_dim=4)
    assert g.nodes("position") == ["rotary4"]
    for wrong, size in ((6, 4), (3, 4)):
        with pytest.raises(PatternError) as error:
            graph("f a", rotary_pos_emb=True, rotary_emb_dim=wrong)
        assert str(error.value) == (
            f"1:3: rotary positions of {wrong} features do not fit a head of {size}\n"
            "  f a\n"
            "    ^\n"
            "  rotary_emb_dim is even and at most dim_head"
        )
    with pytest.raises(PatternError, match="1:5: rotary_emb_dim is set, but it needs rotary_pos_emb"):
        graph("set rotary_emb_dim=4; a")
    with pytest.raises(UserError, match="rotary_pos_emb is set, but no block of the pattern uses rotary positions"):
        graph("f c", rotary_pos_emb=True)


def rotated(pattern: str, **keywords: Any) -> list[float | None]:
    """The theta that each block reads; None: it has no rotary positions."""
    g = graph(pattern, **keywords)
    read = [g.sources(node, "position") for node in g.nodes("block")]
    return [g.nx.nodes[nodes[0]]["theta"] if nodes else None for nodes in read]


def test_a_block_says_of_its_rotary_positions_what_the_stack_says_of_all() -> None:
    assert rotated("a a(rotary_theta=1e6) a(rotary=false)", rotary_pos_emb=True) == [1e4, 1e6, None]
    assert rotated("set rotary_theta=500; a a(rotary, rotary_theta=7) a(rotary) f") == [None, 7, 500, None]
    assert rotated("a(rotary=false)*2", rotary_pos_emb=True, rotary_theta=9) == [None, None]
    assert rotated("a a(rotary=false)", rotary_xpos=True, causal=True) == [1e4, None]
    shared = graph("a(rotary) f a(rotary_theta=1e4) a(rotary_theta=8)*2", rotary_pos_emb=True, rotary_emb_dim=4)
    assert [shared.sources(node, "position") for node in ("a0", "a2", "a3", "a4")] == [
        ["rotary4"],
        ["rotary4"],
        ["rotary4x"],
        ["rotary4x"],
    ]
    assert "rotary" not in shared.nx.nodes["a0"]["given"]  # its edge says it, and may be removed
    lone = graph("a(rotary=false)", rotary_pos_emb=True, num_tokens=9, max_seq_len=5)
    assert lone.nodes("position") == ["absolute"]  # nothing else tells one token from another


@pytest.mark.parametrize("text", ["a(rotary_theta=9)", "set rotary_pos_emb; a(rotary=false, rotary_theta=9)"])
def test_what_a_block_says_of_rotary_positions_that_it_has_not_is_an_error(text: str) -> None:
    with pytest.raises(PatternError, match="rotary_theta is set, but it needs rotary\n"):
        graph(text)


def scores(pattern: str, **keywords: Any) -> set[str]:
    g = graph(pattern, **keywords)
    return {edge.removeprefix("scores: ") for edge in edges(g) if edge.startswith("scores")}


def test_residual_attention_comes_from_the_previous_block_of_its_own_kind() -> None:
    assert scores("(a c f)*3", residual_attn=True) == {"a0 → a3", "a3 → a6"}
    assert scores("(a c f)*3", cross_residual_attn=True) == {"c1 → c4", "c4 → c7"}
    both = scores("(a c f)*2", residual_attn=True, cross_residual_attn=True)
    assert both == {"a0 → a3", "c1 → c4"}
    assert scores("(a c f)*2") == set()


def test_residual_attention_reaches_across_stages() -> None:
    assert scores("a f | f a | a", residual_attn=True) == {"a0 → a3", "a3 → a4"}


def test_each_branch_adds_the_scores_from_before_the_branches_and_the_last_hands_on() -> None:
    assert scores("a (a & (f a)) a", residual_attn=True) == {"a0 → a1", "a0 → a3", "a3 → a4"}
    assert scores("a ((a a) & f) a", residual_attn=True) == {"a0 → a1", "a1 → a2", "a2 → a4"}


def test_an_edge_may_carry_the_stream_and_scores() -> None:
    g = graph("a a", residual_attn=True)
    assert g.nx.edges["a0", "a1"]["carries"] == ("stream", "scores")
    assert edges(g) == {"input → a0", "a0 → a1", "scores: a0 → a1", "a1 → output"}


def test_residual_attention_is_an_option_of_each_block_too() -> None:
    # a1 asks for scores, a2 does not and yet hands its own on
    assert scores("a a(residual_attn) a a(residual_attn)") == {"a0 → a1", "a2 → a3"}
    assert scores("a a(residual_attn=false) a", residual_attn=True) == {"a1 → a2"}


@pytest.mark.parametrize(
    ("text", "source"), [("c ^k f a(scores=k)", "c0 (cross-attention)"), ("a ^k f c(scores=k)", "a0 (self-attention)")]
)
def test_scores_over_another_sequence_are_refused_where_they_are_written(text: str, source: str) -> None:
    with pytest.raises(PatternError) as error:
        graph(text)
    assert str(error.value) == (
        f"1:8: reads {source}, and scores over tokens do not fit scores over the context\n"
        f"  {text}\n"
        "         ^^^^^^^^^^^\n"
        "  read those of self-attention in self-attention, and those of cross-attention in cross-attention"
    )


def test_residual_attention_of_other_heads_is_refused_where_it_is_written() -> None:
    with pytest.raises(PatternError) as error:
        graph("a f a(heads=4)", residual_attn=True)
    assert str(error.value) == (
        "1:5: residual attention adds the scores of 2 heads to those of 4\n"
        "  a f a(heads=4)\n"
        "      ^^^^^^^^^^\n"
        "  give both blocks the same number of heads, or write residual_attn=false here"
    )
    with pytest.raises(PatternError, match="adds the scores of 0 memory key-values to those of 3"):
        graph("a f a(num_mem_kv=3)", residual_attn=True)
    assert scores("a f a(heads=4, residual_attn=false) a(heads=4)", residual_attn=True) == {"a2 → a3"}
    assert scores("a(heads=4) c(heads=4) f c(heads=4)", cross_residual_attn=True) == {"c1 → c3"}


@pytest.mark.parametrize(
    ("pattern", "settings"),
    [
        ("c f", {"attn_max_attend_past": 2, "residual_attn": True, "causal": True}),
        ("f f", {"attn_dropout": 0.1, "cross_residual_attn": True}),
        ("set ff_glu; a a", {"ff_swish": True}),
        ("f f", {"heads": 2, "attn_dim_head": 4, "zero_init_branch_output": True, "layer_dropout": 0.1}),
        ("a a", {"ff_mult": 2, "ff_dropout": 0, "use_rmsnorm": True}),
        ("a f(mult=2)", {"ff_mult": 3}),
    ],
)
def test_a_setting_of_every_block_of_a_kind_may_find_none(pattern: str, settings: dict[str, Any]) -> None:
    assert blockdsl.compile(pattern, dim=16, **settings).nodes("block")


def test_settings_come_from_block_then_keyword_then_text_then_default() -> None:
    text = "set heads=3, ff_mult=2; a a(heads=5) f"
    g = blockdsl.compile(text, dim=16)
    assert [options(g, node)["heads"] for node in ("a0", "a1")] == [3, 5]
    assert options(g, "f2")["mult"] == 2
    g = blockdsl.compile(text, dim=16, heads=7)
    assert [options(g, node)["heads"] for node in ("a0", "a1")] == [7, 5]
    g = blockdsl.compile("a(heads=5) a c f", dim=16)
    assert [options(g, node)["heads"] for node in ("a0", "a1", "c2")] == [5, 8, 8]
    assert options(g, "f3")["mult"] == 4
    assert blockdsl.compile("set dim=8; a", dim=24).dim == 24


def test_a_block_is_told_only_what_its_kind_declares() -> None:
    g = graph("a c f", causal=True, attn_dropout=0.25, ff_dropout=0.5)
    assert options(g, "a0")["causal"] is True
    assert "causal" not in options(g, "c1")
    assert [options(g, node)["dropout"] for node in ("a0", "c1", "f2")] == [0.25, 0.25, 0.5]


def test_blocks_of_one_text_do_not_share_their_options() -> None:
    # an edit of one block would change the others
    g = graph("a(heads=4)*2 f*2")
    options(g, "a0")["heads"] = 1
    g.nx.nodes["a0"]["given"]["heads"] = 1
    assert options(g, "a1")["heads"] == 4
    assert g.nx.nodes["a1"]["given"] == {"heads": 4}


def test_copies_and_graphs_of_one_pattern_do_not_share_their_options() -> None:
    pattern = blockdsl.parse("(a f)*3 a")
    first, second = blockdsl.compile(pattern, dim=64), blockdsl.compile(pattern, dim=64)
    first.nx.nodes["a0"]["options"]["heads"] = 2
    first.nx.nodes["f1"]["given"]["mult"] = 4
    assert [first.block(node)["options"]["heads"] for node in ("a0", "a2", "a4", "a6")] == [2, 8, 8, 8]
    assert [first.block(node)["given"] for node in ("f1", "f3", "f5")] == [{"mult": 4}, {}, {}]
    assert second == blockdsl.compile("(a f)*3 a", dim=64)


def test_what_a_block_says_is_judged_by_the_stack_that_it_is_in() -> None:
    for _ in range(2):  # the second time it is known
        for dim, size in ((16, 8), (64, 32), (16, 8)):
            g = graph("a(heads=2)", dim=dim, attn_dim_head=None)
            assert g.nx.nodes["a0"]["options"]["dim_head"] == size
        assert graph("a f", rotary_pos_emb=True).nodes("position")
        with pytest.raises(UserError, match="no block of the pattern uses rotary"):
            graph("f", rotary_pos_emb=True)
        with pytest.raises(PatternError, match="value_embed=0 has 16 features here, and 8 before"):
            graph("a(value_embed=0) a(value_embed=0, heads=4)", num_tokens=5, max_seq_len=4)


def test_no_head_size_means_an_equal_part_of_the_stream() -> None:
    g = blockdsl.compile("a a(heads=8) a(dim_head=3)", dim=32, heads=4, attn_dim_head=None)
    assert [options(g, node)["dim_head"] for node in g.nodes("block")] == [8, 4, 3]
    with pytest.raises(PatternError) as error:
        blockdsl.compile("f a(heads=5)", dim=32, attn_dim_head=None)
    assert at(error.value) == (1, 3, "heads=5 does not divide dim=32, which dim_head=none asks for")


def test_the_stack_shifts_every_block_that_sets_no_shift() -> None:
    g = graph("a f>>0 (a f)>>2", shift_tokens=1)
    assert [g.nx.nodes[node]["shift"] for node in g.nodes("block")] == [1, 0, 2, 2]


def test_a_shift_wider_than_the_stream_is_refused() -> None:
    assert graph("f>>7", dim=15).nx.nodes["f0"]["shift"] == 7  # 15 parts of one feature
    assert graph("f>>14", dim=15, causal=True).nx.nodes["f0"]["shift"] == 14
    with pytest.raises(PatternError, match="1:1: a shift of 8 splits dim=15 into 17 parts"):
        graph("f>>8", dim=15)
    with pytest.raises(PatternError, match="1:1: a shift of 15 splits dim=15 into 16 parts"):
        graph("f>>15", dim=15, causal=True)


@pytest.mark.parametrize(
    ("keywords", "norm"),
    [
        ({}, "layernorm"),
        ({"use_rmsnorm": True}, "rmsnorm"),
        ({"pre_norm": False}, None),
        ({"pre_norm": False, "use_rmsnorm": True}, None),
        ({"use_scalenorm": True}, "scalenorm"),
        ({"sandwich_norm": True, "use_rmsnorm": True}, "rmsnorm"),
        ({"deepnorm": True}, None),
        ({"deepnorm": True, "use_scalenorm": True}, None),
    ],
)
def test_the_final_norm_follows_the_stack(keywords: dict[str, Any], norm: str | None) -> None:
    assert graph("a f", **keywords).nx.nodes["output"]["norm"] == norm
    written = ", ".join(f"{name}={str(value).lower()}" for name, value in keywords.items())
    text = f"set {written}; a f" if keywords else "a f"
    assert graph(text).nx.nodes["output"]["norm"] == norm


def test_a_blocks_own_norm_option_leaves_the_final_norm_alone() -> None:
    assert graph("a f(pre_norm=false, use_rmsnorm)").nx.nodes["output"]["norm"] == "layernorm"


def test_tokens_make_an_embedding_absolute_positions_and_logits() -> None:
    g = graph("a f", num_tokens=30, max_seq_len=9, emb_dropout=0.25, tie_embedding=True)
    assert g.nx.nodes["input"] == PLAIN_INPUT | {"num_tokens": 30, "max_seq_len": 9, "emb_dropout": 0.25}
    assert g.nx.nodes["output"] == PLAIN_OUTPUT | {"logits_dim": 30, "tied": True}
    assert g.nx.nodes["absolute"] == {"type": "position", "scheme": "absolute"}
    assert edges(g) == {"input → a0", "a0 → f1", "f1 → output", "position: absolute → input"}
    assert graph("a f", num_tokens=30, max_seq_len=9, use_abs_pos_emb=False).nodes("position") == []
    assert graph("a f", num_tokens=30, max_seq_len=9, rotary_pos_emb=True).nodes("position") == ["rotary2"]


def test_with_tokens_is_what_the_settings_do_and_stack_alone_takes_it_back() -> None:
    stack = graph("a c f | f")
    settings_of = {"num_tokens": 30, "max_seq_len": 9, "tie_embedding": True}
    model = stack.with_tokens(**settings_of)
    assert model == graph("a c f | f", **settings_of)
    assert model != stack
    assert model.stack_alone() == stack
    assert stack.nodes("position") == []  # the original is left as it was
    # given again, the new values hold, positions included
    assert model.with_tokens(7, 5, use_abs_pos_emb=False) == stack.with_tokens(7, 5, use_abs_pos_emb=False)


def test_settings_of_an_embedding_need_one() -> None:
    for name, value in (("max_seq_len", 9), ("emb_dropout", 0.1), ("tie_embedding", True)):
        with pytest.raises(UserError, match=f"{name} is set, but it needs num_tokens"):
            graph("a", **{name: value})
    with pytest.raises(UserError, match="num_tokens is set, but it needs max_seq_len too"):
        graph("a", num_tokens=30)
    with pytest.raises(UserError, match="num_tokens must be a whole number of at least 1"):
        graph("a").with_tokens(0, 5)


def test_a_stack_without_a_dim_says_how_to_give_one() -> None:
    with pytest.raises(UserError, match="a stack needs dim: give dim=512, or write set dim=512; in the pattern"):
        blockdsl.compile("a f")


def test_a_wrong_keyword_is_a_type_error_and_a_wrong_value_names_the_range() -> None:
    with pytest.raises(TypeError, match=r"did you mean 'heads'\?"):
        blockdsl.compile("a f", dim=16, head=2)
    with pytest.raises(UserError, match="heads must be a whole number of at least 1, not 0"):
        blockdsl.compile("a f", dim=16, heads=0)


def test_a_parsed_pattern_compiles_to_the_graph_of_its_text() -> None:
    text = "f a f | a*6 f*6 | sandwich(6)"
    g = graph(text)
    assert blockdsl.compile(blockdsl.parse(text), **SIZES) == g
    kinds = "faf" + "aaaaaaffffff" * 2
    assert [g.nx.nodes[node]["kind"] for node in g.nodes("block")] == [*kinds]


def test_a_copy_is_independent() -> None:
    g = graph("a f")
    twin = g.copy()
    assert twin == g
    twin.nx.nodes["f1"]["options"]["glu"] = True
    twin.nx.graph["stages"].append("new")
    assert twin != g
    assert g == graph("a f")


@settings(max_examples=80)
@given(models())
def test_every_block_of_a_random_pattern_is_there_in_order_and_lint_is_content(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    blocks = g.nodes("block")
    assert tuple(g.nx.nodes[node]["kind"] for node in blocks) == model.blocks
    assert blocks == [f"{kind}{i}" for i, kind in enumerate(model.blocks)]
    assert g.lint() is g
    # every block reads one stream, and the order of the graph is the order of the text
    assert all(len(g.sources(node, "stream")) == 1 for node in blocks)
    place = {node: i for i, node in enumerate(g.order())}
    assert all(place[source] < place[target] for source, target in g.nx.edges)
    assert bool(g.nodes("context")) == ("c" in model.blocks)


@settings(max_examples=40)
@given(models(), st.data())
def test_compiling_twice_gives_one_graph_and_the_settings_may_stand_in_the_text(
    model: Model, data: st.DataObject
) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    assert blockdsl.compile(model.text, **model.settings) == g
    moved = data.draw(st.lists(st.sampled_from(sorted(model.settings)), unique=True))
    written = ", ".join(f"{name}={str(model.settings[name]).lower()}" for name in moved)
    text = f"set {written}; {model.text}" if moved else model.text
    other = blockdsl.compile(text, **{name: v for name, v in model.settings.items() if name not in moved})
    other.nx.graph["pattern"] = g.pattern  # which has no `set`
    assert other == g
