"""A graph edited with plain networkx calls lowers to what it then says: modules, parameters and numbers.

Each edited architecture is written out by hand, in float64, from the lowered module's own weights.
"""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, GraphError

from .reference import Reference

DIM, HEADS, HEAD = 12, 2, 4
ATTENTION = 4 * DIM * HEADS * HEAD + 2 * DIM  # projections and the norm
FEEDFORWARD = 8 * DIM * DIM + 5 * DIM + 2 * DIM
FINAL = 2 * DIM


def graph(pattern: str, **settings: object) -> BlockGraph:
    return blockdsl.compile(pattern, dim=DIM, heads=HEADS, attn_dim_head=HEAD, **settings)


def lowered(g: BlockGraph) -> xt_blocks.Stack:
    """In float64, with weights that are not those of the initialisation: biases are not zero, gains not one."""
    stack = xt_blocks.lower(g).double().eval()
    assert isinstance(stack, xt_blocks.Stack)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return stack


def inputs(batch: int = 2, seq: int = 5) -> Tensor:
    return torch.randn(batch, seq, DIM, dtype=torch.float64)


def numbers(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def same(out: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(out, want, atol=tolerance, rtol=tolerance)


def test_the_reference_agrees_before_any_edit() -> None:
    # the edits below mean something only if the hand-written arithmetic is right without one
    g = graph("a>>1 f/2", causal=True)
    stack, x = lowered(g), inputs()
    ref = Reference(stack, HEAD, causal=True)
    h = x + ref.a("a0", x, shift=1)
    same(stack(x), ref.out(h + ref.f("f1", h, scale=0.5)))


def test_a_removed_block_is_gone_when_its_neighbours_are_connected() -> None:
    g = graph("(a f)*2")
    g.nx.remove_node("f1")
    g.nx.add_edge("a0", "a2")
    stack, x = lowered(g), inputs()
    assert [*stack.blocks] == ["a0", "a2", "f3"]
    assert numbers(stack) == g.parameters() == 2 * ATTENTION + FEEDFORWARD + FINAL
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    h = h + ref.a("a2", h)
    same(stack(x), ref.out(h + ref.f("f3", h)))


def test_a_block_removed_without_a_new_edge_is_refused_at_both_ends_of_the_gap() -> None:
    g = graph("(a f)*2")
    g.nx.remove_node("f1")
    with pytest.raises(GraphError) as error:
        xt_blocks.lower(g)
    assert str(error.value) == (
        "the graph cannot be lowered: 2 faults\n"
        "  a0: nothing reads its output\n"
        "    g.nx.add_edge('a0', 'a2')\n"
        "  a2: reads no stream\n"
        "    g.nx.add_edge('a0', 'a2')"
    )


def test_removing_the_last_block_that_reads_a_context_asks_to_remove_the_context() -> None:
    # else the stack would demand a context that nothing reads
    g = graph("a c f")
    g.nx.remove_node("c1")
    g.nx.add_edge("a0", "f2")
    with pytest.raises(GraphError, match=r"context: nothing reads it\n    g.nx.remove_node\('context'\)"):
        xt_blocks.lower(g)
    g.nx.remove_node("context")
    stack, x = lowered(g), inputs()
    assert not stack.reads_context
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    same(stack(x), ref.out(h + ref.f("f2", h)))


def test_a_block_added_by_hand_runs_where_its_edges_say() -> None:
    g = graph("a f")
    new = deepcopy(g.nx.nodes["f1"])
    new["options"]["swish"] = True
    g.nx.add_node("extra", **new)
    g.nx.remove_edge("a0", "f1")
    g.nx.add_edge("a0", "extra")
    g.nx.add_edge("extra", "f1")
    stack, x = lowered(g), inputs()
    assert {*stack.blocks} == {"a0", "f1", "extra"}
    assert numbers(stack) == g.parameters() == ATTENTION + 2 * FEEDFORWARD + FINAL
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    h = h + ref.f("extra", h, activation="silu")
    same(stack(x), ref.out(h + ref.f("f1", h)))


def test_changed_options_change_the_module_of_that_block_alone() -> None:
    g = graph("(a f)*2", causal=True)
    g.nx.nodes["f1"]["options"] |= {"glu": True, "relu_squared": True}
    g.nx.nodes["a2"]["options"]["causal"] = False
    stack, x = lowered(g), inputs()
    assert stack.blocks["f1"].layer.to_hidden.out_features == 2 * stack.blocks["f3"].layer.to_hidden.out_features
    gate = 4 * DIM * (DIM + 1)
    assert numbers(stack) == g.parameters() == 2 * (ATTENTION + FEEDFORWARD) + gate + FINAL
    ref = Reference(stack, HEAD, causal=True)
    h = x + ref.a("a0", x)
    h = h + ref.f("f1", h, glu=True, activation="relu_squared")
    h = h + ref.a("a2", h, causal=False)
    same(stack(x), ref.out(h + ref.f("f3", h)))


def test_a_changed_head_size_changes_that_block_and_its_cost() -> None:
    g = graph("a f a")
    before = g.parameters()
    g.nx.nodes["a2"]["options"]["dim_head"] = 7
    stack, x = lowered(g), inputs()
    assert stack.blocks["a2"].layer.to_qkv.weight.shape[0] == 3 * HEADS * 7
    assert numbers(stack) == g.parameters() == before + 4 * DIM * HEADS * (7 - HEAD)
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    h = h + ref.f("f1", h)
    same(stack(x), ref.out(h + ref.a("a2", h, dim_head=7)))


def test_a_new_tie_makes_two_blocks_one_set_of_parameters() -> None:
    g = graph("a f a f")
    for node in ("f1", "f3"):
        g.nx.nodes[node]["tie"] = "shared"
    stack, x = lowered(g), inputs()
    assert [*stack.blocks] == ["a0", "f1", "a2"]
    assert numbers(stack) == g.parameters() == 2 * ATTENTION + FEEDFORWARD + FINAL
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    h = h + ref.f("f1", h)
    h = h + ref.a("a2", h)
    same(stack(x), ref.out(h + ref.f("f1", h)))


def test_untying_the_owner_gives_each_block_its_own_parameters() -> None:
    g = graph("(a@x f@y)*2")
    assert g.tied() == {"a0": ["a0", "a2"], "f1": ["f1", "f3"]}
    g.nx.nodes["a0"]["tie"] = None
    stack, x = lowered(g), inputs()
    assert [*stack.blocks] == ["a0", "f1", "a2"]
    assert numbers(stack) == g.parameters() == 2 * ATTENTION + FEEDFORWARD + FINAL
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    h = h + ref.f("f1", h)
    h = h + ref.a("a2", h)
    same(stack(x), ref.out(h + ref.f("f1", h)))


def test_a_tied_block_with_another_option_is_refused() -> None:
    g = graph("(a@x f@y)*2")
    g.nx.nodes["f3"]["options"]["glu"] = True
    with pytest.raises(GraphError, match="f3: is tied to f1, which differs in glu"):
        xt_blocks.lower(g)


def test_a_skip_edge_adds_the_earlier_stream_to_what_the_block_reads() -> None:
    g = graph("a f a")
    g.nx.add_edge("input", "a2")  # no `carries`: the stream
    stack, x = lowered(g), inputs()
    assert numbers(stack) == g.parameters() == 2 * ATTENTION + FEEDFORWARD + FINAL
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    h = h + ref.f("f1", h)
    h = h + x
    same(stack(x), ref.out(h + ref.a("a2", h)))


def test_an_output_that_reads_two_streams_norms_their_sum() -> None:
    g = graph("a f a")
    g.nx.add_edge("a0", "output")
    stack, x = lowered(g), inputs()
    ref = Reference(stack, HEAD)
    first = x + ref.a("a0", x)
    h = first + ref.f("f1", first)
    h = h + ref.a("a2", h)
    same(stack(x), ref.out(first + h))


def test_a_sum_without_a_base_is_the_plain_sum_of_its_streams() -> None:
    g = graph("a f")
    g.nx.add_node("both", type="sum", stage=0)
    g.nx.remove_edge("a0", "f1")
    g.nx.add_edges_from([("input", "both"), ("a0", "both"), ("both", "f1")])
    stack, x = lowered(g), inputs()
    ref = Reference(stack, HEAD)
    h = x + (x + ref.a("a0", x))
    same(stack(x), ref.out(h + ref.f("f1", h)))


def test_a_branch_rerouted_after_the_other_one_runs_after_it() -> None:
    g = graph("a & f")
    g.nx.remove_edge("input", "f1")
    g.nx.remove_edge("a0", "sum0")
    g.nx.add_edge("a0", "f1")
    stack, x = lowered(g), inputs()
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    same(stack(x), ref.out(h + ref.f("f1", h)))


def test_a_branch_that_also_feeds_another_counts_what_each_adds_to_the_base() -> None:
    g = graph("a & f")
    g.nx.remove_edge("input", "f1")
    g.nx.add_edge("a0", "f1")
    stack, x = lowered(g), inputs()
    ref = Reference(stack, HEAD)
    a = ref.a("a0", x)
    f = ref.f("f1", x + a)
    same(stack(x), ref.out(x + a + (a + f)))


def test_a_removed_branch_leaves_the_others() -> None:
    g = graph("(a & f & f f) f")
    g.nx.remove_node("f1")
    stack, x = lowered(g), inputs()
    assert [*stack.blocks] == ["a0", "f2", "f3", "f4"]
    ref = Reference(stack, HEAD)
    both = x + ref.a("a0", x) + ref.f("f2", x)
    h = both + ref.f("f3", both)
    same(stack(x), ref.out(h + ref.f("f4", h)))


def test_changed_shift_and_scale_are_what_the_block_then_does() -> None:
    for causal in (True, False):
        g = graph("a f", causal=causal)
        g.nx.nodes["a0"]["shift"] = 2
        g.nx.nodes["f1"]["scale"] = 0.25
        stack, x = lowered(g), inputs()
        ref = Reference(stack, HEAD, causal=causal)
        h = x + ref.a("a0", x, shift=2)
        same(stack(x), ref.out(h + ref.f("f1", h, scale=0.25)))


def test_a_removed_scores_edge_ends_residual_attention_there() -> None:
    g = graph("a a a", residual_attn=True, causal=True)
    stack, x = lowered(g), inputs()
    ref = Reference(stack, HEAD, causal=True)
    h = x + ref.a("a0", x)
    h = h + ref.a("a1", h, scores_of="a0")
    same(stack(x), ref.out(h + ref.a("a2", h, scores_of="a1")))

    # a0 → a1 is the stream and the scores: the edge stays and carries less
    g.nx.edges["a0", "a1"]["carries"] = ("stream",)
    g.nx.edges["a1", "a2"]["carries"] = ("stream",)
    g.nx.add_edge("a0", "a2", carries=("scores",))
    stack = lowered(g)
    ref = Reference(stack, HEAD, causal=True)
    h = x + ref.a("a0", x)
    h = h + ref.a("a1", h)
    same(stack(x), ref.out(h + ref.a("a2", h, scores_of="a0")))


def test_a_position_taken_from_one_block_leaves_that_block_unrotated() -> None:
    g = graph("a a", rotary_pos_emb=True)
    g.nx.remove_edge("rotary2", "a1")
    g.nx.add_node("wide", type="position", scheme="rotary", dim=4)
    g.nx.remove_edge("rotary2", "a0")
    g.nx.remove_node("rotary2")
    g.nx.add_edge("wide", "a0", carries=("position",))
    stack, x = lowered(g), inputs()
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x, rotary=4)
    # angles are computed in float32
    same(stack(x), ref.out(h + ref.a("a1", h)), tolerance=1e-5)


def test_a_rerouted_context_edge_is_refused_and_a_second_reader_is_not() -> None:
    g = graph("a c f")
    new = deepcopy(g.nx.nodes["c1"])
    g.nx.add_node("c9", **new)
    g.nx.remove_edge("f2", "output")
    g.nx.add_edge("f2", "c9")
    g.nx.add_edge("c9", "output")
    with pytest.raises(GraphError, match="c9: cross-attention has no context"):
        xt_blocks.lower(g)
    g.nx.add_edge("context", "c9", carries="context")  # a plain name is taken for the tuple of it
    stack, x, context = lowered(g), inputs(), inputs(seq=3)
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    h = h + ref.c("c1", h, context)
    h = h + ref.f("f2", h)
    same(stack(x, context=context), ref.out(h + ref.c("c9", h, context)))


def test_the_final_norm_can_be_changed() -> None:
    g = graph("a f")
    g.nx.nodes["output"]["norm"] = None
    stack, x = lowered(g), inputs()
    assert numbers(stack) == g.parameters() == ATTENTION + FEEDFORWARD
    ref = Reference(stack, HEAD)
    h = x + ref.a("a0", x)
    same(stack(x), h + ref.f("f1", h))
    g.nx.nodes["output"]["norm"] = "rmsnorm"
    assert isinstance(xt_blocks.lower(g).norm, torch.nn.RMSNorm)
    assert g.parameters() == ATTENTION + FEEDFORWARD + DIM


def test_a_graph_without_blocks_is_its_final_norm() -> None:
    g = graph("f")
    g.nx.remove_node("f0")
    g.nx.add_edge("input", "output")
    stack, x = lowered(g), inputs()
    assert numbers(stack) == g.parameters() == FINAL
    same(stack(x), Reference(stack, HEAD).out(x))


def test_the_ends_may_have_other_names() -> None:
    import networkx as nx

    g = graph("a f", num_tokens=9, max_seq_len=6)
    renamed = BlockGraph(nx.relabel_nodes(g.nx, {"input": "start", "output": "end", "absolute": "places"}))
    model, want = xt_blocks.lower(renamed), xt_blocks.lower(g)
    assert renamed.parameters() == g.parameters() == numbers(want) == numbers(model)
    assert {*model.state_dict()} == {*want.state_dict()}
    assert renamed.to_text() == g.to_text()


def test_an_edit_after_lowering_does_not_reach_the_module() -> None:
    g = graph("a f")
    stack = lowered(g)
    x = inputs()
    want = stack(x)
    g.nx.nodes["f1"]["scale"] = 0.1
    g.nx.remove_node("a0")
    same(stack(x), want, tolerance=0)
    assert stack.graph.nodes("block") == ["a0", "f1"]


def by_the_graph(g: BlockGraph, stack: xt_blocks.Stack, x: Tensor) -> Tensor:
    """The graph's own text read literally: a node reads the sum of its streams, a sum adds what branches gained."""
    ref = Reference(stack, HEAD, causal=g.causal)
    owner = {node: first for first, nodes in g.tied().items() for node in nodes}
    outputs = {"input": x}
    for node in g.order():
        attrs = g.nx.nodes[node]
        streams, bases = g.sources(node, "stream"), g.sources(node, "base")
        if attrs["type"] == "block":
            read = sum((outputs[source] for source in streams[1:]), outputs[streams[0]])
            branch = ref.a if attrs["kind"] == "a" else ref.f
            outputs[node] = read + branch(owner[node], read, shift=attrs["shift"], scale=attrs["scale"])
        elif attrs["type"] == "sum":
            base = outputs[bases[0]] if bases else torch.zeros_like(x)
            outputs[node] = base + sum((outputs[source] - base for source in streams), torch.zeros_like(x))
        elif attrs["type"] == "output":
            return ref.out(sum((outputs[source] for source in streams[1:]), outputs[streams[0]]))
    raise AssertionError("no output")


@settings(max_examples=100)
@given(
    st.sampled_from(["a f a f", "(a & f) f & a", "f (f f a) & (a (f & f) f) a", "(a@x & f f)*2", "f & (f & a f) f"]),
    st.booleans(),
    st.data(),
)
def test_a_randomly_rewired_graph_computes_what_its_edges_say(pattern: str, causal: bool, data: st.DataObject) -> None:
    g = graph(pattern, causal=causal)
    for _ in range(data.draw(st.integers(0, 3))):
        nodes = [node for node in g.order() if g.nx.nodes[node]["type"] in ("input", "block", "sum")] + ["output"]
        late = data.draw(st.integers(1, len(nodes) - 1))
        early = data.draw(st.integers(0, late - 1))
        how = data.draw(st.sampled_from(["skip", "skip", "cut", "shift", "scale"]))
        if how == "skip" and not g.nx.has_edge(nodes[early], nodes[late]):
            g.nx.add_edge(nodes[early], nodes[late])
        elif how == "cut":
            g.nx.remove_edges_from([data.draw(st.sampled_from([*g.nx.edges]))])
        elif nodes[late] != "output" and g.nx.nodes[nodes[late]]["type"] == "block":
            g.nx.nodes[nodes[late]].update({"shift": early % 3} if how == "shift" else {"scale": 0.5})
    try:
        g.lint()
    except GraphError:
        assume(False)
    torch.manual_seed(0)
    stack, x = lowered(g), inputs(1, 4)
    same(stack(x), by_the_graph(g, stack, x), tolerance=1e-9)
