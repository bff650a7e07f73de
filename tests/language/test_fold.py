"""Folding repeats: never longer than the shortest text there is, which is found here by trying everything."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blockdsl import Pattern, parse
from blockdsl.language.fold import Folded, Loop, _repeats, fold, shortest

from ..work import LINEAR, growth


@cache
def fewest(layers: tuple[str, ...]) -> int:
    """Characters of the shortest text with repeats, by trying every cut and every repeat of every part."""
    best = len(layers[0]) if len(layers) == 1 else 10**9
    for cut in range(1, len(layers)):
        best = min(best, fewest(layers[:cut]) + 1 + fewest(layers[cut:]))
    for count in range(2, len(layers) + 1):
        size, rest = divmod(len(layers), count)
        unit = layers[:size]
        if not rest and unit * count == layers:
            parentheses = 0 if size == 1 else 2
            best = min(best, fewest(unit) + parentheses + len(f"*{count}"))
    return best


@pytest.mark.parametrize("length", range(1, 11))
def test_every_order_of_two_kinds_gets_the_shortest_text(length: int) -> None:
    for layers in itertools.product("af", repeat=length):
        text = shortest(layers)
        assert len(text) == fewest(layers), text
        if length < 8:
            assert parse(text).layer_types == layers


@settings(max_examples=150)
@given(st.lists(st.sampled_from(["a", "f", "f/2", "a(heads=2)", "f(glu)@x"]), min_size=1, max_size=14))
def test_blocks_with_longer_texts_get_the_shortest_text(layers: list[str]) -> None:
    pattern = Pattern.from_layers(layers)
    assert len(str(pattern)) == fewest(tuple(layers))
    assert pattern.layer_types == tuple(layer[0] for layer in layers)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(["a", "f", "af", "fa", "aaf"]), st.integers(1, 13)), min_size=1, max_size=3))
@example([("aaf", 2), ("f", 9)])  # (a a f)*2 f*9; with f*10 it would be longer
def test_orders_with_counts_of_two_digits_get_the_shortest_text(runs: list[tuple[str, int]]) -> None:
    layers = tuple("".join(unit * count for unit, count in runs)[:36])
    assert len(shortest(layers)) == fewest(layers)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(["a", "f", "af", "aaf", "fafc"]), st.integers(1, 9)), min_size=1, max_size=6))
def test_a_long_order_made_of_repeats_is_given_back_and_is_no_longer_than_the_repeats(
    runs: list[tuple[str, int]],
) -> None:
    layers = [kind for unit, count in runs for kind in unit * count]
    text = str(Pattern.from_layers(layers))
    as_made = " ".join(f"({' '.join(unit)})*{count}" for unit, count in runs)
    assert parse(text).layer_types == parse(as_made).layer_types == tuple(layers)
    assert len(text) <= len(as_made)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ("a", "a"),
        ("af", "a f"),
        ("aaa", "a*3"),
        ("afaf", "(a f)*2"),
        ("af" * 6, "(a f)*6"),
        ("aafaaf", "(a*2 f)*2"),
        ("aaaaaaaffffff", "a*7 f*6"),
        ("aaafafafafff", "a*2 (a f)*4 f*2"),
        ("faf" + "a" * 6 + "f" * 6, "f a f a*6 f*6"),
        ("fafcfafc", "(f a f c)*2"),
        (("aaf" * 3 + "c") * 4, "((a a f)*3 c)*4"),
    ],
)
def test_an_order_of_kinds_prints_as_a_person_would_write_it(layers: str, text: str) -> None:
    assert len(str(Pattern.from_layers(list(layers)))) == len(text)
    assert parse(text).layer_types == tuple(layers)


def test_twelve_alternating_blocks_print_as_one_repeat() -> None:
    assert str(Pattern.from_layers(["a", "f"] * 6)) == "(a f)*6"
    assert str(Pattern.from_layers(("a",) * 12)) == "a*12"


def unrolled(folded: Folded) -> list[int]:
    """What the loops run through, where each index stands for its element."""
    out: list[int] = []
    for part in folded:
        out += [part] if isinstance(part, int) else unrolled(part.body) * part.count
    return out


@given(st.text("abc", min_size=1, max_size=40))
def test_a_folding_runs_through_the_sequence_and_points_at_first_copies(sequence: str) -> None:
    folded = fold(sequence)
    assert "".join(sequence[i] for i in unrolled(folded)) == sequence
    at = 0
    for part in folded:  # an index is where the element stands, a loop's that of its first copy
        assert (part if isinstance(part, int) else unrolled(part.body)[0]) == at
        at += 1 if isinstance(part, int) else len(unrolled(part.body)) * part.count


def test_nothing_folds_to_nothing_and_any_hashable_can_be_folded() -> None:
    assert fold([]) == ()
    assert fold([("x", 1), ("x", 1), ("x", 1)]) == (Loop((0,), 3),)


PICK = random.Random(7)
RANDOM = [PICK.choice("acf") for _ in range(5000)]
LONG: dict[str, tuple[Callable[[int], list[str]], int]] = {
    "random": (lambda size: RANDOM[:size], 500),
    "two": (lambda size: ["a"] * (size // 2) + ["f"] * (size // 2), 500),
    "long unit": (lambda size: RANDOM[: size // 5] * 5, 1500),
    "staircase": (lambda size: [kind for n in range(1, 99) for kind in "a" * n + "f"][:size], 1000),
}
"""Sort → the layers of so many blocks, and how many are enough for the work to have become linear."""


@pytest.mark.parametrize("sort", LONG)
def test_thousands_of_blocks_are_folded_in_steps_that_grow_with_their_number(sort: str) -> None:
    layers, enough = LONG[sort]
    text = str(Pattern.from_layers(layers(5000)))
    assert parse(text).layer_types == tuple(layers(5000))
    assert len(text) <= 2 * 5000
    assert growth(lambda size: Pattern.from_layers(layers(size)), enough) < LINEAR


def units_that_repeat(seq: tuple[int, ...], longest: int) -> list[list[tuple[int, int]]]:
    """Element by element: for each start, the units that repeat there, units of units left out."""
    found: list[list[tuple[int, int]]] = []
    for i in range(len(seq)):
        own: list[tuple[int, int]] = []
        for period in range(1, min(longest, len(seq) // 2) + 1):
            rest = range(i, len(seq) - period)
            alike = next((j - i for j in rest if seq[j] != seq[j + period]), len(rest))
            if alike >= period and not any(period % p == 0 and p * c >= period * 2 for p, c in own):
                own.append((period, alike // period + 1))
        found.append(own)
    return found


runs = st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=7), st.integers(1, 6))


@given(st.lists(runs, min_size=1, max_size=8), st.sampled_from([3, 48, 1000]))
def test_units_are_found_where_they_repeat(parts: list[tuple[list[int], int]], longest: int) -> None:
    seq = tuple(code for unit, count in parts for code in unit * count)
    assert _repeats(seq, longest) == units_that_repeat(seq, longest)


def test_counts_take_nothing_where_nothing_is_written() -> None:
    """As whoever wrote `a*6 (a f)*10 f*6` looks for it; as text `a*7 (f a)*9 f*7` is a character shorter."""
    layers = [*"a" * 6, *"af" * 10, *"f" * 6]
    assert fold(layers) == (Loop((0,), 6), Loop((6, 7), 10), Loop((26,), 6))
    assert shortest(layers) == "a*7 (f a)*9 f*7"
    assert fold("ff") == (Loop((0,), 2),)
