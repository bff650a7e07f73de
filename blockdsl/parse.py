"""From text to syntax tree.

Owns the use of lark: building the parser once, turning its callbacks into the nodes of `syntax`, and saying
in the language's own words what lark found wrong. Names and numbers are judged by `check`.

lark, because a grammar file reads as documentation and its LALR tables know what may follow at every point,
which is what the error messages are made of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.tree import Meta
from lark.visitors import Transformer_NonRecursive

from . import syntax
from .errors import Fault, PatternError, Span
from .options import Value
from .syntax import Argument, Body, Definition, Item, Ref, Repeat, Settings, Stage, Statement

MAX_TEXT = 200_000  # characters
MAX_NESTING = 64  # parentheses inside parentheses

_WORDS: dict[str, Value] = {"true": True, "false": False, "none": None}


def parse_tree(text: str) -> tuple[tuple[Statement, ...], Body]:
    """The statements and the pattern of `text`.

    Raises:
        PatternError: the text does not follow the grammar, or is longer or deeper than the bounds.
    """
    return _parse(text, "start")


def parse_options(text: str) -> tuple[Argument, ...]:
    """`heads=8, rotary_pos_emb` as arguments, as they stand after `set`."""
    return _parse(text, "settings_only")


def _parse(text: str, start: str) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"a pattern is a string, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        where = Span(MAX_TEXT, MAX_TEXT + 1)
        raise PatternError(text, where, f"the text is {len(text)} characters long; the bound is {MAX_TEXT}")
    _check_nesting(text)
    try:
        return _TreeBuilder().transform(_parser().parse(text, start=start))
    except UnexpectedInput as error:
        raise _explain(text, error) from None
    except VisitError as error:  # lark wraps what its transformer's methods raise
        if isinstance(error.orig_exc, Fault):
            raise error.orig_exc.within(text) from None
        raise error.orig_exc from None


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(grammar_text(), **PARSER_SETTINGS)


def grammar_text() -> str:
    """The grammar file: `blockdsl/grammar/` when installed, `grammar/` beside the package in a checkout."""
    here = Path(__file__).parent
    installed, checkout = (folder / "grammar" / "pattern.lark" for folder in (here, here.parent))
    return (installed if installed.is_file() else checkout).read_text(encoding="utf-8")


PARSER_SETTINGS: dict[str, Any] = {
    "parser": "lalr",
    "propagate_positions": True,
    "maybe_placeholders": True,
    "start": ["start", "settings_only"],
}


def comments(text: str) -> list[tuple[int, str]]:
    """Each comment of `text` with where it starts; the language has no strings a `#` could be part of."""
    return [(found.start(), found.group().rstrip()) for found in re.finditer(r"#[^\n]*", text)]


def _check_nesting(text: str) -> None:
    open_at: list[int] = []
    for found in re.finditer(r"#[^\n]*|[()]", text):
        if found.group() == "(":
            open_at.append(found.start())
            if len(open_at) > MAX_NESTING:
                where = Span(found.start(), found.end())
                raise PatternError(text, where, f"more than {MAX_NESTING} parentheses are nested here")
        elif found.group() == ")" and open_at:
            open_at.pop()


# Tree ------------------------------------------------------------------------------------------------------------


def _span(meta: Meta) -> Span:
    return Span(meta.start_pos, meta.end_pos)


def _number(token: Token) -> int | float:
    span = Span(token.start_pos or 0, token.end_pos or 0)
    if re.fullmatch(r"-?\d+", token):
        return _whole(token, span)
    if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", token):
        value = float(token)
        if value not in (float("inf"), float("-inf")):
            return value
        raise Fault(span, f"the number {token} is too large")
    glued = re.match(r"(-?[\d.]+)([A-Za-z_].*)", token)
    hint = f"put a space between them: {glued[1]} {glued[2]}" if glued else "write it as 6, 0.5 or 1e-4"
    raise Fault(span, f"'{token}' is not a number", hint)


def _whole(token: Token, span: Span) -> int:
    if len(token) > 18:
        raise Fault(span, "the number is too large")
    return int(token)


def _count(token: Token, what: str, example: str, least: int) -> int:
    value = _number(token)
    if not isinstance(value, int) or value < least:
        span = Span(token.start_pos or 0, token.end_pos or 0)
        raise Fault(span, f"{what} must be a whole number of at least {least}, not {token}", f"as in {example}")
    return value


@v_args(meta=True)
class _TreeBuilder(Transformer_NonRecursive):  # type: ignore[type-arg]
    """Grammar rule to node, one method a rule; not recursive, so that nesting cannot exhaust the stack."""

    def start(self, meta: Meta, children: list[Any]) -> tuple[tuple[Statement, ...], Body]:
        return tuple(children[:-1]), children[-1]

    def settings_only(self, meta: Meta, children: list[Argument]) -> tuple[Argument, ...]:
        return tuple(children)

    def settings(self, meta: Meta, children: list[Argument]) -> Settings:
        return Settings(tuple(children), _span(meta))

    def definition(self, meta: Meta, children: list[Any]) -> Definition:
        return Definition(str(children[0]), children[1], _span(meta))

    def pattern(self, meta: Meta, children: list[Stage]) -> Body:
        return syntax.sequence(children)

    def stage(self, meta: Meta, children: list[Any]) -> Stage:
        name, *items = children if isinstance(children[0], str) else [None, *children]
        return Stage(name, tuple(items), _span(meta))

    def stage_name(self, meta: Meta, children: list[Token]) -> str:
        return str(children[0])

    def term(self, meta: Meta, children: list[Item]) -> Item:
        return syntax.parallel(children, _span(meta))

    def factor(self, meta: Meta, children: list[Any]) -> Item:
        item, count = children
        return item if count is None else Repeat(item, _count(count, "a repeat", "a*6", 1), _span(meta))

    def suffixed(self, meta: Meta, children: list[Any]) -> Item:
        item, *suffixes = children
        given: dict[str, Any] = {}
        for name, value, span in suffixes:
            if name in given:
                raise Fault(span, f"a {_SUFFIXES[name]} is given twice", "each suffix is given at most once")
            given[name] = value
        return syntax.suffixed(item, given.get("shift"), given.get("divide"), given.get("tie"), _span(meta))

    def shift(self, meta: Meta, children: list[Token]) -> tuple[str, int, Span]:
        return "shift", _count(children[1], "a shift", "a>>1", 0), _span(meta)

    def divide(self, meta: Meta, children: list[Token]) -> tuple[str, float, Span]:
        value = _number(children[0])
        if value <= 0:
            raise Fault(_span(meta), f"a branch is divided by a number above 0, not {children[0]}", "as in f/2")
        return "divide", int(value) if value == int(value) else value, _span(meta)

    def tie(self, meta: Meta, children: list[Token]) -> tuple[str, str, Span]:
        return "tie", str(children[0]), _span(meta)

    def name(self, meta: Meta, children: list[Token]) -> Ref:
        return Ref(str(children[0]), (), _span(meta))

    def call(self, meta: Meta, children: list[Any]) -> Ref:
        arguments = tuple(child for child in children[1:] if child is not None)
        return Ref(str(children[0])[:-1], arguments, _span(meta))

    def group(self, meta: Meta, children: list[Body]) -> Item:
        return syntax.group(children[0], _span(meta))

    def named(self, meta: Meta, children: list[Any]) -> Argument:
        return Argument(str(children[0]), children[1][1], _span(meta))

    def bare(self, meta: Meta, children: list[Any]) -> Argument:
        kind, value = children[0]
        if kind == "word" and isinstance(value, str):
            return Argument(value, True, _span(meta))
        return Argument(None, value, _span(meta))

    def number(self, meta: Meta, children: list[Token]) -> tuple[str, Value]:
        return "number", _number(children[0])

    def word(self, meta: Meta, children: list[Token]) -> tuple[str, Value]:
        word = str(children[0])
        return "word", _WORDS.get(word, word)

    def tuple(self, meta: Meta, children: list[Any]) -> tuple[str, Value]:
        return "tuple", tuple(value for _, value in children)


_SUFFIXES = {"shift": "shift (>>)", "divide": "scale (/)", "tie": "tie (@)"}


# Errors ----------------------------------------------------------------------------------------------------------

# What is missing after a token that cannot end a pattern.
_AFTER = {
    "STAR": ("a repeat needs a count", "as in a*6"),
    "SHIFT": ("a shift needs a whole number", "as in a>>1"),
    "SLASH": ("a scale needs a number to divide by", "as in f/2"),
    "AT": ("a tie needs a label", "as in a@x f a@x f"),
    "VBAR": ("a stage is empty", "write its blocks behind the '|', as in a f | a*6"),
    "AMPERSAND": ("a parallel branch is missing", "as in a & f"),
    "EQUAL": ("a value or a pattern is missing behind '='", "as in heads=8, or x = a f;"),
    "COLON": ("a stage is empty", "write its blocks behind the name, as in stem: f a f"),
    "COMMA": ("an option is missing behind ','", "as in a(heads=8, dim_head=32)"),
    "SET": ("'set' needs a setting", "as in set dim=512, heads=8;"),
}

_STRANGE = {
    "+": "'&' sums parallel branches; a space puts blocks one after another",
    ",": "blocks stand one after another with a space between",
    "[": "groups are written with ( )",
    "]": "groups are written with ( )",
    "{": "groups are written with ( )",
    "}": "groups are written with ( )",
    "<": "a token shift is written a>>1",
    ">": "a token shift is written a>>1",
    "-": "a minus sign stands only in front of a number",
    "'": "names stand without quotation marks",
    '"': "names stand without quotation marks",
}

_EXPECTED = {
    "NAME": "a name",
    "NUMBER": "a number",
    "LPAR": "'('",
    "RPAR": "')'",
    "VBAR": "'|'",
    "AMPERSAND": "'&'",
    "STAR": "'*'",
    "SLASH": "'/'",
    "AT": "'@'",
    "SHIFT": "'>>'",
    "SEMICOLON": "';'",
    "COMMA": "','",
    "EQUAL": "'='",
    "COLON": "':'",
    "SET": "'set'",
    "$END": "the end",
}


def _explain(text: str, error: UnexpectedInput) -> PatternError:
    if isinstance(error, UnexpectedCharacters):
        at = error.pos_in_stream or 0
        hint = _STRANGE.get(text[at], "names are letters, digits and '_'; comments start with '#'")
        return PatternError(text, Span(at, at + 1), f"the character {text[at]!r} has no meaning here", hint)
    assert isinstance(error, UnexpectedToken)
    token: Token = error.token
    end = token.type == "$END"
    at = len(text.rstrip()) if end else token.start_pos or 0
    span = Span(at, at + 1 if end else token.end_pos or at + 1)
    accepts = error.accepts or set()
    last = _last_token(error)
    if end and not re.sub(r"#[^\n]*", "", text).strip():
        return PatternError(text, Span(0, 1), "the pattern is empty", "write blocks in their order, as in (a f)*6")
    if end and (opened := _never_closed(text)) is not None:
        return PatternError(text, opened, "this '(' is never closed", "close it with ')'")
    if token.type == "RPAR" and _never_opened(text, at):
        return PatternError(text, span, "this ')' closes nothing", "take it out, or open a '(' before it")
    if last is not None and last.type in _AFTER:
        problem, hint = _AFTER[last.type]
        return PatternError(text, span, problem, hint)
    if token.type == "STAR" and last is not None and last.type == "NUMBER":
        return PatternError(text, span, "a repeat is given twice", "group it, as in (a*6)*2")
    if token.type == "SET":
        return PatternError(
            text,
            span,
            "'set' is a word of the language and not a name",
            "settings stand before the pattern: set dim=512; a f",
        )
    if token.type in ("EQUAL", "SEMICOLON"):
        hint = "settings and definitions stand before the pattern and end with ';': set dim=512; x = a f; x*6"
        return PatternError(text, span, f"'{token}' cannot stand here", hint)
    if token.type == "VBAR" and "NAME" in accepts:
        return PatternError(text, span, *_AFTER["VBAR"])
    if token.type == "RPAR" and last is not None and last.type == "LPAR":
        return PatternError(text, span, "the group is empty", "write blocks between the parentheses")
    what = "the text ends too early" if end else f"'{token}' cannot stand here"
    return PatternError(text, span, what, f"expected {_either(accepts)}")


def _last_token(error: UnexpectedToken) -> Token | None:
    """The token before the fault, where the parser still waits for what belongs to it."""
    stack = error.interactive_parser.parser_state.value_stack
    return stack[-1] if stack and isinstance(stack[-1], Token) else None


def _never_closed(text: str) -> Span | None:
    opened: list[int] = []
    for found in re.finditer(r"#[^\n]*|[()]", text):
        if found.group() == "(":
            opened.append(found.start())
        elif found.group() == ")" and opened:
            opened.pop()
    return Span(opened[-1], opened[-1] + 1) if opened else None


def _never_opened(text: str, at: int) -> bool:
    marks = [found.group() for found in re.finditer(r"#[^\n]*|[()]", text[:at])]
    return marks.count("(") <= marks.count(")")


def _either(accepts: Sequence[str] | set[str]) -> str:
    words = sorted({_EXPECTED[name] for name in accepts if name in _EXPECTED}, key=lambda w: (w[0] == "'", w))
    if "CALL" in accepts:
        words[words.index("a name")] = "a block"
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "nothing more"
