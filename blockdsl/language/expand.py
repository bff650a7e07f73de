"""From syntax tree to the blocks it stands for.

Owns what the constructs mean: repeats are copied, definitions and macros replaced, group suffixes handed to the blocks
inside, ties resolved to classes, stages numbered, labels found for what reads them. `bounds` has judged names and sizes
before anything is copied; what a block's options mean for the stack is decided later, in `resolve`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ..errors import Fault, Span, shortened
from ..registry.kinds import kinds
from ..registry.options import TOO_LARGE, Value
from ..registry.reads import JOINS
from .bounds import MAX_BLOCKS, Measure
from .labels import LabelSpec, Places, read_arguments
from .macros import MACROS, values_of
from .names import written_labels
from .parse import parse_tree
from .schedules import value_of, varies
from .syntax import (
    Body,
    Definition,
    Group,
    Item,
    Label,
    Parallel,
    Read,
    Ref,
    Repeat,
    Stage,
    Statement,
    Suffixed,
)


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One block, before the stack's settings are known.

    `given` holds the options its text sets; `shift` is None where no suffix sets it; `divide` is the product
    of the divisions around it; `tie` names its class of shared parameters; `reads` has the index of the label that each
    option names which takes one; `uses` has where the definitions are used that it comes from, the outermost first.
    """

    kind: str
    given: Mapping[str, Value]
    shift: int | None
    divide: float
    tie: str | None
    stage: int
    span: Span
    reads: Mapping[str, int] = field(default_factory=dict)
    uses: tuple[Span, ...] = ()

    @property
    def sources(self) -> tuple[int, ...]:
        """The labels that it reads."""
        return tuple(self.reads.values())

    @property
    def scale(self) -> float:
        """What the branch is multiplied by before the residual add."""
        return 1 / self.divide


@dataclass(frozen=True, slots=True)
class ReadSpec:
    """A read: what the labels with the indices `sources` name joins the stream by `join`."""

    label: str
    which: str | int
    join: str
    init: float | None
    sources: tuple[int, ...]
    divide: float
    tie: str | None
    stage: int
    span: Span
    uses: tuple[Span, ...] = ()

    @property
    def scale(self) -> float:
        """What the branch is multiplied by before the residual add."""
        return 1 / self.divide


@dataclass(frozen=True, slots=True)
class ParallelSpec:
    """Branches that read the same input."""

    branches: tuple[tuple[Spec, ...], ...]
    uses: tuple[Span, ...] = ()


Spec = BlockSpec | ReadSpec | LabelSpec | ParallelSpec


@dataclass(frozen=True)
class Expansion:
    """All blocks in order, and the name of each stage (None where it has none)."""

    specs: tuple[Spec, ...]
    stages: tuple[str | None, ...]

    def blocks(self) -> Iterator[BlockSpec]:
        return (spec for spec in self.flat() if isinstance(spec, BlockSpec))

    def flat(self) -> Iterator[BlockSpec | ReadSpec | LabelSpec]:
        """All in order, branches one after another."""
        return _flat(self.specs)


def _flat(specs: Sequence[Spec]) -> Iterator[BlockSpec | ReadSpec | LabelSpec]:
    for spec in specs:
        if isinstance(spec, ParallelSpec):
            for branch in spec.branches:
                yield from _flat(branch)
        else:
            yield spec


def expand(
    statements: tuple[Statement, ...], body: Body, max_blocks: int = MAX_BLOCKS, before: Body | None = None
) -> Expansion:
    """Every block that the pattern stands for; `before`: of two streams, the one that is on the left.

    Raises:
        Fault: an unknown name or option, a wrong value, more than `max_blocks` blocks or READ_EACH times as many
            places read by `all`, a stage boundary or a label inside a parallel branch, a read of what no label names,
            or a tie of blocks that differ; it points at the text.
    """
    definitions = [statement for statement in statements if isinstance(statement, Definition)]
    measure = Measure([definition.name for definition in definitions], max_blocks)
    for definition in definitions:
        measure.define(definition)
    measure.body(body)
    known, elsewhere = ({*written_labels(definitions, each)} for each in (body, before or ()))
    labels = Places(known, max_blocks, elsewhere - known)
    return _Expander(measure.definitions, labels).run(body)


@lru_cache(maxsize=256)
def _macro_body(text: str) -> Body:
    return parse_tree(text).body


class _Group:
    """A tied group while it is expanded: its n-th block is tied to the n-th of the others."""

    def __init__(self, label: str, span: Span) -> None:
        self.label, self.span, self.count = label, span, 0


@dataclass(frozen=True)
class _Around:
    """What the groups around an item hand to the blocks inside."""

    shift: int | None = None
    divide: float = 1
    groups: tuple[_Group, ...] = ()
    branch: bool = False
    uses: tuple[Span, ...] = ()  # of definitions
    copy: tuple[int, int] | None = None  # of the innermost repeat: which of its copies this is, and of how many


_LABEL_ALONE = "a stage has a label and no block", "write blocks beside it, as in ^u a f <u"


class _Expander:
    def __init__(self, definitions: Mapping[str, Definition], labels: Places) -> None:
        self.definitions, self.labels, self.kinds = definitions, labels, kinds()
        self.stages: list[str | None] = [None]
        self.stage_empty = True
        self.tie_of: dict[tuple[str, int], tuple[str, int]] = {}  # union-find over (label, index in the group)
        self.group_sizes: dict[str, int] = {}
        self.keys: list[tuple[str, int] | None] = []  # of each block, in order
        self.known: dict[tuple[object, ...], tuple[Ref, BlockSpec]] = {}  # of blocks that all copies have alike

    def run(self, body: Body) -> Expansion:
        specs: list[Spec] = []
        self.body(body, _Around(), specs)
        if self.tie_of:
            keys = iter(self.keys)
            specs = [self._with_tie(spec, keys) for spec in specs]
            _check_ties(_flat(specs))
        if self.stage_empty:
            raise Fault(body[-1].span, *_LABEL_ALONE)
        return Expansion(tuple(specs), tuple(self.stages))

    def body(self, body: Body, around: _Around, out: list[Spec]) -> None:
        for i, stage in enumerate(body):
            self._enter(stage, bool(i), around)
            for item in stage.items:
                self.item(item, around, out)

    def _enter(self, stage: Stage, boundary: bool, around: _Around) -> None:
        if not boundary and stage.name is None:
            return
        if around.branch:
            problem = "a stage cannot start inside a parallel branch"
            raise Fault(stage.name_span, problem, "cut before or after the parallel blocks")
        if boundary and self.stage_empty:
            raise Fault(Span(stage.span.start, stage.span.start + 1), *_LABEL_ALONE)
        if boundary or not self.stage_empty:
            self.stages.append(stage.name)
        elif self.stages[-1] is not None:
            problem = f"a stage is named twice: '{self.stages[-1]}' and '{stage.name}'"
            raise Fault(stage.name_span, problem, "write each name directly before its own blocks")
        else:
            self.stages[-1] = stage.name
        self.stage_empty = True

    def item(self, item: Item, around: _Around, out: list[Spec]) -> None:
        if isinstance(item, Ref):
            self.ref(item, around, out)
        elif isinstance(item, Label):
            if around.branch:
                hint = f"it names a place of the stream; write it before or after the branches: (a & f) ^{item.name}"
                raise Fault(item.span, "a label inside a parallel branch", hint)
            out.append(self.labels.write(item, len(self.stages) - 1))
        elif isinstance(item, Read):
            self.read(item, around, out)
        elif isinstance(item, Group):
            self.body(item.body, around, out)
        elif isinstance(item, Repeat):
            for i in range(item.count):
                self.item(item.item, replace(around, copy=(i, item.count)), out)
        elif isinstance(item, Suffixed):
            self.suffixed(item, around, out)
        else:
            self.parallel(item, around, out)

    def suffixed(self, item: Suffixed, around: _Around, out: list[Spec]) -> None:
        shift = around.shift if item.shift is None else item.shift
        divide = around.divide * (1 if item.divide is None else item.divide)
        if not 1 / TOO_LARGE < divide < TOO_LARGE:
            problem = f"this divides a branch by {divide:g}"
            raise Fault(item.span, problem, "the product of all divisions must be above 1e-18 and below 1e18")
        if item.tie is None:
            self.item(item.item, replace(around, shift=shift, divide=divide), out)
            return
        tied = _Group(item.tie, item.span)
        self.item(item.item, replace(around, shift=shift, divide=divide, groups=(*around.groups, tied)), out)
        size = self.group_sizes.setdefault(item.tie, tied.count)
        if size != tied.count:
            blocks = f"{tied.count} block{'s' * (tied.count != 1)}"
            problem = f"the tie '{shortened(item.tie)}' holds {blocks} here and {size} before"
            raise Fault(item.span, problem, "tied groups have the same number of blocks")

    def parallel(self, item: Parallel, around: _Around, out: list[Spec]) -> None:
        inside = replace(around, branch=True)
        branches = []
        for branch in item.branches:
            specs: list[Spec] = []
            self.item(branch, inside, specs)
            branches.append(tuple(specs))
        out.append(ParallelSpec(tuple(branches), around.uses))
        self.labels.here.clear()

    def ref(self, ref: Ref, around: _Around, out: list[Spec]) -> None:
        if ref.name in self.definitions:
            self.body(self.definitions[ref.name].body, replace(around, uses=(*around.uses, ref.span)), out)
        elif ref.name in MACROS:
            macro = MACROS[ref.name]
            text = macro.text(**values_of(macro, ref))
            self.body(_at(_macro_body(text), ref.span), around, out)
        else:
            self.block(ref, around, out)

    def block(self, ref: Ref, around: _Around, out: list[Spec]) -> None:
        stage = self._placed(around)
        if around.copy is None:
            out.append(self._block(ref, around, stage)[0])
            return
        place = id(ref), around.shift, around.divide, around.uses, stage
        if place not in self.known:
            spec, alike = self._block(ref, around, stage)
            if not alike:
                out.append(spec)
                return
            self.known[place] = ref, spec  # the ref too, whose id no other gets while it is kept
        out.append(self.known[place][1])

    def _block(self, ref: Ref, around: _Around, stage: int) -> tuple[BlockSpec, bool]:
        """A block, and whether each copy of it is the same one."""
        if not ref.arguments:
            return BlockSpec(ref.name, {}, around.shift, around.divide, None, stage, ref.span, {}, around.uses), True
        kind = self.kinds[ref.name]
        said = [(kind.written_by_name[a.name], a) for a in ref.arguments if a.name is not None]
        given = {option.name: value_of(option, argument, around.copy) for option, argument in said}
        reads = {}
        for option, argument in said:
            if option.reads:
                label = given[option.name]
                assert isinstance(label, str)
                (reads[option.name],) = self.labels.find(label, "latest", argument.span)
        own = (ref.name, given, around.shift, around.divide, None, stage, ref.span, reads)
        alike = not reads and not any(varies(option, argument.value) for option, argument in said)
        return BlockSpec(*own, around.uses), alike

    def read(self, read: Read, around: _Around, out: list[Spec]) -> None:
        which, join, init = read_arguments(read)
        sources = self.labels.find(read.name, which, read.span)
        stage = self._placed(around)
        own = (read.name, which, join.name, init, sources, around.divide, None, stage, read.span)
        out.append(ReadSpec(*own, around.uses))

    def _placed(self, around: _Around) -> int:
        """Note that a block or a read stands here; returns its stage."""
        keys = [(tied.label, tied.count) for tied in around.groups]
        for tied in around.groups:
            tied.count += 1
        for key in keys:
            self.tie_of.setdefault(key, key)
        for key in keys:
            self.tie_of[self._root(key)] = self._root(keys[-1])
        self.keys.append(keys[-1] if keys else None)
        self.stage_empty = False
        self.labels.here.clear()
        return len(self.stages) - 1

    def _root(self, key: tuple[str, int]) -> tuple[str, int]:
        while (parent := self.tie_of[key]) != key:
            self.tie_of[key] = self.tie_of[parent]  # halves the path, so that long chains stay quick
            key = parent
        return key

    def _with_tie(self, spec: Spec, keys: Iterator[tuple[str, int] | None]) -> Spec:
        if isinstance(spec, ParallelSpec):
            branches = (tuple(self._with_tie(inner, keys) for inner in branch) for branch in spec.branches)
            return ParallelSpec(tuple(branches), spec.uses)
        if isinstance(spec, LabelSpec):
            return spec
        key = next(keys)
        if key is None:
            return spec
        label, index = self._root(key)
        tie = label if self.group_sizes[label] == 1 else f"{label}.{index}"
        return replace(spec, tie=tie)


def _at(body: Body, span: Span) -> Body:
    """A macro's body, with everything in it said to stand at the macro's call."""
    return tuple(Stage(stage.name, tuple(_item_at(item, span) for item in stage.items), span) for stage in body)


def _item_at(item: Item, span: Span) -> Item:
    if isinstance(item, Ref | Label | Read):
        return replace(item, span=span)
    if isinstance(item, Group):
        return Group(_at(item.body, span), span)
    if isinstance(item, Repeat):
        inner = _item_at(item.item, span)
        assert isinstance(inner, Ref | Read | Group | Suffixed)
        return Repeat(inner, item.count, span)
    if isinstance(item, Suffixed):
        within = _item_at(item.item, span)
        assert isinstance(within, Ref | Read | Group)
        return Suffixed(within, item.shift, item.divide, item.tie, span)
    return Parallel(tuple(_item_at(branch, span) for branch in item.branches), span)


def _check_ties(specs: Iterator[BlockSpec | ReadSpec | LabelSpec]) -> None:
    first: dict[str, BlockSpec | ReadSpec] = {}
    for spec in specs:
        if isinstance(spec, LabelSpec) or spec.tie is None:
            continue
        other = first.setdefault(spec.tie, spec)
        ours, theirs = (each.kind if isinstance(each, BlockSpec) else "a read" for each in (spec, other))
        if ours != theirs:
            ours, theirs = (word if word == "a read" else f"'{word}'" for word in (ours, theirs))
            problem = f"{tie_in_words(spec.tie)} is {ours} here and {theirs} before"
            raise Fault(spec.span, problem, "tied blocks are the same kind with the same options")
        if isinstance(spec, ReadSpec) and isinstance(other, ReadSpec):
            if (spec.join, spec.init) != (other.join, other.init):
                problem = f"{tie_in_words(spec.tie)} joins the stream in another way here than before"
                raise Fault(spec.span, problem, "tied reads are written alike")
            if len(spec.sources) != len(other.sources) and JOINS[spec.join].shapes(1, 1):
                problem = (
                    f"{tie_in_words(spec.tie)} reads {len(spec.sources)} values here and {len(other.sources)} before"
                )
                raise Fault(spec.span, problem, "its parameters are as many as the values; tied reads read as many")


def tie_in_words(tie: str) -> str:
    """A class of shared parameters as messages name it."""
    label, _, index = tie.partition(".")
    return f"block {int(index) + 1} of the tie '{shortened(label)}'" if index else f"the tie '{shortened(label)}'"
