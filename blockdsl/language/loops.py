"""How often a tied unit is repeated, in a pattern's text: `(a f)@core*8` with another number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .pattern import Pattern, parse
from .syntax import Body, Group, Item, Parallel, Repeat, Stage, Suffixed

Write = Callable[[Item, Item, str, int], Item]
"""An item, the same with what is inside written anew, a label, a count → what stands there."""


def with_count(pattern: Pattern, label: str, count: int) -> Pattern:
    """The pattern with another number at the innermost repeat of the unit tied as `label`, or with a repeat around it.

    It is the same pattern where the label stands in a definition.
    """
    for write in (_recount, _repeat):
        bodies = [None if body is None else _body(body, label, count, write) for body in _bodies(pattern)]
        if bodies != _bodies(pattern):
            encoder, own = bodies
            assert own is not None
            return parse(str(Pattern(pattern.statements, own, "", pattern.max_blocks, encoder)))
    return pattern


def _bodies(pattern: Pattern) -> list[Body | None]:
    return [pattern.encoder_body, pattern.body]


def _body(body: Body, label: str, count: int, write: Write) -> Body:
    out: list[Stage] = []
    for stage in body:
        items = tuple(_item(item, label, count, write) for item in stage.items)
        out.append(replace(stage, items=items))
    return tuple(out)


def _recount(item: Item, inner: Item, label: str, count: int) -> Item:
    """A repeat with another number, if the unit is in it and in no repeat inside."""
    if isinstance(item, Repeat) and inner == item and _holds(item, label):
        return replace(item, count=count)
    return inner


def _repeat(item: Item, inner: Item, label: str, count: int) -> Item:
    """A repeat of the unit itself."""
    return Repeat(item, count, item.span) if isinstance(item, Suffixed) and item.tie == label else inner


def _item(item: Item, label: str, count: int, write: Write) -> Item:
    inner: Item = item
    if isinstance(item, Group):
        inner = replace(item, body=_body(item.body, label, count, write))
    elif isinstance(item, Parallel):
        inner = replace(item, branches=tuple(_item(branch, label, count, write) for branch in item.branches))
    elif isinstance(item, Repeat | Suffixed):
        inner = replace(item, item=_item(item.item, label, count, write))  # type: ignore[arg-type]
    return write(item, inner, label, count)


def _holds(item: Item, label: str) -> bool:
    if isinstance(item, Suffixed) and item.tie == label:
        return True
    if isinstance(item, Group):
        return any(_holds(each, label) for stage in item.body for each in stage.items)
    if isinstance(item, Parallel):
        return any(_holds(branch, label) for branch in item.branches)
    return isinstance(item, Repeat | Suffixed) and _holds(item.item, label)
