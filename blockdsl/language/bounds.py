"""How many blocks a text makes and how deep it is nested, with every name and option judged, before any is made."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ..errors import Fault, Span, shortened
from ..registry.kinds import kinds
from .block_options import check_arguments
from .labels import read_arguments
from .macros import MACROS, values_of
from .names import leaves_of, unknown_block
from .parse import MAX_NESTING
from .syntax import Body, Definition, Group, Item, Label, Parallel, Read, Ref, Repeat, Statement

MAX_BLOCKS = 10_000  # unless the caller raises it


class Measure:
    """Counts blocks and nesting without making anything, and judges every name and option on the way.

    Definitions count as groups where they are used: nesting is bounded as a whole, so that what recurses over
    a pattern later stays within the interpreter's stack.
    """

    def __init__(self, names: Collection[str], max_blocks: int) -> None:
        self.names, self.max_blocks = names, max_blocks  # names: all that the text defines, above or below
        self.definitions: dict[str, Definition] = {}
        self.sizes: dict[str, tuple[int, int]] = {}  # of each definition: blocks, and how deep it is nested
        self.deepest = 0
        self.kinds = kinds()

    def define(self, definition: Definition) -> None:
        """Make a definition known to what is measured after it."""
        name = definition.name
        where = Span(definition.span.start, definition.span.start + len(name))
        if name in kinds() or name in MACROS:
            what = "a block kind" if name in kinds() else "a macro"
            raise Fault(where, f"'{name}' is {what} and cannot be defined", "choose another name")
        if name in self.definitions:
            raise Fault(where, f"'{shortened(name)}' is defined twice", "choose another name")
        self.deepest = 0
        self.sizes[name] = self.body(definition.body), self.deepest
        self.definitions[name] = definition

    def body(self, body: Body, level: int = 0) -> int:
        total = 0
        names: set[str] = set()
        for stage in body:
            if stage.name in names:
                raise Fault(stage.name_span, f"two stages are named '{shortened(stage.name)}'", "choose another name")
            if stage.name is not None:
                names.add(stage.name)
            for item in stage.items:
                total = self._bounded(total + self.item(item, level), item.span, "up to here there are")
        return total

    def item(self, item: Item, level: int) -> int:
        if isinstance(item, Label):
            return 0
        if isinstance(item, Read):
            read_arguments(item)
            return 1
        if isinstance(item, Ref):
            return self._bounded(self.ref(item, level), item.span)
        if isinstance(item, Group):
            self._nested(level + 1, item.span)
            return self.body(item.body, level + 1)
        if isinstance(item, Parallel):
            return self._bounded(sum(self.item(branch, level) for branch in item.branches), item.span)
        size = self.item(item.item, level)
        if not size:  # labels alone
            raise Fault(item.span, "there is no block here, only a label", "as in (a ^u)*6")
        return self._bounded(size * item.count if isinstance(item, Repeat) else size, item.span)

    def ref(self, ref: Ref, level: int) -> int:
        if ref.name in self.kinds:
            check_arguments(self.kinds[ref.name], ref)
            return 1
        if ref.name in MACROS:
            return MACROS[ref.name].size(**values_of(MACROS[ref.name], ref))
        if ref.name in self.definitions:
            if ref.arguments:
                problem = f"'{shortened(ref.name)}' is a definition and takes no options"
                raise Fault(ref.arguments[0].span, problem, "write them at its blocks, where it is defined")
            size, depth = self.sizes[ref.name]
            self._nested(level + 1 + depth, ref.span)
            return size
        if ref.name in self.names:
            where = Span(ref.span.start, ref.span.start + len(ref.name))
            problem = f"'{shortened(ref.name)}' is used above its definition or inside it"
            raise Fault(where, problem, "use a definition only below it")
        raise unknown_block(ref, self.definitions)

    def _nested(self, level: int, span: Span) -> None:
        self.deepest = max(self.deepest, level)
        if level > MAX_NESTING:
            raise Fault(span, f"more than {MAX_NESTING} groups and definitions are nested here", "nest less deeply")

    def _bounded(self, size: int, span: Span, what: str = "this makes") -> int:
        if size > self.max_blocks:
            shown = f"{size:,}" if size < 10**15 else "far more"
            problem = f"{what} {shown} blocks; the limit is {self.max_blocks:,}"
            raise Fault(span, problem, "in Python, parse(text, max_blocks=...) raises it")
        return size


def name_faults(statements: tuple[Statement, ...], *bodies: Body) -> Iterator[Fault]:
    """What is wrong with each name and option by itself, where `Measure` stops at the first."""
    definitions = [statement for statement in statements if isinstance(statement, Definition)]
    measure = Measure([definition.name for definition in definitions], MAX_BLOCKS)
    for definition in definitions:
        inside = [*_leaf_faults(measure, definition.body)]
        yield from inside
        try:
            measure.define(definition)
        except Fault as fault:
            if not inside:
                yield fault
            measure.definitions.setdefault(definition.name, definition)  # so that its uses are no faults too
            measure.sizes.setdefault(definition.name, (1, 0))
    for body in bodies:
        yield from _leaf_faults(measure, body)


def _leaf_faults(measure: Measure, body: Body) -> Iterator[Fault]:
    for leaf in leaves_of(body):
        if fault := _fault_of(measure, leaf):
            alone: list[Ref] = []
            if isinstance(leaf, Ref) and leaf.name in kinds():  # arguments of a macro make sense together
                alone = [replace(leaf, arguments=(argument,)) for argument in leaf.arguments]
            yield from [found for one in alone if (found := _fault_of(measure, one))] or [fault]


def _fault_of(measure: Measure, leaf: Ref | Label | Read) -> Fault | None:
    try:
        measure.item(leaf, 0)
    except Fault as fault:
        return fault
    return None
