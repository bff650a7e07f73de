"""The public value: a parsed, checked pattern.

Immutable. Made by `parse`, or by `Pattern.from_layers` from a list of blocks; what it means as a graph is
`compile`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from . import syntax
from .errors import Fault, PatternError, Span
from .expand import MAX_BLOCKS, Expansion, Unit, expand, unused
from .fold import shortest
from .kinds import kinds
from .macros import MACROS
from .options import Value, spell
from .parse import parse_options, parse_tree
from .settings import from_arguments, table
from .syntax import Argument, Body, Definition, Settings, Statement


@dataclass(frozen=True)
class Pattern:
    """A layer pattern.

    Two patterns are equal when they say the same: spacing, redundant parentheses, the order of options and
    comments do not count. `str(pattern)` is the canonical text.

    Attributes:
        statements: the `set` statements and definitions, in order.
        body: the pattern proper, as a tuple of stages as written.
        source: the text it was parsed from, which errors point into.
        max_blocks: the bound its expansion was held to.
    """

    statements: tuple[Statement, ...]
    body: Body
    source: str = field(compare=False, repr=False)
    max_blocks: int = field(default=MAX_BLOCKS, compare=False, repr=False)

    def __str__(self) -> str:
        parts = [syntax.text_of(syntax.statement_pieces(statement)) for statement in self.statements]
        return " ".join([*parts, syntax.text_of(syntax.body_pieces(self.body))])

    def __repr__(self) -> str:
        return f"Pattern({str(self)!r})"

    @cached_property
    def expansion(self) -> Expansion:
        """Every block in order, with parallel branches nested."""
        try:
            return expand(self.statements, self.body, self.max_blocks)
        except Fault as fault:
            raise fault.within(self.source) from None

    @property
    def layer_types(self) -> tuple[str, ...]:
        """The kind of every block, left to right; branches one after another."""
        return tuple(unit.kind for unit in self.expansion.units())

    @cached_property
    def settings(self) -> dict[str, Value]:
        """What the text's `set` statements say, by name."""
        arguments = [a for s in self.statements if isinstance(s, Settings) for a in s.arguments]
        return from_arguments(tuple(arguments), self.source)

    @property
    def setting_spans(self) -> dict[str, Span]:
        """Where the text sets each setting."""
        arguments = [a for s in self.statements if isinstance(s, Settings) for a in s.arguments]
        return {argument.name: argument.span for argument in arguments if argument.name is not None}

    @property
    def unused_definitions(self) -> tuple[str, ...]:
        return tuple(definition.name for definition in unused(self.statements, self.body))

    @property
    def stages(self) -> tuple[Pattern, ...]:
        """One pattern a stage, each with the statements it needs.

        A stage that stands in the text as itself keeps its writing; where a boundary lies inside a repeated
        group the stages are written from their blocks.
        """
        expansion = self.expansion
        if len(expansion.stages) == len(self.body):
            return tuple(replace(self, body=(stage,)) for stage in self.body)
        kept = tuple(statement for statement in self.statements if isinstance(statement, Settings))
        head = "".join(syntax.text_of(syntax.statement_pieces(statement)) + " " for statement in kept)
        out = []
        for i, name in enumerate(expansion.stages):
            layers = [_layer_text(step) for step in expansion.steps if _stage_of(step) == i]
            out.append(parse(f"{head}{name + ': ' if name else ''}{shortest(layers)}", self.max_blocks))
        return tuple(out)

    @property
    def stage_names(self) -> tuple[str | None, ...]:
        """The name of each stage; None where it has none."""
        return self.expansion.stages

    @classmethod
    def from_layers(cls, layers: Iterable[str], max_blocks: int = MAX_BLOCKS) -> Pattern:
        """The pattern with these blocks in order, as the shortest text: ['a', 'f', 'a', 'f'] is (a f)*2.

        Args:
            layers: the text of each block, `a`, `f/2`, `a(heads=4)>>1`, ...

        Raises:
            PatternError: there is none, or one is not a block.
        """
        if isinstance(layers, str):
            raise TypeError("from_layers takes a list of blocks; parse() takes a text")
        texts = [_single(layer) for layer in layers]
        return parse(shortest(texts), max_blocks)


def parse(text: str, max_blocks: int = MAX_BLOCKS) -> Pattern:
    """The pattern that `text` is, parsed and checked.

    Args:
        text: see the language reference; `f a f | a*6 f*6 | sandwich(6)`.
        max_blocks: how many blocks it may stand for.

    Raises:
        PatternError: the text is at fault; the error shows where, and what was expected.
    """
    statements, body = parse_tree(text)
    pattern = Pattern(_ordered_statements(statements), _ordered(body), text, max_blocks)
    _ = pattern.expansion, pattern.settings
    return pattern


def parse_settings(text: str) -> dict[str, Value]:
    """`rotary_pos_emb, ff_mult=2` as a dict, checked as after `set`.

    Raises:
        PatternError: a syntax fault, an unknown name or a wrong value.
    """
    return from_arguments(parse_options(text), text)


# Options in declaration order ------------------------------------------------------------------------------------


def _ordered_statements(statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    order = [*table()]
    return tuple(
        replace(statement, arguments=_sorted(statement.arguments, order))
        if isinstance(statement, Settings)
        else Definition(statement.name, _ordered(statement.body), statement.span)
        for statement in statements
    )


def _ordered(body: Body) -> Body:
    return tuple(replace(stage, items=tuple(map(_ordered_item, stage.items))) for stage in body)


def _ordered_item(item: syntax.Item) -> syntax.Item:
    if isinstance(item, syntax.Ref):
        return replace(item, arguments=_sorted(item.arguments, _option_order(item.name))) if item.arguments else item
    if isinstance(item, syntax.Group):
        return replace(item, body=_ordered(item.body))
    if isinstance(item, syntax.Parallel):
        return replace(item, branches=tuple(map(_ordered_item, item.branches)))
    inner = _ordered_item(item.item)
    return item if inner is item.item else replace(item, item=inner)  # type: ignore[arg-type]


def _option_order(name: str) -> list[str]:
    if name in kinds():
        return [option.name for option in kinds()[name].all_options()]
    return [param.name for param in MACROS[name].params] if name in MACROS else []


def _sorted(arguments: tuple[Argument, ...], order: Sequence[str]) -> tuple[Argument, ...]:
    """Bare values first as they stand, then names as declared; unknown ones last, for `expand` to refuse."""
    place = {name: i for i, name in enumerate(order)}
    return tuple(sorted(arguments, key=lambda a: -1 if a.name is None else place.get(a.name, len(place))))


# Blocks back to text ---------------------------------------------------------------------------------------------


def _single(layer: str) -> str:
    """A block's canonical text, in parentheses where it would otherwise come apart in a repeat."""
    _, body = parse_tree(layer)
    text = syntax.text_of(syntax.body_pieces(_ordered(body)))
    if len(body) > 1 or len(body[0].items) > 1 or isinstance(body[0].items[0], syntax.Repeat) or body[0].name:
        raise PatternError(layer, Span(0, len(layer)), "each layer is one block", "as in ['a', 'f/2', 'a & f']")
    return f"({text})" if isinstance(body[0].items[0], syntax.Parallel) else text


def _stage_of(step: object) -> int:
    while not isinstance(step, Unit):
        step = step.branches[0][0]  # type: ignore[attr-defined]
    return step.stage


def _layer_text(step: object) -> str:
    if not isinstance(step, Unit):
        branches = [" ".join(map(_layer_text, branch)) for branch in step.branches]  # type: ignore[attr-defined]
        return "(" + " & ".join(f"({branch})" for branch in branches) + ")"
    flags = [name if value is True else f"{name}={spell(value)}" for name, value in step.given.items()]
    text = step.kind + (f"({', '.join(flags)})" if flags else "")
    text += "" if step.shift is None else f">>{step.shift}"
    text += "" if step.scale == 1 else f"/{spell(1 / step.scale)}"
    return text + ("" if step.tie is None else f"@{step.tie.replace('.', '_')}")
