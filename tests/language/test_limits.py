"""Nothing that can be typed hangs, fills the memory or exhausts the stack; bounds are checked before expanding."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from blockdsl import Pattern, PatternError, format_text, parse
from blockdsl.graph.resolve import resolve
from blockdsl.language.bounds import MAX_BLOCKS
from blockdsl.language.fold import shortest
from blockdsl.language.parse import MAX_NESTING, MAX_TEXT

from ..work import LINEAR, growth, lines


def refused_at_once(text: str, problem: str, **options: Any) -> PatternError:
    """Checks that a text is refused in few steps and some megabytes, so without having been expanded."""
    caught: list[PatternError] = []

    def refused() -> None:
        with pytest.raises(PatternError) as error:
            parse(text, **options)
        caught.append(error.value)

    refused()  # the parser's tables are built by now
    assert caught[0].problem == problem
    assert lines(refused) < 30_000 + 500 * min(len(text), 2_000)
    tracemalloc.start()
    refused()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
    return caught[0]


def test_to_expand_takes_more_steps_than_a_refusal_may() -> None:
    parse("a f")
    assert lines(lambda: parse("(a f)*5000")) > 300_000
    assert lines(lambda: parse("a" + " " * (MAX_TEXT - 1))) < 30_000 < lines(lambda: parse("a " * 1000))


@pytest.mark.parametrize(
    ("text", "so_many"),
    [
        ("a*10001", "this makes 10,001"),
        ("(a f)*5001", "this makes 10,002"),
        ("a*5000 f*5001", "up to here there are 10,001"),
        ("((a*9999)*9999)*9999", "this makes 99,980,001"),
        ("a*999999999999999999", "this makes far more"),
        ("(a*999999999999999)*9", "this makes 999,999,999,999,999"),
        ("a*5001 & f*5000", "this makes 10,001"),
        ("a*5001 | f*5000", "up to here there are 10,001"),
        ("macaron(3334)", "this makes 10,002"),
        ("macaron(2501, cross)", "this makes 10,004"),
        ("sandwich(5001)", "this makes 10,002"),
        ("sandwich(1, 999999999999)", "this makes 1,999,999,999,998"),
        ("sandwich(999999999999999999)", "this makes far more"),
        ("par(5001, 3)", "this makes 10,002"),
        ("par(999999999999999999, 2)", "this makes far more"),
        ("par(5000, 10000)", "this makes 13,332"),  # one group, by the rule a third longer than the depth
        ("x = a*100; y = x*100; z = y*2; a", "this makes 20,000"),
        ("x = a*10000; x f", "up to here there are 10,001"),
    ],
)
def test_too_many_blocks_are_refused_before_any_is_made(text: str, so_many: str) -> None:
    error = refused_at_once(text, f"{so_many} blocks; the limit is 10,000")
    assert error.hint == "in Python, parse(text, max_blocks=...) raises it"


def test_definitions_that_double_themselves_sixty_times_are_refused_at_once() -> None:
    doubling = "x0 = a; " + " ".join(f"x{i} = x{i - 1} x{i - 1};" for i in range(1, 61)) + " x60"
    error = refused_at_once(doubling, "up to here there are 16,384 blocks; the limit is 10,000")
    assert doubling[error.span.start : error.span.end] == "x13"
    tripling = "x0 = a; " + " ".join(f"x{i} = x{i - 1} & x{i - 1} & x{i - 1};" for i in range(1, 61)) + " x60"
    refused_at_once(tripling, "this makes 19,683 blocks; the limit is 10,000")


def test_the_bound_itself_is_allowed_and_the_caller_may_raise_or_lower_it() -> None:
    assert MAX_BLOCKS == 10_000
    assert len(parse("a*10000").layer_types) == 10_000
    assert len(parse("(a f)*12000", max_blocks=24_000).layer_types) == 24_000
    assert parse("a*3", max_blocks=3).max_blocks == 3
    refused_at_once("a*4", "this makes 4 blocks; the limit is 3", max_blocks=3)
    refused_at_once("(a f)*12001", "this makes 24,002 blocks; the limit is 24,000", max_blocks=24_000)


@pytest.mark.parametrize("text", ["^h (a <h(all) ^h)*5000", "^h (a ^h)*4000 (<h(all) & a)*3000"])
def test_reads_of_all_places_are_bounded_since_they_grow_as_the_square(text: str) -> None:
    tracemalloc.start()
    with pytest.raises(PatternError, match=r"up to here reads by 'all' read more than 1,000,000 places") as error:
        parse(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6  # 12,500,000 places take a hundred
    assert text[error.value.span.start : error.value.span.end] == "<h(all)"


def test_the_bound_of_reads_follows_that_of_blocks() -> None:
    text = "^h (a ^h)*200 <h(all)*200"
    with pytest.raises(PatternError, match="more than 40,000 places"):
        parse(text, max_blocks=400)
    assert len(parse(text, max_blocks=500).layer_types) == 200
    assert len(parse("^h (a f <h(all, gain) ^h)*1000").layer_types) == 2000


def test_a_raised_bound_goes_on_to_the_stages() -> None:
    assert [len(stage.layer_types) for stage in parse("a*11000 | (f | c)*2", max_blocks=20_000).stages] == [
        11000,
        1,
        2,
        1,
    ]


def test_a_large_macro_is_written_and_expanded_in_steps_that_grow_with_its_size() -> None:
    assert len(parse("par(30000, 7) | sandwich(9, 9000)", max_blocks=100_000).layer_types) == 78_000
    assert growth(lambda size: parse(f"par({size}, 7) | sandwich(9, {size})", max_blocks=100_000), 2000) < LINEAR


# Text and nesting --------------------------------------------------------------------------------------------------


def test_a_text_longer_than_the_bound_is_refused_unread() -> None:
    assert MAX_TEXT == 200_000
    error = refused_at_once("a " * 100_000 + "f", "the text is 200,001 characters long; the limit is 200,000")
    assert len(str(error)) < 400
    assert parse("a" + " " * (MAX_TEXT - 1)).layer_types == ("a",)


def test_groups_are_nested_to_the_bound_and_no_deeper() -> None:
    assert MAX_NESTING == 64
    for wrap in ("({})*1", "({})/1", "({} f)", "a & ({} f)", "(a & {})*1", "a ({})"):
        text = "a"
        for _ in range(64):
            text = wrap.format(text)
        pattern = parse(text)
        assert parse(str(pattern)) == pattern
        assert parse(format_text(text)) == pattern
        error = refused_at_once(wrap.format(text), "more than 64 parentheses are nested here")
        assert error.hint == "nest less deeply"


def test_parentheses_of_options_and_unclosed_ones_count_and_those_in_comments_do_not() -> None:
    refused_at_once("(" * 1000, "more than 64 parentheses are nested here")
    refused_at_once("a(heads=" + "(" * 100_000, "more than 64 parentheses are nested here")
    assert parse("a # " + "(" * 100).layer_types == ("a",)
    with pytest.raises(PatternError, match="this '\\)' has no"):
        parse(")" * 100)


def chain(definitions: int, groups: int) -> str:
    """Definitions each of which uses the one above it inside so many groups."""
    out = "x0 = a; "
    for i in range(1, definitions):
        out += f"x{i} = " + "(" * groups + f"x{i - 1}" + "*1)" * groups + "*1; "
    return out + f"x{definitions - 1}"


def test_definitions_inside_definitions_count_as_nesting() -> None:
    assert parse(chain(64, 0)).layer_types == ("a",)
    for text, at in ((chain(66, 0), "x64"), (chain(8, 10), "x5"), (chain(3, 63), "x1"), (chain(12, 60), "x1")):
        error = refused_at_once(text, "more than 64 groups and definitions are nested here")
        assert text[error.span.start : error.span.end] == at


def in_a_deep_stack(frames: int, call: Callable[[], Any]) -> Any:
    return call() if frames == 0 else in_a_deep_stack(frames - 1, call)


DEEPEST = [
    "(" * 64 + "a" + "*1)" * 64,
    "(" * 64 + "a" + " & f)/1*1" * 64,
    "(" * 64 + "a" + ")>>1/1@x" + ")*1" * 63,
    "(" * 64 + "a" + ")>>1@x)/1*1" * 32,
    "(" * 63 + "a" + " (f & c)/1)*1" * 63,
    chain(64, 0),
    chain(6, 10),
]


@pytest.mark.parametrize("text", DEEPEST, ids=range(len(DEEPEST)))
def test_the_deepest_patterns_need_little_of_the_stack(text: str) -> None:
    def everything() -> None:
        pattern = parse(text)
        assert parse(str(pattern)) == pattern
        assert hash(pattern) == hash(parse(text))
        assert format_text(text)
        assert pattern.stages
        assert pattern.unused_definitions == ()
        assert resolve(pattern, dim=8).steps

    in_a_deep_stack(300, everything)


def test_the_stages_of_deeply_nested_branches_are_written_too() -> None:
    text = "(" + "a & (f " * 50 + "a" + ")" * 50 + " | c)*2"
    first, second, third = in_a_deep_stack(300, lambda: parse(text).stages)
    assert str(first) == "a & (f " * 50 + "a" + ")" * 50
    assert (second.layer_types[0], str(third)) == ("c", "c")


# Long but legal ----------------------------------------------------------------------------------------------------


def test_ten_thousand_stages_are_told_apart_in_steps_that_grow_with_their_number() -> None:
    stages = parse("(a | f)*5000").stages
    assert len(stages) == 5001
    assert [str(stage) for stage in stages[:3]] == ["a", "f a", "f a"]
    assert growth(lambda size: parse(f"(a | f)*{size}").stages, 500) < LINEAR


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (lambda size: " | ".join(f"s{i}: a" for i in range(size)), 2000),
        (lambda size: " ".join(f"(a@x{i})@x{i + 1}" for i in range(size, 0, -1)), 2000),
        (lambda size: " ".join(f"(a@x{i})@x{i + 1}" for i in range(size)), 2000),
        (lambda size: "".join(f"x{i}_ = a;" for i in range(size)) + "x0_", 1),
        (lambda size: "a(heads=2) " * size, 2000),
    ],
    ids=["named stages", "ties down", "ties up", "definitions", "options"],
)
def test_many_of_a_sort_are_read_in_steps_that_grow_with_their_number(text: Callable[[int], str], blocks: int) -> None:
    assert len(parse(text(2000)).layer_types) == blocks
    assert growth(lambda size: parse(text(size)), 300) < LINEAR


def test_two_thousand_ties_that_meet_are_one() -> None:
    pattern = parse(" ".join(f"(a@x{i})@x{i + 1}" for i in range(2000, 0, -1)))
    assert len({block.tie for block in pattern.expansion.blocks()}) == 1


def test_a_very_long_name_is_cut_in_the_message_and_not_compared_with_all_others() -> None:
    error = refused_at_once("a " + "x" * 150_000, f"unknown block '{'x' * 60}…'")
    assert len(str(error)) < 600
    error = refused_at_once(
        "a(heads=" + "y" * 100_000 + ")", f"heads must be a whole number of at least 1, not {'y' * 60}…"
    )
    assert len(str(error)) < 600
    refused_at_once("a*" + "9" * 100_000, "the number is too large")
    refused_at_once("a*" + "9f" * 50_000, f"'{'9f' * 30}…' is not a number")


def test_a_pattern_can_be_parsed_in_several_threads_at_once() -> None:
    found: list[Pattern] = []
    threads = [threading.Thread(target=lambda: found.append(parse("(a & f)*3 | sandwich(2)"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_the_shortest_text_of_a_long_order_is_found_in_steps_that_grow_with_its_length() -> None:
    assert len(shortest([*"aff"] * 3000 + ["a"] * 500)) < 20
    assert growth(lambda size: shortest([*"aff"] * size + ["a"] * (size // 6)), 500) < LINEAR
