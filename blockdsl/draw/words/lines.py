"""The lines under a block's title: the facts that its kind names, and those options that nothing else says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...registry.content import by_content
from ...registry.kinds import Kind, kind_of
from ...registry.options import by_name
from .captions import Captions
from .header import block_words, opened_words
from .said import said, told_of, unsaid

if TYPE_CHECKING:
    from ...graph.graph import Graph


def facts(graph: Graph, node: str) -> tuple[str, ...]:
    """What a block's kind names of its options: `8 heads × 64`, `GELU 2048`."""
    attrs = graph.block(node)
    return _facts(kind_of(attrs["kind"]), attrs["options"], graph.dim, len(graph.uses(node)))


def under_title(captions: Captions, node: str, opened: bool, changed: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """What stands under a block's title.

    Args:
        opened: its operations do too, and say the facts.
        changed: options that a comparison tells below that.
    """
    attrs, uses = captions.graph.block(node), len(captions.graph.uses(node))
    shown = tuple(captions.shown(node))
    lines = _under_title(kind_of(attrs["kind"]), attrs["options"], captions.graph.dim, uses, shown, opened, changed)
    return *lines, *([] if opened else captions.normed(node)), *filter(None, [captions.astray.get(node)])


@by_content
def _facts(kind: Kind, options: Mapping[str, Any], dim: int, uses: int) -> tuple[str, ...]:
    return () if kind.summary is None else tuple(kind.summary(kind.completed(dim, options, uses)))


@by_content
def _under_title(
    kind: Kind,
    options: Mapping[str, Any],
    dim: int,
    uses: int,
    shown: tuple[tuple[str, str], ...],
    opened: bool,
    changed: frozenset[str],
) -> tuple[str, ...]:
    words = opened_words if opened else block_words
    own = by_name(kind.all_options())
    further = [
        text
        for name, text in shown
        if name not in changed
        and (name not in own or own[name].reads or not said(kind, dim, options, uses, name, words))
    ]
    unsaid_here = unsaid(kind, dim, options, uses, words) if opened else ()
    told = changed | dict(shown).keys()
    hidden = (told_of(kind, option, options[option.name]) for option in unsaid_here if option.name not in told)
    return tuple(dict.fromkeys((*(() if opened else _facts(kind, options, dim, uses)), *further, *hidden)))
