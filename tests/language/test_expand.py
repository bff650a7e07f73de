"""What each construct means, spelled out by hand, and random patterns against the oracle in `strategies`."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from blockdsl import Pattern, PatternError, parse
from blockdsl.language.expand import BlockSpec, ParallelSpec, Spec

from .strategies import Block, Program, meaning, plain, programs


def blocks(text: str) -> list[BlockSpec]:
    return list(parse(text).expansion.blocks())


def shape(steps: tuple[Spec, ...]) -> str:
    """Blocks left to right, branches in brackets: `a [f|c f]`."""
    return " ".join(s.kind if isinstance(s, BlockSpec) else f"[{'|'.join(map(shape, s.branches))}]" for s in steps)


# text: the blocks from left to right; a bar where a stage begins
MEANING = {
    "a": "a",
    "c": "c",
    "a f": "af",
    "a f a": "afa",
    "a*3": "aaa",
    "a*1": "a",
    "(a f)*3": "afafaf",
    "((a*2) f)*2": "aafaaf",
    "(a*2)*3": "aaaaaa",
    "((a f)*2 c)*2": "afafcafafc",
    "f (a f)*3": "fafafaf",
    "a f*2": "aff",
    "a & f": "af",
    "a f & c": "afc",
    "a | f": "a|f",
    "f a f | a*6 f*6 | sandwich(6)": "faf|aaaaaaffffff|aaaaaaffffff",
    "(a | f) c": "a|fc",
    "a (f | c)": "af|c",
    "(a | f)*2": "a|fa|f",
    "(a | f)*3 c": "a|fa|fa|fc",
    "x: a f": "af",
    "a | x: f": "a|f",
    "a (x: f)": "a|f",
    "(x: a)*2": "a|a",
    "(x: a f | c)*2": "af|c|af|c",
    "((a | f)*2 | c)*2": "a|fa|f|ca|fa|f|c",
    "x = a f; x x": "afaf",
    "x = a f; y = x*2 c; y | x": "afafc|af",
    "x = a | f; x x": "a|fa|f",
    "x = s: a; f x x": "f|a|a",
    "macaron(2)": "faffaf",
    "macaron(2, cross)": "facffacf",
    "macaron(2, cross=false)": "faffaf",
    "sandwich(3)": "aaafff",
    "sandwich(2, 5)": "aaafafafff",
    "sandwich(1, 3)": "aafaff",
    "par(6, 4)": "affaffafffff",  # 12 blocks, 3 groups of 3 (the cut, 8, and a third of it, over 3), then 3 f
    "par(2, 2)": "aaff",  # 4 blocks, 2 groups of 1: the cut is 2, and (2 + 1) // 2 is 1
    "sandwich(2)*2": "aaffaaff",
    "(sandwich(1) c)*2": "afcafc",
    "set dim=8; # a\na": "a",
}


@pytest.mark.parametrize(("text", "blocks"), MEANING.items())
def test_a_text_stands_for_these_blocks_in_these_stages(text: str, blocks: str) -> None:
    pattern = parse(text)
    assert pattern.layer_types == tuple(blocks.replace("|", ""))
    by_stage = ["" for _ in pattern.stage_names]
    for block in pattern.expansion.blocks():
        by_stage[block.stage] += block.kind
    assert "|".join(by_stage) == blocks
    assert ["".join(stage.layer_types) for stage in pattern.stages] == blocks.split("|")


SAME_BLOCKS = [
    ("(a f)*3", "a f a f a f"),
    ("a*2 f*2", "a a f f"),
    ("(a f)/2", "a/2 f/2"),
    ("(a f)>>1", "a>>1 f>>1"),
    ("(a>>2 f)>>1", "a>>2 f>>1"),
    ("((a f>>0)>>1)*2", "a>>1 f>>0 a>>1 f>>0"),
    ("(a/2 f)/3", "a/6 f/3"),
    ("((a/2 f)/3)/5", "a/30 f/15"),
    ("(a & f)/2", "a/2 & f/2"),
    ("(a & f)>>1", "a>>1 & f>>1"),
    ("a & (f & c)", "a & f & c"),
    ("macaron(3)", "f/2 a f/2 f/2 a f/2 f/2 a f/2"),
    ("macaron(1, cross)", "f/2 a c f/2"),
    ("macaron(2)/2", "(f/4 a/2 f/4)*2"),
    ("macaron(2)>>1", "(f>>1/2 a>>1 f>>1/2)*2"),
    ("sandwich(2, 4)", "a*2 (a f)*2 f*2"),
    ("sandwich(4, 4)", "a*4 f*4"),
    ("sandwich(k=2, n=4)", "sandwich(2, 4)"),
    ("sandwich(3, none)", "sandwich(3)"),
    ("par(6, 4)", "(a f*2)*3 f*3"),
    ("x = a f/2; x*2", "(a f/2)*2"),
    ("x = a f/2; x/2 x>>1", "a/2 f/4 a>>1 f>>1/2"),
    ("x = a; y = x x; z = y y; z", "a*4"),
    ("a(heads=8, causal)", "a(causal=true, heads=8)"),
    ("(a@x f@y)*2", "a@x f@y a@x f@y"),
    ("(a | f)*2", "a | f a | f"),
]


def described(text: str) -> list[tuple[Any, ...]]:
    """Everything about each block but where it stands in the text."""
    return [(u.kind, dict(u.given), u.shift, u.scale, u.tie, u.stage) for u in blocks(text)]


@pytest.mark.parametrize(("one", "other"), SAME_BLOCKS)
def test_two_texts_stand_for_the_same_blocks(one: str, other: str) -> None:
    assert described(one) == described(other)
    assert shape(parse(one).expansion.specs) == shape(parse(other).expansion.specs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a & f", "[a|f]"),
        ("a & f & c", "[a|f|c]"),
        ("a & f c", "[a|f] c"),
        ("a & (f c)", "[a|f c]"),
        ("(a f) & (f a)", "[a f|f a]"),
        ("a*2 & f", "[a a|f]"),
        ("(a & f)*2", "[a|f] [a|f]"),
        ("(a & f c)*2 & f", "[[a|f] c [a|f] c|f]"),
        ("a & ((f & c) a)", "[a|[f|c] a]"),
        ("sandwich(1) & f", "[a f|f]"),
        ("x = a & f; x & c", "[[a|f]|c]"),
        ("a | (f & c) a", "a [f|c] a"),
    ],
)
def test_branches_read_the_same_input_and_groups_in_them_are_chains(text: str, expected: str) -> None:
    assert shape(parse(text).expansion.specs) == expected


@pytest.mark.parametrize(
    ("text", "shifts"),
    [
        ("a", [None]),
        ("a>>0", [0]),
        ("a>>1 f", [1, None]),
        ("(a f>>2)>>1", [1, 2]),
        ("((a)>>3 f)>>1", [3, 1]),
        ("((a f)>>2 c)>>1", [2, 2, 1]),
        ("(a & f>>0)>>1", [1, 0]),
        ("x = a f>>2; x>>1 x", [1, 2, None, 2]),
    ],
)
def test_a_shift_of_a_group_goes_to_the_blocks_in_it_that_set_none(text: str, shifts: list[int | None]) -> None:
    assert [block.shift for block in blocks(text)] == shifts


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("a f/2", [1, 1 / 2]),
        ("(a f/2)/3", [1 / 3, 1 / 6]),
        ("((a/2 f)/3 c)/5", [1 / 30, 1 / 15, 1 / 5]),
        ("(a/2)/2", [1 / 4]),
        ("f/0.5", [2]),
        ("f/49", [1 / 49]),
        ("(f/0.1)/0.1", [1 / (0.1 * 0.1)]),
    ],
)
def test_the_scale_of_a_block_is_the_product_of_the_divisions_around_it(text: str, scales: list[float]) -> None:
    assert [block.scale for block in blocks(text)] == scales


@pytest.mark.parametrize(
    ("text", "ties"),
    [
        ("a f", [None, None]),
        ("a@x f a@x", ["x", None, "x"]),
        ("(a@x f@y)*2", ["x", "y", "x", "y"]),
        ("(a f)@x", ["x.0", "x.1"]),
        ("(a f)@x (a f)@x", ["x.0", "x.1", "x.0", "x.1"]),
        ("(a*2)@x (a a)@x", ["x.0", "x.1", "x.0", "x.1"]),
        ("((a f)@x)*2", ["x.0", "x.1", "x.0", "x.1"]),
        ("((a f)*2)@x", ["x.0", "x.1", "x.2", "x.3"]),
        ("a@x & a@x", ["x", "x"]),
        ("(a & f)@x c (a & f)@x", ["x.0", "x.1", None, "x.0", "x.1"]),
        ("sandwich(1)@x (a f)@x", ["x.0", "x.1", "x.0", "x.1"]),
        ("x = a@t f; x x", ["t", None, "t", None]),
        ("a@x>>1 a@x/2", ["x", "x"]),
        ("a@x | a@x", ["x", "x"]),
        # The blocks of a group are tied by the group's label, and so are all that one of them is tied to.
        ("(a@x f)@y (a f)@y", ["x", "y.1", "x", "y.1"]),
        ("(a@x f)@y a@x (a f)@y", ["x", "y.1", "x", "x", "y.1"]),
        ("(a@x)@y a@x a@y", ["x", "x", "x"]),
        ("(a@x)@y (a@z)@y a@z", ["z", "z", "z"]),
    ],
)
def test_blocks_with_one_label_are_one_set_of_parameters(text: str, ties: list[str | None]) -> None:
    assert [block.tie for block in blocks(text)] == ties


def test_a_block_keeps_the_options_its_text_sets_and_where_it_stands() -> None:
    text = "f | a(causal=false, heads=3)"
    block = blocks(text)[1]
    assert dict(block.given) == {"heads": 3, "causal": False}
    assert text[slice(*block.span)] == "a(causal=false, heads=3)"


def test_the_blocks_of_a_macro_stand_at_its_call() -> None:
    text = "a macaron(2) f"
    assert {text[slice(*block.span)] for block in blocks(text)[1:-1]} == {"macaron(2)"}


def test_definitions_are_those_above_and_unused_ones_are_told() -> None:
    assert parse("x = a; y = x; z = f; y").unused_definitions == ("z",)
    assert parse("x = a; x").unused_definitions == ()
    assert parse("x = a; y = x f; a").unused_definitions == ("y",)  # x is used, if only by y


# Random patterns against the oracle --------------------------------------------------------------------------------


def assert_same_blocks(pattern: Pattern, blocks: list[Block], first_stage: int = 0) -> None:
    found = list(pattern.expansion.blocks())
    assert [u.kind for u in found] == [b.kind for b in blocks]
    assert [dict(u.given) for u in found] == [b.given for b in blocks]
    assert [u.shift for u in found] == [b.shift for b in blocks]
    assert all(math.isclose(u.scale * b.divide, 1, rel_tol=1e-12) for u, b in zip(found, blocks, strict=True))
    assert [u.stage + first_stage for u in found] == [b.stage for b in blocks]


def owners(ties: list[Any]) -> list[int | None]:
    """For each block the first with the same tie."""
    return [None if tie is None else ties.index(tie) for tie in ties]


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_a_random_pattern_stands_for_what_the_rules_say(program: Program) -> None:
    expected = meaning(program)
    pattern = parse(plain(program))
    assert pattern.layer_types == expected.layer_types
    assert pattern.stage_names == tuple(expected.stages)
    assert_same_blocks(pattern, expected.blocks)
    assert owners([u.tie for u in pattern.expansion.blocks()]) == expected.classes()
    # The settings stand in the text as they are given.
    assert pattern.settings == {name: value for name, _, value in program.settings}


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_the_stages_of_a_random_pattern_put_together_are_the_whole(program: Program) -> None:
    expected = meaning(program)
    pattern = parse(plain(program))
    classes = expected.classes()
    start = 0
    for i, stage in enumerate(pattern.stages):
        blocks = [block for block in expected.blocks if block.stage == i]
        assert stage.stage_names == (expected.stages[i],)
        assert_same_blocks(stage, blocks, first_stage=i)
        within = classes[start : start + len(blocks)]
        assert owners([u.tie for u in stage.expansion.blocks()]) == owners(within)
        assert stage.settings == pattern.settings
        assert parse(str(stage)) == stage
        start += len(blocks)
    assert start == len(expected.blocks)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_the_kinds_of_a_random_pattern_as_a_list_give_them_back(program: Program) -> None:
    kinds = meaning(program).layer_types
    assume(len(kinds) < 150)
    assert Pattern.from_layers(kinds).layer_types == kinds


# Stages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("a f", ["a f"]),
        ("stem: f a f | (a f)*6 | head: f", ["stem: f a f", "(a f)*6", "head: f"]),
        ("set dim=8; x = a f; x | x*2", ["set dim=8; x = a f; x", "set dim=8; x = a f; x*2"]),
        ("(a f a f a f | c)*2", ["(a f)*3", "c (a f)*3", "c"]),
        ("(x: a*3 | c)*2", ["x: a*3", "c", "x: a*3", "c"]),
        (
            "set dim=8; ((a & (f f)) | f/49>>1)*2",
            ["set dim=8; a & f*2", "set dim=8; f>>1/49 a & f*2", "set dim=8; f>>1/49"],
        ),
        ("((a & f)*3 | c)*1", ["(a & f)*3", "c"]),
        ("((a f)@t a@t_0 | c)*1", ["(a f)@t a@t_0", "c"]),
        ("((a f)@t | c)*2", ["(a f)@t", "c (a f)@t", "c"]),
        ("((a f)@t f | f@t_1)*1", ["(a f)@t f", "f@t_1"]),
        ("(a f | c)@t*2", ["a@t_0 f@t_1", "c@t_2 a@t_0 f@t_1", "c@t_2"]),
        ("(^u a (a <u)@t | c)*2", ["^u a (a <u)@t", "c ^u a (a <u)@t", "c"]),
        ("(a(heads=2, causal=false) | f(glu))*1", ["a(heads=2, causal=false)", "f(glu)"]),
        ("x = s: a | f; x", ["s: a", "f"]),
    ],
)
def test_a_stage_keeps_its_writing_or_is_written_from_its_blocks(text: str, stages: list[str]) -> None:
    assert [str(stage) for stage in parse(text).stages] == stages


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a ^u f | <u f", "stage 2 reads 'u' of stage 1, and is no pattern alone"),
        ("enc: ^u a f | dec: a <u(all) f", "the stage 'dec' reads 'u' of the stage 'enc', and is no pattern alone"),
        ("^u a <u(0) | a ^u f <u(1)", "'u' is counted from another stage on"),
        ("a ^k f | a(kv=k) f", "stage 2 reads 'k' of stage 1, and is no pattern alone"),
    ],
)
def test_a_stage_that_reads_a_place_of_another_is_no_pattern_alone(text: str, problem: str) -> None:
    with pytest.raises(PatternError) as caught:
        _ = parse(text).stages
    assert caught.value.problem == problem


def test_layers_may_be_labels_and_reads() -> None:
    layers = ["^u", "a", "f", "^u", "a", "f", "<u(pop)", "a", "<u(pop)", "a"]
    assert str(Pattern.from_layers(layers)) == "(^u a f)*2 (<u(pop) a)*2"


def test_labels_that_nothing_reads() -> None:
    assert parse("^u a ^v f <v ^w f").unread_labels == ("u", "w")
    assert parse("(a ^k f a(kv=k) f)*2").unread_labels == ()
    assert parse("^u a f => a ^v c f").unread_labels == ("u", "v")


def test_a_stage_of_thousands_of_blocks_in_a_branch_is_written_short() -> None:
    stage, last = parse("((a(heads=16, dim_head=64, dropout=0.1)*5000 & f) | f)*1").stages
    assert str(stage) == "a(heads=16, dim_head=64, dropout=0.1)*5000 & f"
    assert str(last) == "f"


@pytest.mark.parametrize("bad", ["set dim=8; a", "a f", "a | f", "x: a", "a*2", "x = a; x"])
def test_from_layers_takes_one_block_an_element(bad: str) -> None:
    with pytest.raises(PatternError) as caught:
        Pattern.from_layers(["a", bad])
    assert (caught.value.problem, caught.value.hint) == ("each layer is one block", "as in ['a', 'f/2', 'a & f']")


def test_from_layers_keeps_options_suffixes_and_branches() -> None:
    layers = ["f/2", "a(heads=2)>>1@x", "a & f", "a & f", "f/2", "a(heads=2)>>1@x", "a & f", "a & f"]
    pattern = Pattern.from_layers(layers)
    assert str(pattern) == "(f/2 a(heads=2)>>1@x (a & f)*2)*2"
    assert shape(pattern.expansion.specs) == "f a [a|f] [a|f] f a [a|f] [a|f]"


def test_from_layers_refuses_a_text_an_empty_list_and_too_many() -> None:
    with pytest.raises(TypeError, match=r"^from_layers takes a list of blocks; parse\(\) takes a text$"):
        Pattern.from_layers("afaf")
    with pytest.raises(PatternError, match="the pattern is empty"):
        Pattern.from_layers([])
    with pytest.raises(PatternError, match="this makes 11 blocks; the limit is 10"):
        Pattern.from_layers(["a"] * 11, max_blocks=10)


def test_blocks_and_branches_are_what_an_expansion_is_made_of() -> None:
    first, second = parse("a (f & c)").expansion.specs
    assert isinstance(first, BlockSpec)
    assert isinstance(second, ParallelSpec)
    assert parse("a | x: f").expansion.stages == (None, "x")
