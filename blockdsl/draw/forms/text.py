"""The graph drawn with characters, for a terminal.

Each repeat is drawn once with its count, each stage under a heading, branches between brackets that end in their
sum. UTF-8 and ASCII differ by the table of glyphs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx

from ...graph.costs import stage_title
from ...graph.layout import Chain, split_stages
from ...graph.tokens import input_scheme
from ...registry.tokens import INPUT_SCHEMES
from ...signs import PLAIN
from .. import escape
from ..color.hues import hue
from ..parts import DrawnBlock, DrawnBranches, DrawnLabel, DrawnRead, DrawnRepeat, DrawnSide, DrawnSkip, Parts
from ..tree import tree
from ..words import ends, reads
from ..words.captions import Captions
from ..words.header import Head, head_of
from ..words.inline import as_written, name
from ..words.lines import facts

if TYPE_CHECKING:
    from ...graph.graph import Graph
    from ..color.heat import Heat


@dataclass(frozen=True)
class Glyphs:
    rail: str
    stage: str
    open: str
    next: str
    close: str
    gap: str
    times: str
    dot: str


UTF8 = Glyphs(rail="│", stage="├─", open="╭", next="├", close="╰", gap="╌", times="×", dot="·")
ASCII = Glyphs(rail="|", stage="+-", open="/", next="+", close="\\", gap="~", times="x", dot="-")

_HEADING = 44  # a repeat whose blocks take more columns is headed by their number


@dataclass(frozen=True)
class _Row:
    indent: str
    text: str
    note: str = ""
    kind: str = ""  # of the block that it is, if it is one


def draw(
    graph: Graph, ascii: bool = False, color: bool = False, heat: Heat | None = None, head: Head | None = None
) -> str:
    """The drawing, one string with newlines and no newline at its end.

    Args:
        color: blocks are coloured by their kind, by a terminal's escape codes.
        heat: a measurement, whose numbers are beside the blocks.
        head: what is above it; None: all that there is to say of the stack.
    """
    return _Text(graph, ASCII if ascii else UTF8, color, heat, head).drawing()


def in_signs(lines: Sequence[Sequence[str]], ascii: bool) -> str:
    """Lines above a drawing."""
    text = "\n".join(f" {(ASCII if ascii else UTF8).dot} ".join(line) for line in lines)
    return in_ascii(text) if ascii else text


def in_ascii(text: str) -> str:
    """In ASCII, as far as a drawing's own words go."""
    return "".join(PLAIN.get(sign, sign) for sign in text)


class _Text:
    def __init__(self, graph: Graph, glyphs: Glyphs, color: bool, heat: Heat | None, head: Head | None) -> None:
        self.graph, self.glyphs, self.color, self.heat = graph, glyphs, color, heat
        self.captions = Captions(graph)
        self.head = head_of(self.captions) if head is None else head
        self.items = self.captions.items  # None: drawn as a list
        self.words: dict[DrawnBlock, dict[str, None]] = {}  # which copies it reads, in words

    def drawing(self) -> str:
        rows = self._listed() if self.items is None else self._staged(self.items)
        width = max((len(row.indent) + len(row.text) for row in rows if row.note), default=0) + 3
        lines = [*(f" {self.glyphs.dot} ".join(line) for line in self.head.lines()), self._input()]
        for row in rows:
            text = row.text.ljust(width - len(row.indent)) if row.note else row.text
            if self.color and row.kind:
                text = escape.painted(text, hue(row.kind).name)
            lines.append(row.indent + text + row.note)
        text = "\n".join([*lines, self._output()])
        return in_ascii(text) if self.glyphs is ASCII else text

    def _input(self) -> str:
        read = filter(None, (ends.model_input(self.graph), ends.length(self.graph, "up to {} a row")))
        parts = [part for part in ("input", ", ".join(read)) if part] + ends.options(self.graph)
        if scheme := input_scheme(self.graph):
            parts.append(INPUT_SCHEMES[scheme])
        if self.graph.nodes("context"):
            parts.append("beside a context")
        if self.graph.nodes("condition"):
            parts.append("with a condition")
        return f" {self.glyphs.dot} ".join([*parts, *self._measured((self.graph.start,))])

    def _measured(self, nodes: Sequence[str]) -> list[str]:
        said = "" if self.heat is None else self.heat.said(nodes)
        return [said] if said else []

    def _output(self) -> str:
        attrs = self.graph.nx.nodes[self.graph.end]
        reads = self._reads(self.graph.end) if self.items is None else ""
        tokens, width = self.graph.nx.nodes[self.graph.start]["num_tokens"], attrs["logits_dim"]
        logits = f"logits of {width:,} tokens" if width is not None and width == tokens else ends.gives(self.graph)
        logits += " (tied to the embedding)" if attrs["tied"] else ""
        parts = ["output", reads, ends.last_norm(self.graph), logits, *ends.output_options(self.graph)]
        parts += self._measured((self.graph.end,))
        return f" {self.glyphs.dot} ".join(filter(None, parts))

    def _staged(self, items: Chain) -> list[_Row]:
        rows: list[_Row] = []
        drawn = tree(self.captions, items, unfold=False)
        for wire in drawn.wires:
            self.words.setdefault(wire.target, {})[wire.words] = None
        for stage, parts in drawn.stages:
            rows += [*self._stage(stage), *self._parts(parts, self.glyphs.rail + "  ")]
        end = [_Row("", f"{self.glyphs.gap} gap")] if self.captions.gap(self.graph.end) else []
        return [*rows, *end, _Row("", self.glyphs.rail)]

    def _stage(self, stage: int) -> list[_Row]:
        """What is above a stage's blocks."""
        rows = [_Row("", self.glyphs.rail)]
        if self.graph.stages != [None]:
            rows.append(_Row("", f"{self.glyphs.stage} stage {stage_title(self.graph, stage)}"))
        return rows

    def _parts(self, parts: Parts, indent: str) -> list[_Row]:
        rows: list[_Row] = []
        for part in parts:
            if self._gap(part):
                rows.append(_Row(indent, f"{self.glyphs.gap} gap"))
            if isinstance(part, DrawnBlock):
                rows.append(self._leaf(part, indent))
            elif isinstance(part, DrawnSide):
                rows.append(_Row(indent, f"{self.glyphs.open} beside the stream"))
                rows += [*self._parts(part.columns[0], f"{indent}{self.glyphs.rail}  ")]
                rows.append(_Row(indent, f"{self.glyphs.close} end"))
            elif isinstance(part, DrawnBranches):
                rows += self._branches(part, indent)
            elif isinstance(block := part.parts[0], DrawnBlock) and len(part.parts) == 1:
                rows.append(self._leaf(block, indent, f" {self.glyphs.times}{part.times}"))
            else:
                rows.append(_Row(indent, self._heading(part)))
                rows += self._parts(part.parts, indent + "   ")
        return rows

    def _gap(self, part: DrawnBlock | DrawnBranches | DrawnRepeat) -> bool:
        """Whether what comes before does not lead to it."""
        if isinstance(part, DrawnRepeat) and len(part.parts) > 1:
            return False  # its first part says so
        first = part.parts[0] if isinstance(part, DrawnRepeat) else part
        return isinstance(first, DrawnBlock) and first.is_node and self.captions.gap(first.node)

    def _branches(self, split: DrawnBranches, indent: str) -> list[_Row]:
        rows: list[_Row] = []
        for i, column in enumerate(split.columns):
            mark = self.glyphs.next if i else self.glyphs.open
            rows.append(_Row(indent, f"{mark} branch {i + 1}"))
            rows += self._parts(column, f"{indent}{self.glyphs.rail}  ")
        return [*rows, _Row(indent, f"{self.glyphs.close} sum")]

    def _leaf(self, part: DrawnBlock, indent: str, times: str = "") -> _Row:
        notes = [*self._notes(part), *filter(None, self.words.get(part, ()))]
        if not isinstance(part, DrawnLabel | DrawnSkip):
            notes = [*self._measured(part.nodes), *notes]
        kind = self.graph.nx.nodes[part.node].get("kind", "") if type(part) is DrawnBlock else ""
        return _Row(indent, name(self.captions, part) + times, f" {self.glyphs.dot} ".join(notes), kind)

    def _notes(self, part: DrawnBlock) -> list[str]:
        if isinstance(part, DrawnLabel):
            return []
        if isinstance(part, DrawnSkip):
            place = self.captions.place(part.node) if part.is_node else []
            return [reads.skip_words(self.graph, part.node, self.captions.added[part.node]), *place]
        if isinstance(part, DrawnRead):
            return [reads.join_words(self.graph, part.node), *self.captions.place(part.node)]
        return self._of_node(part.node)

    def _of_node(self, node: str) -> list[str]:
        """A block or a read in words."""
        words, *notes = self.captions.notes(node)
        return [words, *(facts(self.graph, node) if self.graph.node_type(node) == "block" else ()), *notes]

    def _heading(self, repeat: DrawnRepeat) -> str:
        inside = as_written(self.captions, repeat.parts, self.glyphs.times)
        blocks = _count(repeat.parts)
        text = inside if len(inside) <= _HEADING else f"{blocks} blocks"
        return f"({text}) {self.glyphs.times}{repeat.times}"

    def _listed(self) -> list[_Row]:
        """Every block with what it reads: for a graph that is not chains and branches."""
        rows: list[_Row] = []
        place = {node: i for i, node in enumerate(self.graph.nx)}
        order = nx.lexicographical_topological_sort(self.graph.nx, key=place.__getitem__)
        nodes = [node for node in order if self.graph.node_type(node) in ("block", "read", "sum")]
        for stage, part in split_stages(self.graph, tuple(nodes)):
            rows += self._stage(stage)
            for node in part:
                assert isinstance(node, str)
                is_sum = self.graph.node_type(node) == "sum"
                text = f"{node}: sum" if is_sum else f"{node}: {self.captions.name(node)}"
                notes = [*self._measured((node,)), self._reads(node), *([] if is_sum else self._of_node(node))]
                kind = self.graph.nx.nodes[node].get("kind", "")
                rows.append(_Row(self.glyphs.rail + "  ", text, f" {self.glyphs.dot} ".join(notes), kind))
        return [*rows, _Row("", self.glyphs.rail)]

    def _reads(self, node: str) -> str:
        streams, bases = self.graph.sources(node, "stream"), self.graph.sources(node, "base")
        if bases:
            return f"reads {bases[0]} + the gains of {', '.join(streams)}"
        return f"reads {' + '.join(streams) or 'nothing'}"


def _count(parts: Parts) -> int:
    """How many blocks parts stand for in one copy of what is around them."""
    count = 0
    for part in parts:
        if isinstance(part, DrawnRepeat):
            count += part.times * _count(part.parts)
        elif isinstance(part, DrawnBranches):
            count += sum(map(_count, part.columns))
        else:
            count += type(part) is DrawnBlock
    return count
