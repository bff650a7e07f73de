"""Blocks back to text, their repeats folded: `expand`, the other way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..registry.reads import JOINS
from . import syntax
from .expand import BlockSpec, Expansion, ParallelSpec, ReadSpec, Spec
from .fold import Folded, fold
from .labels import LabelSpec
from .syntax import Argument, Body, Item


def is_name(word: str) -> bool:
    """Whether the language takes it as a name."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", word) is not None


@dataclass(frozen=True)
class Ties:
    """How a text says which blocks share parameters.

    Attributes:
        labels: class of shared parameters → the label of its blocks.
        groups: name of a tied group, whose n-th block has the class `name.n` → its label.
        sizes: name of a tied group → how many blocks it has.
    """

    labels: Mapping[str, str]
    groups: Mapping[str, str]
    sizes: Mapping[str, int]


def ties_of(chains: Sequence[Sequence[Spec]], taken: Collection[str] = ()) -> Ties:
    """Of all blocks in these chains; no label is one of `taken`. A group is one if it is whole everywhere."""
    counts = Counter(tie for chain in chains for tie in _ties(chain) if tie is not None)
    sizes = Counter(_group(tie) for tie in counts if _group(tie))
    inside = Counter(tie for chain in chains for group in _tied_groups(chain, sizes) for tie in _ties(group))
    broken = {_group(tie) for tie, count in counts.items() if inside[tie] != count}
    whole = {name: size for name, size in sizes.items() if name not in broken}
    names = [*whole, *sorted((tie for tie in counts if _group(tie) not in whole), key=lambda tie: ("." in tie, tie))]
    labels: dict[str, str] = {}
    for name in names:
        label = re.sub(r"\W", "_", name, flags=re.ASCII)  # `x.0` is no name
        label = label if is_name(label) else f"t{label}"
        while label in (*labels.values(), *taken):
            label += "_"
        labels[name] = label
    groups = {name: labels.pop(name) for name in whole}
    return Ties(labels, groups, whole)


def _group(tie: str) -> str:
    """The name of the tied group that a class of shared parameters is of, or nothing."""
    name, _, index = tie.rpartition(".")
    return name if index.isdecimal() else ""


def _ties(specs: Iterable[Spec]) -> Iterator[str | None]:
    return (spec.tie for spec in Expansion(tuple(specs), ()).flat() if not isinstance(spec, LabelSpec))


def _tied_groups(chain: Sequence[Spec], sizes: Mapping[str, int]) -> Iterator[Sequence[Spec]]:
    """The tied groups that stand in a chain and in its branches."""
    at = 0
    while at < len(chain):
        spec = chain[at]
        if length := _group_at(chain, at, sizes):
            yield chain[at : at + length]
        elif isinstance(spec, ParallelSpec):
            for branch in spec.branches:
                yield from _tied_groups(branch, sizes)
        at += length or 1


def _group_at(chain: Sequence[Spec], at: int, sizes: Mapping[str, int]) -> int:
    """How many items from here on are the blocks of a tied group, one after another; 0: they are none."""
    first = next(_ties(chain[at : at + 1]), None)
    name = "" if first is None else _group(first)
    wanted = [f"{name}.{i}" for i in range(sizes.get(name, 0))]
    found: list[str | None] = []
    for length, spec in enumerate(chain[at:] if wanted else (), start=1):
        found += _ties([spec])
        if found == wanted:
            return length
        if found != wanted[: len(found)]:
            break
    return 0


def body_of(specs: Sequence[Spec], ties: Ties, name: str | None = None) -> Body:
    """Blocks as a stage, with their repeats folded."""
    items: list[Item] = []
    at = 0
    while at < len(specs):
        if length := _group_at(specs, at, ties.sizes):
            items.append(_tied(specs[at : at + length], ties))
        else:
            items.append(_item_of(specs[at], ties))
        at += length or 1
    widths = [len(syntax.text_of(syntax.body_pieces(_stage(item)))) for item in items]
    return _stage(*_unfolded(fold(items, widths.__getitem__), items), name=name)


def _tied(specs: Sequence[Spec], ties: Ties) -> Item:
    """A tied group; what is in it has no label of its own."""
    first = next(tie for tie in _ties(specs) if tie is not None)
    group = syntax.group(body_of([_untied(spec) for spec in specs], ties))
    return syntax.suffixed(group, None, None, ties.groups[_group(first)])


def _untied(spec: Spec) -> Spec:
    if isinstance(spec, ParallelSpec):
        return ParallelSpec(tuple(tuple(map(_untied, branch)) for branch in spec.branches))
    return spec if isinstance(spec, LabelSpec) else replace(spec, tie=None)


def _unfolded(folded: Folded, items: Sequence[Item]) -> Iterator[Item]:
    for part in folded:
        if isinstance(part, int):
            yield items[part]
        else:
            unit = syntax.group(_stage(*_unfolded(part.body, items)))
            assert isinstance(unit, syntax.Ref | syntax.Read | syntax.Group | syntax.Suffixed)
            yield syntax.Repeat(unit, part.count)


def _stage(*items: Item, name: str | None = None) -> Body:
    return (syntax.Stage(name, items),)


def _item_of(spec: Spec, ties: Ties) -> Item:
    if isinstance(spec, ParallelSpec):
        return syntax.parallel([syntax.group(body_of(branch, ties)) for branch in spec.branches])
    if isinstance(spec, LabelSpec):
        return syntax.Label(spec.name)
    ref = _read_of(spec) if isinstance(spec, ReadSpec) else _ref_of(spec)
    divide = None if spec.divide == 1 else spec.divide
    shift = spec.shift if isinstance(spec, BlockSpec) else None
    return syntax.suffixed(ref, shift, divide, None if spec.tie is None else ties.labels[spec.tie])


def _ref_of(spec: BlockSpec) -> syntax.Ref:
    return syntax.Ref(spec.kind, tuple(Argument(name, value) for name, value in spec.given.items()))


def _read_of(spec: ReadSpec) -> syntax.Read:
    which = [] if spec.which == "latest" else [_word(spec.which)]
    join = [] if spec.join == "add" else [_word(spec.join)]
    init = [] if spec.init == JOINS[spec.join].init else [Argument("init", spec.init)]
    return syntax.Read(spec.label, (*which, *join, *init))


def _word(word: str | int) -> Argument:
    return Argument(word, True) if isinstance(word, str) else Argument(None, word)
