"""Tied units that are repeated more or fewer times: the graph is that of the text with the other number."""

from __future__ import annotations

from typing import Any

import pytest

import blockdsl
from blockdsl import UserError

UNITS: dict[str, tuple[str, dict[str, Any]]] = {
    "alone": ("(a f)@core*N", {}),
    "in between": ("a f | (a>>1 f/2)@core*N | f", {"rotary_pos_emb": True}),
    "branches": ("f ((a & f a)/2 f)@core*N a", {"num_tokens": 11, "max_seq_len": 9}),
    "a sum at its end": ("f (a & f f)@core*N f", {}),
    "in a branch": ("f & (f (a f)@core*N) f", {}),
    "more before it": ("(f@in (a f)@core)*N a", {}),
    "more after it": ("((a f)@core f@out)*N a", {}),
    "reads": ("a ^e (<e(cat) a f)@core*N f", {}),
    "more reads before it": ("a ^e (<e(gain)@mix (a f)@core)*N f", {}),
    "values": ("a ^v f (a(values=v, value_mix=learned) f)@core*N", {}),
    "scores": ("a (a f)@core*N a", {"residual_attn": True}),
    "context": ("(a c f)@core*N", {"cross_residual_attn": True, "num_residual_streams": 2}),
}


def compiled(text: str, number: int, **settings: Any) -> blockdsl.BlockGraph:
    return blockdsl.compile(text.replace("N", str(number)), dim=16, heads=2, **settings)


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("written", [1, 2, 4])
def test_it_is_the_graph_of_the_text_with_the_other_number(name: str, written: int) -> None:
    text, settings = UNITS[name]
    if name.startswith("more"):
        written = max(written, 2)  # else nothing says what is repeated beside the unit
    graph = compiled(text, written, **settings)
    for number in (1, 2, 3, 6):
        found, expected = graph.with_loops(core=number), compiled(text, number, **settings)
        assert found == expected
        assert found.lint().parameters() == graph.parameters()
        assert (found.flops(9), found.kv_cache_bytes(9)) == (expected.flops(9), expected.kv_cache_bytes(9))
        assert found.pattern == expected.pattern
        if number > 1 or not name.startswith("more"):
            assert found.with_loops(core=written) == graph
    assert graph == compiled(text, written, **settings)


def test_a_unit_that_is_defined_is_written_out() -> None:
    graph = blockdsl.compile("u = (a f)@core; a u*3 f", dim=16, heads=2).with_loops(core=5)
    assert graph.pattern == "set dim=16, heads=2; a (a f)@core*5 f"
    assert graph == compiled("a (a f)@core*N f", 5)


def test_either_stream_of_two_and_several_units_at_once() -> None:
    graph = blockdsl.compile("(a f)@in*2 => (a c f)@out*2 f", dim=16, heads=2)
    deeper = graph.with_loops(**{"in": 3, "out": 1})
    assert deeper == blockdsl.compile("(a f)@in*3 => (a c f)@out f", dim=16, heads=2)
    two = blockdsl.compile("a@x*2 f@y*3", dim=16, heads=2).with_loops(x=3, y=2)
    assert two == blockdsl.compile("a@x*3 f@y*2", dim=16, heads=2)


@pytest.mark.parametrize(
    ("text", "counts", "words"),
    [
        ("(a f)@core*2", {"cores": 3}, "no blocks are tied as 'cores'.*did you mean 'core'"),
        ("a f", {"core": 3}, "no blocks are tied as 'core'"),
        ("(a@core f)*3", {"core": 2}, "f1 stands within the repeats of 'core' and is not tied"),
        ("a@core f a@core", {"core": 2}, "f1 stands within"),
        ("a@core a@core>>1 a@core", {"core": 4}, "the repeats of 'core' differ: a1; a2"),
        ("^e (<e(cat) a@core)*2", {"core": 3}, "read1 stands within the repeats of 'core'"),
        ("(a@core ^h)*3 <h(all, soft)", {"core": 4}, "read0 reads repeat 1 of 'core', and what comes after"),
        ("(a f)@core*2", {"core": 0}, "core must be a whole number of at least 1, not 0"),
    ],
)
def test_what_is_no_loop_is_refused(text: str, counts: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=f"(?s){words}"):
        blockdsl.compile(text, dim=16, heads=2).with_loops(**counts)


def test_what_reads_an_inner_repeat_is_refused() -> None:
    graph = compiled("f (a f)@core*N f", 3)
    graph.nx.add_edge("f2", "f7")
    with pytest.raises(
        UserError, match="f7 reads repeat 1 of 'core', and what comes after a loop reads its last alone: compile"
    ):
        graph.with_loops(core=2)
    graph = compiled("f (a f)@core*N f", 3)
    graph.nx.add_edge("f2", "f6")
    with pytest.raises(
        UserError, match="f6 reads repeat 1 of 'core', and a repeat more would read the one before it alone: compile"
    ):
        graph.with_loops(core=4)
