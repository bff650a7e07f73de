"""Stages by `|` and by FLOPs, against every way to cut; what crosses, against what a running stack still holds."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, GraphError, UserError, zoo
from blockdsl.plan.stages import Crossing, PipelineStage, balanced, crossings, shared, stages
from xt_blocks.runtime.stack import Stack

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 8}


def compiled(text: str, **settings: object) -> BlockGraph:
    return blockdsl.compile(text, **(SIZES | settings))


def nodes_of(parts: tuple[PipelineStage, ...]) -> list[str]:
    return [" ".join(part.nodes) for part in parts]


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a f | f*3 | a", 3, ["a0 f1", "f2 f3 f4", "a5"]),  # as written
        ("a f | f*3 | a", 2, ["a0 f1", "f2 f3 f4 a5"]),  # at one of its own cuts
        ("a f | f*3 | a", 1, ["a0 f1 f2 f3 f4 a5"]),
        ("f f f f | f", 2, ["f0 f1 f2 f3", "f4"]),  # uneven, as it says
        ("f*4 | f f", 3, ["f0 f1", "f2 f3", "f4 f5"]),  # more stages than it writes: by FLOPs
        ("f*6", 3, ["f0 f1", "f2 f3", "f4 f5"]),
        ("f (a & f)*2 f", 4, ["f0", "a1 f2 sum0", "a3 f4 sum1", "f5"]),  # branches stay together
        (
            "^u f f <u(cat) f <u",
            3,
            ["f0", "f1", "read0 f2 read1"],
        ),  # a read goes with the block after it, if there is one
    ],
)
def test_stages(text: str, n: int, expected: list[str]) -> None:
    assert nodes_of(stages(compiled(text), n)) == expected


def test_the_head_is_counted() -> None:
    """A head of as many FLOPs as two blocks has as many blocks fewer beside it."""
    graph = compiled("f*6", num_tokens=2 * 2 * 4 * 16, max_seq_len=8, ff_no_bias=True, logits_bias=False)
    feedforward, head = 2 * 2 * 16 * 64 * 8, 2 * 16 * 256 * 8
    assert head == 2 * feedforward
    parts = stages(graph, 2)
    assert nodes_of(parts) == ["f0 f1 f2 f3", "f4 f5"]
    assert [part.flops for part in parts] == [4 * feedforward, 2 * feedforward + head]
    assert sum(part.flops for part in parts) == graph.flops(8)


def test_what_is_beside_a_stage() -> None:
    graph = compiled("a f | f | a", num_tokens=20, max_seq_len=8, attn_flash=False, rel_pos_bias=True)
    first, second, last = stages(graph, 3)
    bias = graph.nodes("position")[-1]
    assert (first.beside, second.beside, last.beside) == ((*graph.nodes("position"),), (), (bias,))
    assert (first.titles, last.titles) == (("1",), ("3",))
    assert stages(compiled("stem: a f | f | a"), 2)[1].titles == ("2", "3")


def test_seventy_billion_parameters() -> None:
    graph = zoo.entry("llama3-70b").graph()
    for n in (2, 4, 8, 16):
        parts = stages(graph, n, 8192)
        assert [node for part in parts for node in part.nodes] == graph.nodes("block")
        assert max(part.flops for part in parts) * n < 1.13 * sum(part.flops for part in parts)
        assert [[c.key for c in cut] for cut in crossings(graph, parts)] == [[part.nodes[-1]] for part in parts[:-1]]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=9), st.data())
def test_balanced_is_the_best_of_all_ways_to_cut(loads: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(loads)))

    def judged(ends: list[int]) -> tuple[int, int]:
        sums = [sum(loads[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        return max(sums), sum(each**2 for each in sums)

    ways = [[*cuts, len(loads)] for cuts in combinations(range(1, len(loads)), n - 1)]
    ends = balanced(loads, n)
    assert ends in ways
    assert judged(ends) == min(map(judged, ways))


CROSSING = {
    "stream": ("a f | a f", {}, [["f1"]]),
    "a skip": ("^u a f | f | <u a", {}, [["f1", "input"], ["f2", "input"]]),
    "scores": ("a f | f | a f", {"residual_attn": True}, [["a0.scores", "f1"], ["a0.scores", "f2"]]),
    "keys and values": ("a ^u f | a(kv=u) f", {}, [["a0.kv", "f1"]]),
    "values": ("a ^u f | f | a(values=u) f", {}, [["a0.values", "f1"], ["a0.values", "f2"]]),
    "a context of the stack": ("a ^u f | c(context=u) f", {}, [["a0", "f1"]]),
    "a shared norm": ("a ^u f | f(shared_norm) a", {}, None),
    "an injected input": (
        "a f | f | a",
        {"reinject_input": True},
        [["f1", "input.injected"], ["f2", "input.injected"]],
    ),
    "branches": ("(a & f) | (a & (f f) & f)", {}, [["sum0"]]),
    "residual streams": ("a f | a f", {"num_residual_streams": 2}, [["f1"]]),
    "several reads": ("^u a ^u f | ^v f <u(all, cat) | <v(gain) a", {}, [["f1", "input", "a0"], None]),
    "dense": ("(a ^u f <u(all, gain))*2 | a <u(all, gain)", {}, [["a0", "a2", "read1"]]),
    "condition": ("a f | a f", {"use_adaptive_rmsnorm": True, "dim_condition": 16}, [["f1"]]),
    "positions": ("a f | a f", {"attn_flash": False, "rel_pos_bias": True, "rotary_pos_emb": True}, [["f1"]]),
    "ties": ("(a f)@t | a (a f)@t", {}, [["f1"]]),
}


@pytest.mark.parametrize("name", CROSSING)
def test_what_crosses_is_what_a_running_stack_still_holds(name: str) -> None:
    """The stack forgets a value as soon as nothing later reads it: at a cut it holds what crosses."""
    text, settings, expected = CROSSING[name]
    if expected is None:
        with pytest.raises(blockdsl.PatternError):
            compiled(text, **settings)
        return
    graph = compiled(text, causal=True, **settings)
    finest = 2 if name == "branches" else min(4, len(graph.nodes("block")))
    for parts in (stages(graph, len(graph.stages)), stages(graph, finest, 8)):
        crossing = crossings(graph, parts)
        assert all(graph.nx.has_node(reader) for cut in crossing for value in cut for reader in value.readers)
        assert [sorted(value.key for value in cut) for cut in crossing] == held(graph, parts)
    for cut, keys in zip(crossings(graph, stages(graph, len(graph.stages))), expected, strict=True):
        assert keys is None or sorted(value.key for value in cut) == sorted(keys)


def held(graph: BlockGraph, parts: tuple[PipelineStage, ...]) -> list[list[str]]:
    """The keys that a pass holds after each stage but the last."""
    stack, found = Stack(graph), {}
    run = stack._run_steps

    def one_by_one(steps, ctx) -> None:  # type: ignore[no-untyped-def]
        for step in steps:
            run((step,), ctx)
            found[step.node] = sorted(ctx.values)

    stack._run_steps = one_by_one  # type: ignore[method-assign]
    condition = torch.randn(1, 16) if graph.nodes("condition") else None
    stack(torch.randn(1, 5, 16), condition=condition)
    assert [step.node for step in stack.plan] == [node for part in parts for node in part.nodes]
    return [found[part.nodes[-1]] for part in parts[:-1]]


def test_readers_of_what_crosses() -> None:
    graph = compiled("^u a f | f | <u a", residual_attn=True)
    assert crossings(graph, stages(graph, 3)) == (
        (
            Crossing("input", "stream", ("read0",)),
            Crossing("a0", "scores", ("a3",)),
            Crossing("f1", "stream", ("f2",)),
        ),
        (
            Crossing("input", "stream", ("read0",)),
            Crossing("a0", "scores", ("a3",)),
            Crossing("f2", "stream", ("read0",)),
        ),
    )


def test_what_stages_share() -> None:
    graph = compiled(
        "(a f)@t | a f | (a f)@t f@u | f@u",
        num_tokens=20,
        max_seq_len=8,
        tie_embedding=True,
        attn_flash=False,
        rel_pos_bias=True,
        rotary_pos_emb=True,
    )
    bias = next(node for node in graph.nodes("position") if graph.nx.nodes[node]["scheme"] == "t5")
    expected = {"a0": (0, 2), "f1": (0, 2), "f6": (2, 3), bias: (0, 1, 2), "input": (0, 3)}
    assert shared(graph, stages(graph, 4)) == expected
    assert shared(graph, stages(graph, 1)) == {}
    assert shared(compiled("a f | a f", num_tokens=20, max_seq_len=8), stages(graph, 2)) == {}


def test_a_condition_of_several_stages() -> None:
    options = {"use_adaptive_layernorm": True, "dim_condition": 8}
    for mlp, expected in ((False, {}), (True, {"condition": (0, 1)})):
        graph = compiled("a f | a f", adaptive_condition_mlp=mlp, **options)
        assert shared(graph, stages(graph, 2)) == expected


@pytest.mark.parametrize(
    ("text", "n", "message"),
    [
        ("a f", 3, "pp=3: a pipeline needs a block for each of its 3 stages; the stack has 2 blocks"),
        ("a", 2, "pp=2: a pipeline needs a block for each of its 2 stages; the stack has 1 block"),
        (
            "(a & f)*2",
            3,
            "pp=3: a pipeline needs a block for each of its 3 stages; the stack has 4 blocks, which can be cut into 2 "
            "parts, as parallel branches stay together",
        ),
        ("a f => a c f", 2, "pp=2: an encoder with its decoder is not cut into pipeline stages"),
    ],
)
def test_too_many_stages(text: str, n: int, message: str) -> None:
    with pytest.raises(UserError) as raised:
        stages(compiled(text), n)
    assert str(raised.value) == message


def test_an_edited_graph_whose_stages_go_back() -> None:
    graph = compiled("a f | a f")
    graph.nx.nodes["a0"]["stage"] = 1
    with pytest.raises(GraphError, match=r"^f1 of stage 1 reads a0 of stage 2, which comes after it$"):
        stages(graph, 2)
    graph = compiled("f | f (a & f)")
    graph.nx.nodes["a2"]["stage"] = graph.nx.nodes["f1"]["stage"] = 0
    with pytest.raises(GraphError, match=r"^sum0 of stage 2 joins a2 of an earlier stage; branches are not cut$"):
        stages(graph, 2)
