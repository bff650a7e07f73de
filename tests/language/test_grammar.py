"""The grammar itself: proved free of conflicts by lark's strict mode, and its precedences.

In an environment with the extra `grammar-test`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from lark import Lark
from lark.exceptions import GrammarError, LexError, UnexpectedInput

from blockdsl.language.parse import PARSER_SETTINGS, grammar_text

pytest.importorskip("interegular")


def strict(text: str) -> Lark:
    return Lark(text, strict=True, **PARSER_SETTINGS)


def test_the_grammar_is_lalr_and_free_of_conflicts_and_of_terminal_collisions() -> None:
    assert PARSER_SETTINGS["parser"] == "lalr"
    assert strict(grammar_text()).parse("f a f | a*6 f*6 | sandwich(6)", start="start").data == "start"


def test_strict_mode_would_catch_a_conflict() -> None:
    # A second way to read `a a`: as two terms or as one.
    ambiguous = grammar_text().replace("term       : factor", "term       : factor factor | factor")
    assert ambiguous != grammar_text()
    with pytest.raises(GrammarError, match=r"(?i)conflict"):
        strict(ambiguous)


def test_strict_mode_would_catch_two_terminals_that_collide() -> None:
    # Without its priority CALL would collide with nothing (NAME never ends in a parenthesis); a second name would.
    colliding = (
        grammar_text()
        .replace('SHIFT       : ">>"', 'SHIFT       : ">>"\nWORD        : /[a-z]+/')
        .replace('"@" NAME                                  -> tie', '"@" (NAME | WORD)                         -> tie')
    )
    assert colliding != grammar_text()
    with pytest.raises(LexError, match="Collision"):
        strict(colliding)


def test_a_grammar_with_one_rule_for_block_and_optional_options_has_the_conflict_that_call_avoids() -> None:
    without_call = re.sub(
        r"atom        : NAME .*\n(.*\n)*?.*CALL.*-> call\n",
        'atom        : NAME ["(" [option ("," option)*] ")"]  -> name\n',
        grammar_text(),
    )
    assert without_call != grammar_text()
    with pytest.raises(GrammarError):
        strict(without_call)


@pytest.mark.parametrize("start", ["start", "settings_only"])
def test_the_grammar_refuses_nothing_at_all(start: str) -> None:
    parser: Any = strict(grammar_text())
    with pytest.raises(UnexpectedInput):
        parser.parse("", start=start)


def test_every_terminal_and_rule_is_used() -> None:
    parser = strict(grammar_text())
    used = {symbol.name for rule in parser.rules for symbol in rule.expansion}
    ignored = {"COMMENT", "SPACE"}
    assert {terminal.name for terminal in parser.terminals} - used == ignored
