"""The macros, against their rules written out again by hand, and how their arguments may be given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockdsl import PatternError, parse
from blockdsl.language.expand import BlockSpec
from blockdsl.language.macros import MACROS

from .test_ordering import par_rule

DEPTH = st.integers(1, 40)


def blocks(text: str) -> list[tuple[str, float]]:
    steps = parse(text).expansion.specs
    assert all(isinstance(step, BlockSpec) for step in steps)
    return [(step.kind, step.scale) for step in steps if isinstance(step, BlockSpec)]


@given(DEPTH)
def test_macaron_is_attention_between_two_half_step_feedforwards_n_times(n: int) -> None:
    assert blocks(f"macaron({n})") == [("f", 0.5), ("a", 1), ("f", 0.5)] * n
    assert blocks(f"macaron({n}, cross)") == [("f", 0.5), ("a", 1), ("c", 1), ("f", 0.5)] * n


@given(DEPTH, DEPTH)
def test_sandwich_is_attentions_first_and_feedforwards_last(k: int, more: int) -> None:
    n = k + more
    assert blocks(f"sandwich({k}, {n})") == [("a", 1)] * k + [("a", 1), ("f", 1)] * (n - k) + [("f", 1)] * k
    assert blocks(f"sandwich({k})") == blocks(f"sandwich({k}, {k})") == [("a", 1)] * k + [("f", 1)] * k


@given(DEPTH, st.integers(2, 90))
def test_par_is_the_papers_rule_or_says_that_the_ratio_does_not_fit(n: int, ratio: int) -> None:
    expected = par_rule(n, ratio, ["a", "f"])
    if expected is None:
        with pytest.raises(PatternError, match="the ratio"):
            parse(f"par({n}, {ratio})")
    else:
        assert list(parse(f"par({n}, {ratio})").layer_types) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sandwich(2, 5)", "sandwich(k=2, n=5)"),
        ("sandwich(2, 5)", "sandwich(n=5, k=2)"),
        ("sandwich(2, 5)", "sandwich(2, n=5)"),
        ("par(6, 4)", "par(n=6, ratio=4)"),
        ("par(6, 4)", "par(ratio=4, 6)"),
        ("macaron(2, cross)", "macaron(cross, 2)"),
        ("macaron(2, cross)", "macaron(n=2, cross=true)"),
        ("macaron(2)", "macaron(2, cross=false)"),
        ("sandwich(3)", "sandwich(3, none)"),
    ],
)
def test_arguments_are_given_by_place_or_by_name(one: str, other: str) -> None:
    assert blocks(one) == blocks(other)


def test_a_macro_is_an_item_like_any_other() -> None:
    assert parse("sandwich(1)*2 & f | x: macaron(1)>>1").layer_types == tuple("afaff" + "faf")
    assert [u.shift for u in parse("macaron(1)>>1").expansion.blocks()] == [1, 1, 1]


@pytest.mark.parametrize("macro", MACROS.values(), ids=lambda macro: macro.name)
def test_a_macro_says_its_size_without_being_expanded(macro: object) -> None:
    for text in (
        "macaron(3)",
        "macaron(3, cross)",
        "sandwich(3)",
        "sandwich(2, 9)",
        "par(6, 4)",
        "par(1, 2)",
        "par(7, 12)",
    ):
        size = len(parse(text).layer_types)
        assert parse(text, max_blocks=size).layer_types
        with pytest.raises(PatternError, match=f"this makes {size} blocks; the limit is {size - 1}\n"):
            parse(text, max_blocks=size - 1)


def test_every_macro_has_a_line_of_documentation_and_so_has_each_parameter() -> None:
    assert sorted(MACROS) == ["macaron", "par", "sandwich"]
    for macro in MACROS.values():
        assert parse(macro.example).layer_types
        assert macro.doc
        assert all(param.doc for param in macro.params)
        assert macro.usage == f"{macro.name}({', '.join(param.name for param in macro.params)})"
