"""From syntax tree to the blocks it stands for.

Owns what the constructs mean: repeats are copied, definitions and macros replaced, group suffixes handed to
the blocks inside, ties resolved to classes, stages numbered. How many blocks that makes is measured before
anything is copied. What a block's options mean for the stack is decided later, in `resolve`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from .errors import Fault, Span, did_you_mean
from .kinds import Kind, kinds
from .macros import MACROS, values_of
from .options import Value, by_name, spell
from .parse import MAX_NESTING, parse_tree
from .syntax import Body, Definition, Group, Item, Parallel, Ref, Repeat, Settings, Stage, Statement, Suffixed

MAX_BLOCKS = 10_000  # unless the caller raises it


@dataclass(frozen=True, slots=True)
class Unit:
    """One block, before the stack's settings are known.

    `given` holds the options its text sets; `shift` is None where no suffix sets it; `scale` is the product
    of the divisions around it; `tie` names its class of shared parameters.
    """

    kind: str
    given: Mapping[str, Value]
    shift: int | None
    scale: float
    tie: str | None
    stage: int
    span: Span
    option_spans: Mapping[str, Span] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Fork:
    """Branches that read the same input."""

    branches: tuple[tuple[Step, ...], ...]


Step = Unit | Fork


@dataclass(frozen=True)
class Expansion:
    """All blocks in order, and the name of each stage (None where it has none)."""

    steps: tuple[Step, ...]
    stages: tuple[str | None, ...]

    def units(self) -> Iterator[Unit]:
        return _units(self.steps)


def _units(steps: tuple[Step, ...]) -> Iterator[Unit]:
    for step in steps:
        if isinstance(step, Unit):
            yield step
        else:
            for branch in step.branches:
                yield from _units(branch)


def expand(statements: tuple[Statement, ...], body: Body, max_blocks: int = MAX_BLOCKS) -> Expansion:
    """Every block that the pattern stands for.

    Raises:
        Fault: an unknown name or option, a wrong value, more than `max_blocks` blocks, a stage boundary inside
            a parallel branch, or a tie of blocks that differ; it points at the text.
    """
    definitions = _definitions(statements, max_blocks)
    measure = _Measure(definitions, max_blocks)
    measure.body(body)
    return _Expander(definitions).run(body)


def _definitions(statements: tuple[Statement, ...], max_blocks: int) -> dict[str, Definition]:
    """Definitions by name, each checked against those above it."""
    known: dict[str, Definition] = {}
    depths: dict[str, int] = {}
    for statement in statements:
        if isinstance(statement, Settings):
            continue
        name = statement.name
        where = Span(statement.span.start, statement.span.start + len(name))
        if name in kinds() or name in MACROS:
            what = "a block kind" if name in kinds() else "a macro"
            raise Fault(where, f"'{name}' is {what} and cannot be defined", "choose another name")
        if name in known:
            raise Fault(where, f"'{name}' is defined twice")
        depths[name] = 1 + max((depths.get(ref.name, 0) for ref in _refs(statement.body)), default=0)
        if depths[name] > MAX_NESTING:
            raise Fault(where, f"more than {MAX_NESTING} definitions are nested in '{name}'")
        _Measure(known, max_blocks).body(statement.body)
        known[name] = statement
    return known


def _refs(body: Body) -> Iterator[Ref]:
    for stage in body:
        for item in stage.items:
            yield from _refs_of(item)


def _refs_of(item: Item) -> Iterator[Ref]:
    if isinstance(item, Ref):
        yield item
    elif isinstance(item, Group):
        yield from _refs(item.body)
    elif isinstance(item, Parallel):
        for branch in item.branches:
            yield from _refs_of(branch)
    else:
        yield from _refs_of(item.item)


@lru_cache(maxsize=256)
def _macro_body(text: str) -> Body:
    return parse_tree(text)[1]


def unused(statements: tuple[Statement, ...], body: Body) -> list[Definition]:
    """Definitions that nothing uses."""
    bodies = [statement.body for statement in statements if isinstance(statement, Definition)]
    used = {ref.name for each in [*bodies, body] for ref in _refs(each)}
    return [s for s in statements if isinstance(s, Definition) and s.name not in used]


class _Measure:
    """Counts blocks without making them, and judges every name and option on the way."""

    def __init__(self, definitions: Mapping[str, Definition], max_blocks: int) -> None:
        self.definitions, self.max_blocks = definitions, max_blocks
        self.sizes: dict[str, int] = {}

    def body(self, body: Body) -> int:
        total = 0
        names = [stage.name for stage in body if stage.name is not None]
        for stage in body:
            if stage.name is not None and names.count(stage.name) > 1:
                raise Fault(stage.span, f"two stages are named '{stage.name}'")
            for item in stage.items:
                total = self._bounded(total + self.item(item), item.span)
        return total

    def item(self, item: Item) -> int:
        if isinstance(item, Ref):
            return self._bounded(self.ref(item), item.span)
        if isinstance(item, Group):
            return self.body(item.body)
        if isinstance(item, Parallel):
            return self._bounded(sum(map(self.item, item.branches)), item.span)
        if isinstance(item, Repeat):
            return self._bounded(self.item(item.item) * item.count, item.span)
        return self.item(item.item)

    def ref(self, ref: Ref) -> int:
        if ref.name in kinds():
            check_arguments(kinds()[ref.name], ref)
            return 1
        if ref.name in MACROS:
            return MACROS[ref.name].size(**values_of(MACROS[ref.name], ref))
        if ref.name in self.definitions:
            if ref.arguments:
                raise Fault(ref.arguments[0].span, f"'{ref.name}' is a definition and takes no options")
            if ref.name not in self.sizes:
                self.sizes[ref.name] = self.body(self.definitions[ref.name].body)
            return self.sizes[ref.name]
        raise self._unknown(ref)

    def _bounded(self, size: int, span: Span) -> int:
        if size > self.max_blocks:
            shown = f"{size:,}" if size < 10**15 else "far more"
            raise Fault(
                span, f"this makes {shown} blocks; the bound is {self.max_blocks:,}", "raise it with max_blocks"
            )
        return size

    def _unknown(self, ref: Ref) -> Fault:
        words = {word: kind.name for kind in kinds().values() for word in (kind.name, *kind.also)}
        words |= {name: name for name in (*MACROS, *self.definitions)}
        found = did_you_mean(ref.name, words)
        if found:
            name = words[found.split("'")[1]]
            title = f" ({kinds()[name].title})" if name in kinds() else ""
            found = f"did you mean '{name}'{title}? "
        listed = f"kinds: {', '.join(sorted(kinds()))}; macros: {', '.join(sorted(MACROS))}"
        if self.definitions:
            listed += f"; defined above: {', '.join(sorted(self.definitions))}"
        return Fault(
            Span(ref.span.start, ref.span.start + len(ref.name)), f"unknown block '{ref.name}'", found + listed
        )


def check_arguments(kind: Kind, ref: Ref) -> None:
    """Judge a block's options against its kind's declarations."""
    known = by_name(kind.all_options())
    seen: set[str] = set()
    for argument in ref.arguments:
        name = argument.name
        if name is None:
            first = kind.options[0].name if kind.options else "name"
            hint = f"write {kind.name}({first}={spell(argument.value)}); a bare value is for macros only"
            raise Fault(argument.span, "an option needs a name", hint)
        if name not in known:
            raise Fault(argument.span, f"'{kind.name}' ({kind.title}) has no option '{name}'", _option_hint(kind, name))
        if name in seen:
            raise Fault(argument.span, f"the option '{name}' is given twice")
        seen.add(name)
        if fault := known[name].fault(argument.value):
            raise Fault(argument.span, f"{name} {fault}", known[name].doc)


def _option_hint(kind: Kind, name: str) -> str:
    known = by_name(kind.all_options())
    if kind.prefix and name.startswith(kind.prefix + "_") and name[len(kind.prefix) + 1 :] in known:
        return f"did you mean '{name[len(kind.prefix) + 1 :]}'? inside a block the prefix is left out"
    others = [other for other in kinds().values() if name in by_name(other.all_options())]
    if others:
        return f"'{name}' is an option of " + ", ".join(f"'{other.name}' ({other.title})" for other in others)
    suffixes = {
        "shift_tokens": ">>, as in a>>1",
        "shift": ">>, as in a>>1",
        "scale": "/, as in f/2",
        "tie": "@, as in a@x",
    }
    if name in suffixes:
        return f"written with the suffix {suffixes[name]}"
    return did_you_mean(name, known) or f"options: {', '.join(known)}"


class _Group:
    """A tied group while it is expanded: its n-th block is tied to the n-th of the others."""

    def __init__(self, label: str, span: Span) -> None:
        self.label, self.span, self.count = label, span, 0


@dataclass(frozen=True)
class _Around:
    """What the groups around an item hand to the blocks inside."""

    shift: int | None = None
    scale: float = 1.0
    groups: tuple[_Group, ...] = ()
    branch: bool = False


class _Expander:
    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        self.definitions = definitions
        self.stages: list[str | None] = [None]
        self.stage_empty = True
        self.tie_of: dict[tuple[str, int], tuple[str, int]] = {}  # union-find over (label, index in the group)
        self.group_sizes: dict[str, int] = {}
        self.keys: list[tuple[str, int] | None] = []  # of each unit, in order

    def run(self, body: Body) -> Expansion:
        steps: list[Step] = []
        self.body(body, _Around(), steps)
        keys = iter(self.keys)
        tied = tuple(self._with_tie(step, keys) for step in steps)
        _check_ties(_units(tied))
        return Expansion(tied, tuple(self.stages))

    def body(self, body: Body, around: _Around, out: list[Step]) -> None:
        for i, stage in enumerate(body):
            self._enter(stage, bool(i), around)
            for item in stage.items:
                self.item(item, around, out)

    def _enter(self, stage: Stage, boundary: bool, around: _Around) -> None:
        if not boundary and stage.name is None:
            return
        if around.branch:
            raise Fault(stage.span, "a stage cannot start inside a parallel branch", "cut before or after the '&'")
        if boundary or not self.stage_empty:
            self.stages.append(stage.name)
        elif self.stages[-1] is not None:
            raise Fault(stage.span, f"a stage is named twice: '{self.stages[-1]}' and '{stage.name}'")
        else:
            self.stages[-1] = stage.name
        self.stage_empty = True

    def item(self, item: Item, around: _Around, out: list[Step]) -> None:
        if isinstance(item, Ref):
            self.ref(item, around, out)
        elif isinstance(item, Group):
            self.body(item.body, around, out)
        elif isinstance(item, Repeat):
            for _ in range(item.count):
                self.item(item.item, around, out)
        elif isinstance(item, Suffixed):
            self.suffixed(item, around, out)
        else:
            self.parallel(item, around, out)

    def suffixed(self, item: Suffixed, around: _Around, out: list[Step]) -> None:
        shift = around.shift if item.shift is None else item.shift
        scale = around.scale / (item.divide or 1)
        if item.tie is None:
            self.item(item.item, _Around(shift, scale, around.groups, around.branch), out)
            return
        tied = _Group(item.tie, item.span)
        self.item(item.item, _Around(shift, scale, (*around.groups, tied), around.branch), out)
        size = self.group_sizes.setdefault(item.tie, tied.count)
        if size != tied.count:
            problem = f"the tie '{item.tie}' holds {tied.count} blocks here and {size} before"
            raise Fault(item.span, problem, "tied groups have the same number of blocks")

    def parallel(self, item: Parallel, around: _Around, out: list[Step]) -> None:
        inside = _Around(around.shift, around.scale, around.groups, branch=True)
        branches = []
        for branch in item.branches:
            steps: list[Step] = []
            self.item(branch, inside, steps)
            branches.append(tuple(steps))
        out.append(Fork(tuple(branches)))

    def ref(self, ref: Ref, around: _Around, out: list[Step]) -> None:
        if ref.name in self.definitions:
            self.body(self.definitions[ref.name].body, around, out)
        elif ref.name in MACROS:
            macro = MACROS[ref.name]
            text = macro.text(**values_of(macro, ref))
            self.body(_at(_macro_body(text), ref.span), around, out)
        else:
            self.unit(ref, around, out)

    def unit(self, ref: Ref, around: _Around, out: list[Step]) -> None:
        keys = []
        for tied in around.groups:
            keys.append((tied.label, tied.count))
            tied.count += 1
        for key in keys:
            self.tie_of.setdefault(key, key)
            self.tie_of[self._root(key)] = self._root(keys[-1])
        self.keys.append(keys[-1] if keys else None)
        self.stage_empty = False
        given = {argument.name: argument.value for argument in ref.arguments if argument.name is not None}
        spans = {argument.name: argument.span for argument in ref.arguments if argument.name is not None}
        stage = len(self.stages) - 1
        out.append(Unit(ref.name, given, around.shift, around.scale, None, stage, ref.span, spans))

    def _root(self, key: tuple[str, int]) -> tuple[str, int]:
        while self.tie_of[key] != key:
            key = self.tie_of[key]
        return key

    def _with_tie(self, step: Step, keys: Iterator[tuple[str, int] | None]) -> Step:
        if isinstance(step, Fork):
            return Fork(tuple(tuple(self._with_tie(inner, keys) for inner in branch) for branch in step.branches))
        key = next(keys)
        if key is None:
            return step
        label, index = self._root(key)
        tie = label if self.group_sizes[label] == 1 else f"{label}.{index}"
        return Unit(step.kind, step.given, step.shift, step.scale, tie, step.stage, step.span, step.option_spans)


def _at(body: Body, span: Span) -> Body:
    """A macro's body, with everything in it said to stand at the macro's call."""
    return tuple(Stage(stage.name, tuple(_item_at(item, span) for item in stage.items), span) for stage in body)


def _item_at(item: Item, span: Span) -> Item:
    if isinstance(item, Ref):
        return Ref(item.name, item.arguments, span)
    if isinstance(item, Group):
        return Group(_at(item.body, span), span)
    if isinstance(item, Repeat):
        inner = _item_at(item.item, span)
        assert isinstance(inner, Ref | Group | Suffixed)
        return Repeat(inner, item.count, span)
    if isinstance(item, Suffixed):
        within = _item_at(item.item, span)
        assert isinstance(within, Ref | Group)
        return Suffixed(within, item.shift, item.divide, item.tie, span)
    return Parallel(tuple(_item_at(branch, span) for branch in item.branches), span)


def _check_ties(units: Iterator[Unit]) -> None:
    first: dict[str, Unit] = {}
    for unit in units:
        if unit.tie is None:
            continue
        other = first.setdefault(unit.tie, unit)
        if other.kind != unit.kind:
            problem = f"the tie '{unit.tie}' is a '{unit.kind}' here and a '{other.kind}' before"
            raise Fault(unit.span, problem, "tied blocks are the same kind with the same options")
