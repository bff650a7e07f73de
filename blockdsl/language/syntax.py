"""The syntax tree: one frozen dataclass a construct, and its canonical text.

A tree is equal to another when it says the same; where it stood in a text (`span`) does not count. The
smart constructors (`group`, `sequence`, ...) drop redundant parentheses, so that two spellings of one pattern
are one tree and `parse(str(p)) == p`. What the names mean is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..errors import Fault, Span
from ..registry.options import TOO_LARGE, Value, spell

NOWHERE = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Argument:
    """`name=value`, `name` (which means true) or, for macros, a bare value (name is None)."""

    name: str | None
    value: Value
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Ref:
    """A block kind, a macro call or a definition's name, with what stands in its parentheses."""

    name: str
    arguments: tuple[Argument, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Label:
    """`^name`: a name for the place that the stream has reached."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Read:
    """`<name` or `<name(...)`: a branch that adds what the label names."""

    name: str
    arguments: tuple[Argument, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """`( ... )` where the parentheses are needed."""

    body: Body
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Suffixed:
    """An item with `>>shift`, `/divide` or `@tie`; None where a suffix is not written."""

    item: Ref | Read | Group
    shift: int | None = None
    divide: float | None = None
    tie: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item*count`: copies one after another, each with its own weights."""

    item: Ref | Read | Group | Suffixed
    count: int
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Parallel:
    """`a & f`: branches that read the same input and whose contributions are summed."""

    branches: tuple[Item, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Item = Ref | Label | Read | Group | Suffixed | Repeat | Parallel


@dataclass(frozen=True, slots=True)
class Stage:
    """Items one after another, up to the next `|`."""

    name: str | None
    items: tuple[Item, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def name_span(self) -> Span:
        """Where its name stands, or all of it when it has none."""
        return self.span if self.name is None else Span(self.span.start, self.span.start + len(self.name))


Body = tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """`set name=value, ...;`"""

    arguments: tuple[Argument, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Definition:
    """`name = pattern;`"""

    name: str
    body: Body
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Statement = Settings | Definition


# Constructors that keep the tree free of redundant parentheses -------------------------------------------------


def group(body: Body, span: Span = NOWHERE) -> Item:
    """The item that `(body)` is."""
    if len(body) == 1 and body[0].name is None and len(body[0].items) == 1:
        inner = body[0].items[0]
        if isinstance(inner, Ref | Read):
            return inner
        if isinstance(inner, Suffixed):  # its parentheses come back where a second suffix meets the first
            return replace(inner, span=span)
    return Group(body, span)


def suffixed(item: Item, shift: int | None, divide: float | None, tie: str | None, span: Span = NOWHERE) -> Item:
    """`item` with suffixes; two that do not meet are one, as `(a>>1)/2` is `a>>1/2`."""
    if shift is None and divide is None and tie is None:
        return item
    if isinstance(item, Suffixed):
        new, old = (shift, divide, tie), (item.shift, item.divide, item.tie)
        if all(a is None or b is None for a, b in zip(new, old, strict=True)):
            return Suffixed(
                item.item,
                item.shift if shift is None else shift,
                item.divide if divide is None else divide,
                item.tie if tie is None else tie,
                span,
            )
        item = Group((Stage(None, (item,), item.span),), item.span)
    assert isinstance(item, Ref | Read | Group)
    return Suffixed(item, shift, divide, tie, span)


def parallel(branches: Sequence[Item], span: Span = NOWHERE) -> Item:
    flat: list[Item] = []
    for branch in branches:
        only = _only_item(branch)
        flat += only.branches if isinstance(only, Parallel) else [only or branch]
    return flat[0] if len(flat) == 1 else Parallel(tuple(flat), span)


def sequence(stages: Sequence[Stage]) -> Body:
    """Stages one after another; a bare group stands for what is in it, boundaries included."""
    out: list[Stage] = []
    for stage in stages:
        name, span, items = stage.name, stage.span, []  # type: str | None, Span, list[Item]
        for item in stage.items:
            if not isinstance(item, Group):
                items.append(item)
                continue
            for i, inner in enumerate(item.body):
                if i or inner.name is not None:
                    if items:
                        out.append(Stage(name, tuple(items), span))
                        name, items = None, []
                    if name is not None:
                        problem = f"a stage is named twice: '{name}' and '{inner.name}'"
                        raise Fault(inner.name_span, problem, "write each name directly before its own blocks")
                    name, span = inner.name, inner.span
                items += inner.items
        out.append(Stage(name, tuple(items), span))
    return tuple(out)


def _only_item(item: Item) -> Item | None:
    if isinstance(item, Group) and len(item.body) == 1 and item.body[0].name is None and len(item.body[0].items) == 1:
        return item.body[0].items[0]
    return None


# Canonical text -------------------------------------------------------------------------------------------------


class TextPiece(NamedTuple):
    """A bit of canonical text and where in the source it came from; a comment may follow it, but not interrupt it."""

    text: str
    at: int


def statement_pieces(statement: Statement) -> Iterator[TextPiece]:
    start = statement.span.start
    if isinstance(statement, Settings):
        yield TextPiece("set ", start)
        yield from _ending(_arguments(statement.arguments), ";")
    else:
        yield TextPiece(f"{statement.name} = ", start)
        yield from _ending(body_pieces(statement.body), ";")


def pattern_pieces(encoder: Body | None, body: Body) -> Iterator[TextPiece]:
    """Of all that comes after the statements: one stream, or two."""
    if encoder is None:
        yield from body_pieces(body)
        return
    yield from body_pieces(encoder)
    pieces = body_pieces(body)
    first = next(pieces)
    yield TextPiece(" => ", first.at)
    yield first
    yield from pieces


def body_pieces(body: Body) -> Iterator[TextPiece]:
    for i, stage in enumerate(body):
        start = _start(stage.items[0]) if stage.name is None else stage.span.start
        if i:
            yield TextPiece(" | ", start)
        if stage.name is not None:
            yield TextPiece(f"{stage.name}: ", start)
        for j, item in enumerate(stage.items):
            if j:
                yield TextPiece(" ", _start(item))
            yield from _item(item)


def _start(item: Item) -> int:
    """Where the first of an item's pieces stands; parentheses before it may have gone."""
    while not isinstance(item, Ref | Label | Read | Group):
        item = item.branches[0] if isinstance(item, Parallel) else item.item
    return item.span.start


def _item(item: Item) -> Iterator[TextPiece]:
    start, end = item.span.start, item.span.end - 1
    if isinstance(item, Label):
        yield TextPiece(f"^{item.name}", start)
    elif isinstance(item, Ref | Read):
        name = item.name if isinstance(item, Ref) else f"<{item.name}"
        if not item.arguments:
            yield TextPiece(name, start)
            return
        yield TextPiece(f"{name}(", start)
        yield from _arguments(item.arguments)
        yield TextPiece(")", end)
    elif isinstance(item, Group):
        yield TextPiece("(", start)
        yield from body_pieces(item.body)
        yield TextPiece(")", end)
    elif isinstance(item, Suffixed):
        shift = "" if item.shift is None else f">>{item.shift}"
        divide = "" if item.divide is None else f"/{spell(item.divide)}"
        tie = "" if item.tie is None else f"@{item.tie}"
        yield from _ending(_item(item.item), shift + divide + tie)
    elif isinstance(item, Repeat):
        yield from _ending(_item(item.item), f"*{item.count}")
    else:
        for i, branch in enumerate(item.branches):
            if i:
                yield TextPiece(" & ", _start(branch))
            yield from _item(branch)


def _arguments(arguments: Sequence[Argument]) -> Iterator[TextPiece]:
    for i, argument in enumerate(arguments):
        if argument.name is None:
            text = _shortest(argument.value)
        elif argument.value is True:
            text = argument.name
        else:
            text = f"{argument.name}={_shortest(argument.value)}"
        yield TextPiece(text if i == len(arguments) - 1 else f"{text}, ", argument.span.start)


def _shortest(value: Value) -> str:
    """A value as canonical text has it: 4 for 4.0."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_shortest, value))})"
    return spell(int(value) if isinstance(value, float) and value.is_integer() and abs(value) < TOO_LARGE else value)


def _ending(pieces: Iterator[TextPiece], end: str) -> Iterator[TextPiece]:
    """The pieces with `end` written right after the last."""
    last = next(pieces)
    for piece in pieces:
        yield last
        last = piece
    yield TextPiece(last.text + end, last.at)


def text_of(pieces: Iterator[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces)
