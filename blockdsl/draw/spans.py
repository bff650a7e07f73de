"""A graph's pattern, cut where a bit of its text stands for blocks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..errors import PatternError
from ..language.format import format_text
from ..language.pattern import parse

if TYPE_CHECKING:
    from ..graph.graph import Graph


_SUFFIXES = re.compile(r"(?:>>-?\d+|/[\d.]+(?:e[+-]?\d+)?|@\w+)*")


class Bit(NamedTuple):
    """A bit of text and the blocks that it stands for: every copy of a repeat, all of a macro."""

    text: str
    nodes: tuple[str, ...] = ()


def bits(graph: Graph) -> list[Bit]:
    """The whole text, over lines as `blockdsl fmt` writes it.

    A block that an edit took out of the graph is not in it. Where the text cannot be read any more, say because a kind
    was unregistered, it is one bit.
    """
    try:
        text = format_text(graph.pattern).rstrip("\n")
        blocks = [*parse(text).expansion.blocks()]
    except PatternError:
        return [Bit(graph.pattern)]
    nodes: dict[tuple[int, int], list[str]] = {}
    for i, block in enumerate(blocks):
        found = nodes.setdefault((block.span.start, block.span.end), [])
        node = f"{block.kind}{i}"  # as `compile` calls it
        if graph.nx.nodes.get(node, {}).get("kind") == block.kind:
            found.append(node)
    out, at = [], 0
    for (start, end), found in sorted(nodes.items()):
        suffixes = _SUFFIXES.match(text, end)
        assert suffixes is not None
        out += [Bit(text[at:start]), Bit(text[start : suffixes.end()], tuple(found))]
        at = suffixes.end()
    return [bit for bit in [*out, Bit(text[at:])] if bit.text]
