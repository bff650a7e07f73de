"""Ramps and lists over the copies of a repeat, against values written out by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blockdsl
from blockdsl import parse


def values(text: str, name: str) -> list[Any]:
    return [block.given[name] for block in parse(text).expansion.blocks() if name in block.given]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("f(mult=6..2)*5", "mult", [6, 5, 4, 3, 2]),
        ("(a f(inner=10..17))*3", "inner", [10, 14, 17]),  # 13.5 is rounded
        ("f(mult=-0..1e0)*3", "mult", [0, 0.5, 1]),
        ("f(mult=4..2)>>1/2*3", "mult", [4, 3, 2]),
        ("(a(max_attend_past=(128, none)) f)*4", "max_attend_past", [128, None, 128, None]),
        ("a(max_attend_past=(8, 8, none))*7", "max_attend_past", [8, 8, None, 8, 8, None, 8]),
        ("x = f(mult=(2, 4)); (a x)*3", "mult", [2, 4, 2]),
        ("(a(heads=(1, 2)) f(mult=1..4)*4)*2", "mult", [1, 2, 3, 4, 1, 2, 3, 4]),
        ("(a(heads=(1, 2)) f(mult=1..4)*4)*2", "heads", [1, 2]),
        ("(a(heads=(1, 2)) f & f)*2", "heads", [1, 2]),
        ("(a(rotary_long_factors=(1, 2)) f)*2", "rotary_long_factors", [(1, 2), (1, 2)]),  # a list is its value
    ],
)
def test_each_copy_has_its_value(text: str, name: str, expected: list[Any]) -> None:
    assert values(text, name) == expected
    assert parse(str(parse(text))) == parse(text)


@given(st.integers(0, 64), st.integers(0, 64), st.integers(2, 9))
def test_a_ramp_has_both_ends_and_even_steps(start: int, end: int, copies: int) -> None:
    found = values(f"f(mult={start}..{end})*{copies}", "mult")
    assert (found[0], found[-1]) == (start, end)
    assert all(abs((b - a) - (end - start) / (copies - 1)) < 1e-9 for a, b in pairwise(found))


def test_it_is_the_graph_of_the_blocks_written_out() -> None:
    ramp = blockdsl.compile("(a(heads=(1, 2)) f(mult=3..1))*4", dim=8, attn_dim_head=4)
    flat = blockdsl.compile(
        " ".join(f"a(heads={1 + i % 2}) f(mult={3 - i * 2 / 3!r})" for i in range(4)), dim=8, attn_dim_head=4
    )
    assert ramp == flat
    assert ramp.parameters() == flat.parameters()
