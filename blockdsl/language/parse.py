"""From text to syntax tree.

Owns the use of lark: building the parser once, and turning its trees into the nodes of `syntax`. What lark found wrong
is said by `unexpected`; names and numbers are judged later.

lark, because a grammar file reads as documentation and its LALR tables know what may follow at every point,
which is what the error messages are made of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from lark import Lark, Token
from lark import Tree as LarkTree
from lark.exceptions import UnexpectedInput

from ..errors import Fault, PatternError, Span, shortened
from ..registry.options import Ramp, Value
from . import syntax
from .runs import cut
from .syntax import Argument, Body, Definition, Item, Label, Read, Ref, Repeat, Settings, Stage, Statement
from .unexpected import explained, span_of

MAX_TEXT = 200_000  # characters
MAX_NESTING = 64  # parentheses inside parentheses

_WORDS: dict[str, Value] = {"true": True, "false": False, "none": None}


class Tree(NamedTuple):
    """A text: its statements, its pattern and, before `=>`, that of the stream whose output it reads."""

    statements: tuple[Statement, ...]
    body: Body
    encoder: Body | None = None


def parse_tree(text: str) -> Tree:
    """The syntax tree of `text`.

    Raises:
        PatternError: the text does not follow the grammar, or is longer or deeper than the bounds.
    """
    tree: Tree = _parse(text, "start")
    return tree


def parse_options(text: str) -> tuple[Argument, ...]:
    """`heads=8, rotary_pos_emb` as arguments, as they stand after `set`."""
    return _parse(text, "settings_only")


def _parse(text: str, start: str) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"a pattern is a string, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        where = Span(MAX_TEXT, MAX_TEXT + 1)
        raise PatternError(text, where, f"the text is {len(text):,} characters long; the limit is {MAX_TEXT:,}")
    _check_nesting(text)
    with suppress(UnexpectedInput, Fault, PatternError):  # the whole text is then parsed, for its error
        short, runs = cut(text, _block)
        if runs:
            return _TreeBuilder(runs).build(_parser().parse(short, start=start))
    return _parse_plain(text, start)


def _parse_plain(text: str, start: str) -> Any:
    """The text as it stands, each of its tokens read."""
    try:
        return _TreeBuilder({}).build(_parser().parse(text, start=start))
    except UnexpectedInput as error:
        raise explained(text, error, start) from None
    except Fault as fault:
        raise fault.within(text) from None


@lru_cache(maxsize=4096)
def _block(text: str) -> Ref:
    """A block alone, as `a` or `a(heads=8)`."""
    tree: Tree = _parse_plain(text, "start")
    ((block,),) = (stage.items for stage in tree.body)
    assert isinstance(block, Ref)
    return block


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(grammar_text(), **PARSER_SETTINGS)


def grammar_text() -> str:
    """The grammar file: `blockdsl/grammar/` when installed, `grammar/` beside the package in a checkout."""
    installed = files(__package__.partition(".")[0]).joinpath("grammar").joinpath("pattern.lark")
    checkout = Path(__file__).parents[2] / "grammar" / "pattern.lark"
    return (installed if installed.is_file() else checkout).read_text(encoding="utf-8")


PARSER_SETTINGS: dict[str, Any] = {
    "parser": "lalr",
    "keep_all_tokens": True,  # spans are those of their ends, which is quicker than what lark makes of every rule
    "maybe_placeholders": False,
    "start": ["start", "settings_only"],
}


def terminals() -> dict[str, str]:
    """The grammar's terminals as regular expressions by name, in the order in which they are tried."""
    found = {terminal.name: terminal for terminal in _parser().terminals}

    def order(name: str) -> tuple[float, float, float, str]:
        pattern = found[name].pattern
        return -found[name].priority, -pattern.max_width, -len(pattern.value), name

    return {name: found[name].pattern.to_regexp() for name in sorted(found, key=order)}


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
                problem = f"more than {MAX_NESTING} parentheses are nested here"
                raise PatternError(text, where, problem, "nest less deeply")
        elif found.group() == ")" and open_at:
            open_at.pop()


# Tree ------------------------------------------------------------------------------------------------------------


_LARGEST = "numbers are below 1e18"


def _number(token: Token, hint: str = "write it as 6, 0.5 or 1e-4") -> int | float:
    span = span_of(token)
    if re.fullmatch(r"-?\d+", token):
        return _whole(token, span)
    if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", token):
        value = float(token)
        if value not in (float("inf"), float("-inf")):
            return value
        raise Fault(span, "the number is too large", _LARGEST)
    raise Fault(span, f"'{shortened(token)}' is not a number", hint)


def _whole(token: Token, span: Span) -> int:
    digits = token.lstrip("-0")
    if len(digits) > 18:
        raise Fault(span, "the number is too large", _LARGEST)
    return int(digits or "0") * (-1 if token.startswith("-") else 1)


def _operand(token: Token, example: str) -> int | float:
    """The number after an operator; in `a*6f` a name was perhaps meant to follow it."""
    glued = re.fullmatch(r"(\d+)([A-Za-z_]\w*)", token)
    apart = f"put a space between them: {glued[1]} {shortened(glued[2])}" if glued else f"as in {example}"
    return _number(token, apart)


def _count(token: Token, what: str, example: str, least: int) -> int:
    value = _operand(token, example)
    if not isinstance(value, int) or value < least:
        problem = f"{what} must be a whole number of at least {least}, not {shortened(token)}"
        raise Fault(span_of(token), problem, f"as in {example}")
    return value


_SAYING = ("NAME", "CALL", "NUMBER", "SHIFT")
"""Tokens that a rule's method gets; the others say only which rule it is."""


class _TreeBuilder:
    """Grammar rule to node, one method a rule.

    Args:
        runs: by where a name starts, the blocks that it stands for.
    """

    def __init__(self, runs: Mapping[int, tuple[Ref, ...]]) -> None:
        self.runs = runs

    def build(self, root: LarkTree[Token]) -> Any:
        """What a tree stands for, its children first; not recursive, so that nesting cannot exhaust the stack."""
        waiting, order = [root], []
        while waiting:
            order.append(waiting.pop())
            waiting += [child for child in order[-1].children if isinstance(child, LarkTree)]
        built: dict[int, Any] = {}
        spans: dict[int, Span] = {}
        for tree in reversed(order):
            ends = (tree.children[0], tree.children[-1])
            first, last = (spans[id(end)] if isinstance(end, LarkTree) else span_of(end) for end in ends)
            span = spans[id(tree)] = Span(first.start, last.end)
            said = [part for part in tree.children if isinstance(part, LarkTree) or part.type in _SAYING]
            built[id(tree)] = getattr(self, tree.data)(span, [built.pop(id(part), part) for part in said])
        return built[id(root)]

    def start(self, span: Span, children: list[Any]) -> Tree:
        statements = tuple(child for child in children if isinstance(child, Settings | Definition))
        *encoder, body = children[len(statements) :]
        return Tree(statements, body, *encoder)

    def settings_only(self, span: Span, children: list[Argument]) -> tuple[Argument, ...]:
        return tuple(children)

    def settings(self, span: Span, children: list[Argument]) -> Settings:
        return Settings(tuple(children), span)

    def definition(self, span: Span, children: list[Any]) -> Definition:
        return Definition(str(children[0]), children[1], span)

    def pattern(self, span: Span, children: list[Stage]) -> Body:
        return syntax.sequence(children)

    def stage(self, span: Span, children: list[Any]) -> Stage:
        name, *items = children if isinstance(children[0], str) else [None, *children]
        if self.runs:
            items = [each for item in items for each in self.runs.get(item.span.start, (item,))]
        return Stage(name, tuple(items), span)

    def stage_name(self, span: Span, children: list[Token]) -> str:
        if children[0] == "set":  # it would be taken for settings where it stands first
            raise Fault(span_of(children[0]), "'set' is a word of the language, not a name", "choose another name")
        return str(children[0])

    def term(self, span: Span, children: list[Item]) -> Item:
        for item in children:
            if isinstance(item, Label):
                hint = f"it names a place of the stream; write it before or after the branches: (a & f) ^{item.name}"
                raise Fault(item.span, "a label is no parallel branch", hint)
        return syntax.parallel(children, span)

    def repeat(self, span: Span, children: list[Any]) -> Item:
        item, count = children
        if isinstance(item, Label):
            hint = f"repeat it with the blocks before it, as in (a ^{item.name})*{shortened(count)}"
            raise Fault(span, "a label cannot be repeated alone", hint)
        return Repeat(item, _count(count, "a repeat", "a*6", 1), span)

    def suffixed(self, span: Span, children: list[Any]) -> Item:
        item, *suffixes = children
        given: dict[str, Any] = {}
        for name, value, where in suffixes:
            if name in given:
                raise Fault(where, f"a {_SUFFIXES[name]} is given twice", "each suffix is given at most once")
            if isinstance(item, Label):
                hint = f"it computes nothing; group it with the blocks before it, as in (a ^{item.name})/2"
                raise Fault(where, "a label takes no suffix", hint)
            if isinstance(item, Read) and name == "shift":
                raise Fault(where, "a read takes no token shift", "it reads the stream as it is; shift a block: a>>1")
            given[name] = value
        return syntax.suffixed(item, given.get("shift"), given.get("divide"), given.get("tie"), span)

    def shift(self, span: Span, children: list[Token]) -> tuple[str, int, Span]:
        return "shift", _count(children[1], "a shift", "a>>1", 0), span

    def divide(self, span: Span, children: list[Token]) -> tuple[str, float, Span]:
        value = _operand(children[0], "f/2")
        if value <= 0:
            problem = f"a branch is divided by a number above 0, not {shortened(children[0])}"
            raise Fault(span, problem, "as in f/2")
        return "divide", int(value) if value == int(value) else value, span

    def tie(self, span: Span, children: list[Token]) -> tuple[str, str, Span]:
        return "tie", str(children[0]), span

    def name(self, span: Span, children: list[Token]) -> Ref:
        return Ref(str(children[0]), (), span)

    def call(self, span: Span, children: list[Any]) -> Ref:
        return Ref(str(children[0])[:-1], tuple(children[1:]), span)

    def label(self, span: Span, children: list[Token]) -> Label:
        return Label(str(children[0]), span)

    def read(self, span: Span, children: list[Token]) -> Read:
        return Read(str(children[0]), (), span)

    def read_call(self, span: Span, children: list[Any]) -> Read:
        return Read(str(children[0])[:-1], tuple(children[1:]), span)

    def group(self, span: Span, children: list[Body]) -> Item:
        return syntax.group(children[0], span)

    def named(self, span: Span, children: list[Any]) -> Argument:
        return Argument(str(children[0]), children[1][1], span)

    def bare(self, span: Span, children: list[Any]) -> Argument:
        sort, value = children[0]
        if sort == "word" and isinstance(value, str):
            return Argument(value, True, span)
        return Argument(None, value, span)

    def number(self, span: Span, children: list[Token]) -> tuple[str, Value]:
        start, ramp, end = children[0].partition("..")
        if not ramp:
            return "number", _number(children[0])
        ends = [_number(children[0].update(value=number), "a ramp is written 6..2") for number in (start, end)]
        return "number", Ramp(*ends)

    def word(self, span: Span, children: list[Token]) -> tuple[str, Value]:
        word = str(children[0])
        return "word", _WORDS.get(word, word)

    def tuple(self, span: Span, children: list[Any]) -> tuple[str, Value]:
        return "tuple", tuple(value for _, value in children)


_SUFFIXES = {"shift": "shift (>>)", "divide": "scale (/)", "tie": "tie (@)"}
