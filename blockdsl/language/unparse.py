"""Blocks back to text, their repeats folded: `expand`, the other way."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..registry.reads import JOINS
from . import syntax
from .expand import BlockSpec, ParallelSpec, ReadSpec, Spec
from .fold import Folded, fold
from .labels import LabelSpec
from .syntax import Argument, Body, Item


def is_name(word: str) -> bool:
    """Whether the language takes it as a name."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", word) is not None


def tie_labels(ties: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Each class of shared parameters → its label, none of `taken`; `x.0`, of a group's first block, is no name."""
    out: dict[str, str] = {}
    for tie in sorted(set(ties), key=lambda tie: ("." in tie, tie)):
        label = re.sub(r"\W", "_", tie, flags=re.ASCII)
        label = label if is_name(label) else f"t{label}"
        while label in (*out.values(), *taken):
            label += "_"
        out[tie] = label
    return out


def body_of(specs: Sequence[Spec], labels: Mapping[str, str], name: str | None = None) -> Body:
    """Blocks as a stage, with their repeats folded."""
    items = [_item_of(spec, labels) for spec in specs]
    widths = [len(syntax.text_of(syntax.body_pieces(_stage(item)))) for item in items]
    return _stage(*_unfolded(fold(items, widths.__getitem__), items), name=name)


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


def _item_of(spec: Spec, labels: Mapping[str, str]) -> Item:
    if isinstance(spec, ParallelSpec):
        return syntax.parallel([syntax.group(body_of(branch, labels)) for branch in spec.branches])
    if isinstance(spec, LabelSpec):
        return syntax.Label(spec.name)
    ref = _read_of(spec) if isinstance(spec, ReadSpec) else _ref_of(spec)
    divide = None if spec.divide == 1 else spec.divide
    shift = spec.shift if isinstance(spec, BlockSpec) else None
    return syntax.suffixed(ref, shift, divide, None if spec.tie is None else labels[spec.tie])


def _ref_of(spec: BlockSpec) -> syntax.Ref:
    return syntax.Ref(spec.kind, tuple(Argument(name, value) for name, value in spec.given.items()))


def _read_of(spec: ReadSpec) -> syntax.Read:
    which = [] if spec.which == "latest" else [_word(spec.which)]
    join = [] if spec.join == "add" else [_word(spec.join)]
    init = [] if spec.init == JOINS[spec.join].init else [Argument("init", spec.init)]
    return syntax.Read(spec.label, (*which, *join, *init))


def _word(word: str | int) -> Argument:
    return Argument(word, True) if isinstance(word, str) else Argument(None, word)
