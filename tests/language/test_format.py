"""Formatting: the canonical text over lines, with every comment kept."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockdsl import PatternError, format_text, parse

from .strategies import Program, plain, programs, spaced

FORMATTED = {
    "a f": "a f\n",
    "((a  f))*6": "(a f)*6\n",
    "set dim=8;a": "set dim=8;\na\n",
    "set heads=2,dim=8; x=a f;x | x": "set dim=8, heads=2;\nx = a f;\nx | x\n",
    "a f # both\n": "a f  # both\n",
    "# first\na f": "# first\na f\n",
    "a f\n# last": "a f\n# last\n",
    "# one\n\n\n# two\na": "# one\n# two\na\n",
    "a # attention\nf # feedforward": "a  # attention\n    f  # feedforward\n",
    "a #x\n|#y\nf": "a  #x\n#y\n| f\n",
    "x = a # in a definition\n f;\nx": "x = a  # in a definition\n    f;\nx\n",
    "set dim=8 # narrow\n;a": "set dim=8;  # narrow\na\n",
    "f(mult=2, # narrow\n glu)": "f(mult=2,  # narrow\n    glu)\n",
    "f(glu, # of the first\n mult=2)": "f(  # of the first\n    mult=2, glu)\n",
    "a>>1 # x\n/2 # y\n*3": "a>>1/2*3  # x\n# y\n",
    "(a # x\n)*2": "a*2  # x\n",
    "(a f # x\n)*2": "(a f  # x\n    )*2\n",
    "stem: f a f | (a f)*6 | head: f": "stem: f a f | (a f)*6 | head: f\n",
    "a\r\nf # x\r\n": "a f  # x\n",
    "a (a/2 # x\n)>>0/2": "a (a/2  # x\n    )>>0/2\n",
    "a f | s: (# x\na>>1)*2 f": "a f\n| s:  # x\n    a>>1*2 f\n",
    "a f | (# x\na>>1)*2 f": "a f  # x\n| a>>1*2 f\n",
    "s: # x\na f": "s:  # x\n    a f\n",
    "a | # x\n s: f": "a  # x\n| s: f\n",
    "a & # x\n (f # y\n)": "a  # x\n    & f  # y\n",
    "(x: # z\n a | f)*2": "(x:  # z\n    a\n| f)*2\n",
    "# x\na | f": "# x\na | f\n",
    "set dim=8;\n# x\na | f": "set dim=8;\n# x\na | f\n",
    "a#": "a  #\n",
}


@pytest.mark.parametrize(("text", "formatted"), FORMATTED.items())
def test_a_text_is_laid_out_like_this(text: str, formatted: str) -> None:
    assert format_text(text) == formatted
    assert format_text(formatted) == formatted


def test_a_pattern_too_long_for_a_line_is_broken_before_each_stage() -> None:
    stages = [f"stage_{i}: (a(heads=16, dim_head=64) f(glu))*{i + 2}" for i in range(3)]
    assert format_text(" | ".join(stages)) == "\n| ".join(stages) + "\n"


def test_formatting_what_is_no_pattern_raises_the_error_of_parsing_it() -> None:
    with pytest.raises(PatternError, match=r"^1:3: unknown block 'g'\n"):
        format_text("a g # no")


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(programs(), st.data())
def test_formatting_keeps_the_meaning_and_every_comment_in_order_and_changes_nothing_twice(
    program: Program, data: st.DataObject
) -> None:
    text, comments = data.draw(spaced(program))
    formatted = format_text(text)
    assert parse(formatted) == parse(text)
    assert re.findall(r"#[^\n]*", formatted) == comments
    assert format_text(formatted) == formatted
    assert formatted.endswith("\n")
    assert not [line for line in formatted.split("\n")[:-1] if not line.strip() or line != line.rstrip()]
    # The code is the canonical text, broken over lines.
    code = re.sub(r"#[^\n]*", "", formatted)
    assert "".join(code.split()) == "".join(str(parse(plain(program))).split())
    # Each statement starts on a line of its own.
    starts = [line for line in formatted.split("\n") if re.match(r"set\b|[a-z]+ =", line)]
    assert len(starts) == len(program.settings) + len(program.definitions)
