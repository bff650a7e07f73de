"""The public value: a parsed, checked pattern.

Immutable. Made by `parse`, or by `Pattern.from_layers` from a list of blocks; what it means as a graph is
`compile`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import Fault, PatternError, Span
from ..registry.kinds import kinds
from ..registry.options import Value, whole
from ..registry.reads import JOINS, WHICH
from ..registry.streams import pair_table
from . import syntax
from .arguments import from_arguments
from .bounds import MAX_BLOCKS
from .expand import Expansion, ParallelSpec, ReadSpec, Spec, expand
from .fold import shortest
from .labels import LabelSpec
from .macros import MACROS
from .names import unused
from .parse import Tree, parse_options, parse_tree
from .streams import check_pair, check_settings, of_side
from .syntax import NOWHERE, Argument, Body, Definition, Item, Settings, Statement
from .unparse import body_of, ties_of


@dataclass(frozen=True, eq=False)
class Pattern:
    """A layer pattern.

    Two patterns are equal when they say the same: spacing, redundant parentheses, the order of options and
    comments do not count. `str(pattern)` is the canonical text.

    Attributes:
        statements: the `set` statements and definitions, in order.
        body: the pattern proper, as a tuple of stages as written; of two streams, what is written after `=>`.
        source: the text it was parsed from, which errors point into.
        max_blocks: the bound its expansion was held to.
        encoder_body: what is written before `=>`; None where there is one stream.
    """

    statements: tuple[Statement, ...]
    body: Body
    source: str
    max_blocks: int = MAX_BLOCKS
    encoder_body: Body | None = None

    @cached_property
    def _canonical(self) -> str:
        parts = [syntax.text_of(syntax.statement_pieces(statement)) for statement in self.statements]
        return " ".join([*parts, syntax.text_of(syntax.pattern_pieces(self.encoder_body, self.body))])

    def __str__(self) -> str:
        return self._canonical

    def __repr__(self) -> str:
        return f"Pattern({str(self)!r})"

    # The canonical text is the same exactly when the patterns are, and comparing it takes less of the stack than
    # comparing trees does.
    def __eq__(self, other: object) -> bool:
        return self._canonical == other._canonical if isinstance(other, Pattern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._canonical)

    @cached_property
    def encoder(self) -> Pattern | None:
        """The stream before `=>`, as a pattern of its own; None where there is one stream."""
        return None if self.encoder_body is None else self._side("enc_", self.encoder_body)

    @cached_property
    def decoder(self) -> Pattern:
        """The stream after `=>`, as a pattern of its own; of one stream, all of it."""
        return self if self.encoder_body is None else self._side("dec_", self.body)

    def _side(self, side: str, body: Body) -> Pattern:
        return replace(self, statements=of_side(self.statements, side, body), body=body, encoder_body=None)

    @cached_property
    def expansion(self) -> Expansion:
        """Every block in order, with parallel branches nested; of two streams, those after `=>`."""
        try:
            return expand(self.statements, self.body, self.max_blocks, self.encoder_body)
        except Fault as fault:
            raise fault.within(self.source) from None

    @property
    def layer_types(self) -> tuple[str, ...]:
        """The kind of every block, left to right; branches one after another."""
        before = () if self.encoder is None else self.encoder.layer_types
        return (*before, *(block.kind for block in self.expansion.blocks()))

    @cached_property
    def settings(self) -> dict[str, Value]:
        """What the text's `set` statements say, by name."""
        arguments = [a for s in self.statements if isinstance(s, Settings) for a in s.arguments]
        return from_arguments(tuple(arguments), self.source, pair=self.encoder_body is not None)

    @property
    def setting_spans(self) -> dict[str, Span]:
        """Where the text sets each setting."""
        arguments = [a for s in self.statements if isinstance(s, Settings) for a in s.arguments]
        return {a.name: a.span for a in arguments if a.name is not None and a.span != NOWHERE}

    @property
    def unused_definitions(self) -> tuple[str, ...]:
        return tuple(
            definition.name for definition in unused(self.statements, (*(self.encoder_body or ()), *self.body))
        )

    @property
    def unread_labels(self) -> tuple[str, ...]:
        """Names of places that nothing reads, those of an encoder first."""
        places = [spec for spec in self.expansion.flat() if isinstance(spec, LabelSpec)]
        readers = (spec for spec in self.expansion.flat() if not isinstance(spec, LabelSpec))
        read = {places[index].name for spec in readers for index in spec.sources}
        unread = tuple(name for name in dict.fromkeys(place.name for place in places) if name not in read)
        return unread if self.encoder is None else (*self.encoder.unread_labels, *unread)

    @property
    def stages(self) -> tuple[Pattern, ...]:
        """One pattern a stage, each with the statements it needs.

        A stage that stands in the text as itself keeps its writing; where a boundary lies inside a repeated
        group the stages are written from their blocks. Those of an encoder come first.

        Raises:
            PatternError: a stage reads a place that another one names.
        """
        if self.encoder is not None:
            return (*self.encoder.stages, *self.decoder.stages)
        expansion = self.expansion
        self._check_stages()
        if len(expansion.stages) == len(self.body):
            return tuple(replace(self, body=(stage,)) for stage in self.body)
        kept = tuple(statement for statement in self.statements if isinstance(statement, Settings))
        head = "".join(syntax.text_of(syntax.statement_pieces(statement)) + " " for statement in kept)
        specs: list[list[Spec]] = [[] for _ in expansion.stages]
        for spec in expansion.specs:
            specs[_stage_of(spec)].append(spec)
        ties = ties_of(specs)
        texts = [
            head + syntax.text_of(syntax.body_pieces(body_of(part, ties, name)))
            for part, name in zip(specs, expansion.stages, strict=True)
        ]
        parsed = {text: parse(text, self.max_blocks) for text in dict.fromkeys(texts)}  # copies of a group are alike
        return tuple(parsed[text] for text in texts)

    def _check_stages(self) -> None:
        """Whether each stage alone is a pattern: that none reads what another names."""
        places: list[LabelSpec] = []
        for spec in self.expansion.flat():
            if isinstance(spec, LabelSpec):
                places.append(spec)
                continue
            if elsewhere := [places[index] for index in spec.sources if places[index].stage != spec.stage]:
                ours, theirs = (_stage_in_words(self.expansion.stages, at.stage) for at in (spec, elsewhere[0]))
                problem = f"{ours} reads '{elsewhere[0].name}' of {theirs}, and is no pattern alone"
                raise PatternError(self.source, spec.span, problem, "compile the whole text: its graph has the stages")
            counted = spec.label if isinstance(spec, ReadSpec) and isinstance(spec.which, int) else None
            if any(place.name == counted and place.stage != spec.stage for place in places):
                problem = f"'{counted}' is counted from another stage on"
                raise PatternError(self.source, spec.span, problem, "name the places of this stage otherwise")

    @property
    def stage_names(self) -> tuple[str | None, ...]:
        """The name of each stage; None where it has none. Those of an encoder come first."""
        return self.expansion.stages if self.encoder is None else (*self.encoder.stage_names, *self.expansion.stages)

    @classmethod
    def from_layers(cls, layers: Iterable[str], max_blocks: int = MAX_BLOCKS) -> Pattern:
        """The pattern with these blocks in order, as the shortest text: ['a', 'f', 'a', 'f'] is (a f)*2.

        Args:
            layers: the text of each block, `a`, `f/2`, `a(heads=4)>>1`, ..., or of a label or a read, `^u`, `<u`.

        Raises:
            PatternError: there is none, or one is neither a block nor a label or a read.
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
    return of_tree(parse_tree(text), text, max_blocks)


def of_tree(tree: Tree, text: str, max_blocks: int = MAX_BLOCKS) -> Pattern:
    """The pattern of a syntax tree of `text`, checked; raises as `parse` does."""
    statements, body, encoder = tree
    bound = whole("max_blocks", max_blocks, 1)
    before = None if encoder is None else _ordered(encoder)
    pattern = Pattern(_ordered_statements(statements), _ordered(body), text, bound, before)
    _ = pattern.expansion, pattern.settings
    if pattern.encoder is not None:
        check_settings(text, pattern.statements)
        check_pair(text, pattern.encoder.expansion, pattern.expansion, bound)
    return pattern


def parse_settings(text: str) -> dict[str, Value]:
    """`rotary_pos_emb, ff_mult=2` as a dict, checked as after `set`.

    Those of one of two streams, as `enc_heads`, are taken too.

    Raises:
        PatternError: a syntax fault, an unknown name or a wrong value.
    """
    return from_arguments(parse_options(text), text, pair=True)


# Options in declaration order ------------------------------------------------------------------------------------


def _ordered_statements(statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    order = [*pair_table()]
    return tuple(
        replace(statement, arguments=_sorted(statement.arguments, order))
        if isinstance(statement, Settings)
        else Definition(statement.name, _ordered(statement.body), statement.span)
        for statement in statements
    )


def _ordered(body: Body) -> Body:
    return tuple(replace(stage, items=tuple(map(_ordered_item, stage.items))) for stage in body)


def _ordered_item(item: Item) -> Item:
    if isinstance(item, syntax.Label):
        return item
    if isinstance(item, syntax.Read):
        return replace(item, arguments=_sorted(item.arguments, [*WHICH, *JOINS, "init"]))
    if isinstance(item, syntax.Ref):
        several = len(item.arguments) > 1
        return replace(item, arguments=_sorted(item.arguments, _option_order(item.name))) if several else item
    if isinstance(item, syntax.Group):
        return replace(item, body=_ordered(item.body))
    if isinstance(item, syntax.Parallel):
        return replace(item, branches=tuple(map(_ordered_item, item.branches)))
    inner = _ordered_item(item.item)
    return item if inner is item.item else replace(item, item=inner)  # type: ignore[arg-type]


def _option_order(name: str) -> list[str]:
    if name in kinds():
        return [*kinds()[name].written_by_name]
    return [param.name for param in MACROS[name].params] if name in MACROS else []


def _sorted(arguments: tuple[Argument, ...], order: Sequence[str]) -> tuple[Argument, ...]:
    """Bare values first as they stand, then names as declared; unknown ones last, for `expand` to refuse."""
    place = {name: i for i, name in enumerate(order)}
    return tuple(sorted(arguments, key=lambda a: -1 if a.name is None else place.get(a.name, len(place))))


# Blocks back to text ---------------------------------------------------------------------------------------------


def _single(layer: str) -> str:
    """A block's canonical text, in parentheses where it would otherwise come apart in a repeat."""
    statements, body, encoder = parse_tree(layer)
    text = syntax.text_of(syntax.body_pieces(_ordered(body)))
    (name, items), *more = [(stage.name, stage.items) for stage in body]
    if statements or encoder or more or name is not None or len(items) > 1 or isinstance(items[0], syntax.Repeat):
        raise PatternError(layer, Span(0, len(layer)), "each layer is one block", "as in ['a', 'f/2', 'a & f']")
    return f"({text})" if isinstance(items[0], syntax.Parallel) else text


def _stage_of(spec: Spec) -> int:
    while isinstance(spec, ParallelSpec):
        spec = spec.branches[0][0]
    return spec.stage


def _stage_in_words(names: Sequence[str | None], number: int) -> str:
    name = names[number]
    return f"stage {number + 1}" if name is None else f"the stage '{name}'"
