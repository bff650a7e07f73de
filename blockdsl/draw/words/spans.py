"""A graph's pattern, cut where a bit of its text stands for blocks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ...errors import PatternError
from ...graph.layout import blocks_of, chain
from ...language.format import format_text
from ...language.pattern import parse

if TYPE_CHECKING:
    from ...graph.graph import Graph


_SUFFIXES = re.compile(r"(?:>>-?\d+|/[\d.]+(?:e[+-]?\d+)?|@\w+)*")


class Bit(NamedTuple):
    """A bit of text and the blocks that it stands for: every copy of a repeat, all of a macro."""

    text: str
    nodes: tuple[str, ...] = ()


def bits(graph: Graph) -> list[Bit]:
    """The whole text, over lines as `blockdsl fmt` writes it.

    Where it cannot be read, say because a kind was unregistered or an edited graph has no text, it is one bit.
    """
    try:
        text = format_text(graph.pattern).rstrip("\n")
        blocks = [*parse(text).expansion.blocks()]
    except PatternError:
        return [Bit(graph.pattern)]
    names = [node for node in blocks_of(chain(graph) or ()) if graph.node_type(node) == "block"]
    nodes: dict[tuple[int, int], list[str]] = {}
    for i, block in enumerate(blocks):
        found = nodes.setdefault((block.span.start, block.span.end), [])
        if len(names) == len(blocks) and graph.block(names[i])["kind"] == block.kind:
            found.append(names[i])
    out, at = [], 0
    for (start, end), found in sorted(nodes.items()):
        suffixes = _SUFFIXES.match(text, end)
        assert suffixes is not None
        out += [Bit(text[at:start]), Bit(text[start : suffixes.end()], tuple(found))]
        at = suffixes.end()
    return [bit for bit in [*out, Bit(text[at:])] if bit.text]
