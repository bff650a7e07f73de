"""Any text is either a pattern or a PatternError that shows where; nothing else comes out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import PatternError, parse, parse_settings
from blockdsl.language.parse import comments

from .strategies import Program, plain, programs, spaced

SIGNS = ["a", "f", "c", "(", ")", "a(", "*", "3", "&", "|", "/2", "@", ">>", ":", "=", ",", ";", "set", "x", "heads"]
SIGNS += [
    "true",
    "none",
    "-1",
    ".5",
    "6f",
    "1e3",
    "macaron(",
    "par(6, 4)",
    "#",
    "\n",
    " ",
    "\t",
    "ü",
    "\x00",
    "'",
    "attn",
]

# What lark, its grammar or Python would call things, and a user would not.
INTERNAL = ("Token(", "Tree(", "$END", "LPAR", "RPAR", "VBAR", "SEMICOLON", "__ANON", "Traceback", "lark", "NoneType")


def judged(text: str) -> PatternError | None:
    """The error that a text gives, checked for what every error has to be; None when it parses."""
    try:
        pattern = parse(text)
    except PatternError as error:
        check_error(error, text)
        return error
    assert parse(str(pattern)) == pattern
    return None


def check_error(error: PatternError, text: str) -> None:
    lines = text.split("\n")
    assert error.text == text
    assert 1 <= error.line <= len(lines)
    assert 1 <= error.column <= len(lines[error.line - 1]) + 1
    shown = str(error).split("\n")
    assert shown[0] == f"{error.line}:{error.column}: {error.problem}"
    assert set(shown[2].strip()) == {"^"}
    assert [line[2:] for line in shown[3:]] == error.hint.split("\n")[: len(shown) - 3]
    assert error.problem
    assert error.hint, "every error says what was expected"
    assert all(len(line) < 500 for line in shown)
    assert not [word for word in INTERNAL if word in error.problem + error.hint and word not in text]
    # The marks stand under the very character that the column names.
    at = len(shown[2]) - len(shown[2].lstrip())
    line = lines[error.line - 1]
    if error.column <= len(line) and line[error.column - 1].isprintable():
        assert shown[1][at] == line[error.column - 1]


@given(st.text(max_size=40))
def test_any_text_parses_or_raises_a_pattern_error_that_points_into_it(text: str) -> None:
    judged(text)


@settings(max_examples=250)
@given(st.lists(st.sampled_from(SIGNS), max_size=12).map("".join))
def test_any_signs_of_the_language_in_any_order_parse_or_raise_a_pattern_error(text: str) -> None:
    judged(text)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(programs(depth=2), st.data())
def test_a_mutated_pattern_parses_or_raises_a_pattern_error(program: Program, data: st.DataObject) -> None:
    text = plain(program)
    for _ in range(data.draw(st.integers(1, 3))):
        at, cut = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(st.sampled_from(["", *SIGNS])) + text[at + cut :]
    judged(text)


@given(
    st.lists(st.sampled_from(["heads", "=", "8", ",", "rotary_pos_emb", "zzz", ";", "(", ")", " ", "#"]), max_size=8)
)
def test_any_settings_parse_or_raise_a_pattern_error(signs: list[str]) -> None:
    text = "".join(signs)
    try:
        parse_settings(text)
    except PatternError as error:
        check_error(error, text)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(programs(), st.data())
def test_spaces_newlines_and_comments_do_not_count(program: Program, data: st.DataObject) -> None:
    text, _ = data.draw(spaced(program))
    assert parse(text) == parse(plain(program))


def test_a_name_with_a_parenthesis_right_after_it_takes_options_and_with_a_space_a_group_follows() -> None:
    assert parse("f(glu)").layer_types == ("f",)
    assert parse("f (a f)*2").layer_types == ("f", "a", "f", "a", "f")
    assert parse("f\n(a)").layer_types == parse("f # (\n (a)").layer_types == ("f", "a")


def test_set_is_a_word_only_where_settings_can_stand() -> None:
    assert parse("setting = a; setting").layer_types == ("a",)
    assert parse("a@set f a@set").expansion.specs[0].tie == "set"  # type: ignore[union-attr]
    with pytest.raises(PatternError, match=r"^1:5: 'set' is a word of the language, not a name\n"):
        parse("a | set: f")


@pytest.mark.parametrize("number", ["2", "2.0", "2.", "20e-1", ".2e1", "002"])
def test_a_number_may_be_written_in_many_ways(number: str) -> None:
    assert parse(f"f/{number}") == parse("f/2")
    assert str(parse(f"f/{number}")) == "f/2"


@pytest.mark.parametrize("text", [None, 3, b"a f", ["a", "f"]])
def test_only_a_text_is_parsed(text: object) -> None:
    with pytest.raises(TypeError, match=f"^a pattern is a string, not {type(text).__name__}$"):
        parse(text)  # type: ignore[arg-type]


def test_comments_are_found_with_where_they_start_and_without_what_ends_the_line() -> None:
    assert comments("# one\r\na f # two  \n#") == [(0, "# one"), (11, "# two"), (19, "#")]


def test_settings_alone_are_a_dict() -> None:
    assert parse_settings("rotary_pos_emb, ff_mult=2, attn_dim_head=none, causal=false") == {
        "rotary_pos_emb": True,
        "ff_mult": 2,
        "attn_dim_head": None,
        "causal": False,
    }
    assert blockdsl.parse_settings("dim = 512 # wide\n") == {"dim": 512}
