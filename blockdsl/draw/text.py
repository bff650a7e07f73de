"""The graph drawn with characters, for a terminal.

Each repeat is drawn once with its count, each stage under a heading, branches between brackets that end in their
sum. UTF-8 and ASCII differ by the table of glyphs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..graph import costs
from ..graph.costs import stage_title
from ..graph.layout import Chain, Split, split_stages
from ..graph.tokens import input_scheme
from ..language.fold import Folded, Loop, fold
from . import ends, escape
from .hues import hue
from .labels import Labels, blocks_of

if TYPE_CHECKING:
    from ..graph.graph import Graph


@dataclass(frozen=True)
class Glyphs:
    rail: str
    stage: str
    open: str
    next: str
    close: str
    times: str
    dot: str


UTF8 = Glyphs(rail="│", stage="├─", open="╭", next="├", close="╰", times="×", dot="·")
ASCII = Glyphs(rail="|", stage="+-", open="/", next="+", close="\\", times="x", dot="-")

_HEADING = 44  # a repeat whose blocks take more columns is headed by their number


@dataclass(frozen=True)
class _Row:
    indent: str
    text: str
    note: str = ""
    kind: str = ""  # of the block that it is, if it is one


def draw(graph: Graph, ascii: bool = False, color: bool = False) -> str:
    """The drawing, one string with newlines and no newline at its end.

    Args:
        color: blocks are coloured by their kind, by a terminal's escape codes.
    """
    return _Text(graph, ASCII if ascii else UTF8, color).drawing()


class _Text:
    def __init__(self, graph: Graph, glyphs: Glyphs, color: bool) -> None:
        self.graph, self.glyphs, self.color = graph, glyphs, color
        self.labels = Labels(graph)
        self.items = self.labels.items  # None: drawn as a list

    def drawing(self) -> str:
        rows = self._listed() if self.items is None else self._staged(self.items)
        width = max((len(row.indent) + len(row.text) for row in rows if row.note), default=0) + 3
        lines = [self._title(), self._input()]
        for row in rows:
            text = row.text.ljust(width - len(row.indent)) if row.note else row.text
            if self.color and row.kind:
                text = escape.painted(text, hue(row.kind).name)
            lines.append(row.indent + text + row.note)
        return "\n".join([*lines, self._output()])

    def _title(self) -> str:
        graph = self.graph
        count = len(graph.nodes("block"))
        parts = [
            f"dim {graph.dim}",
            ends.heads(graph),
            "causal" if graph.causal else "",
            f"{count:,} block{'' if count == 1 else 's'}",
            f"{len(graph.stages)} stages" if len(graph.stages) > 1 else "",
            costs.parameters_in_words(graph),
        ]
        return f" {self.glyphs.dot} ".join(part for part in parts if part)

    def _input(self) -> str:
        read = filter(None, (ends.model_input(self.graph), ends.length(self.graph, "up to {} a row")))
        parts = [part for part in ("input", ", ".join(read)) if part] + ends.options(self.graph)
        if scheme := input_scheme(self.graph):
            parts.append(f"{scheme} positions")
        if self.graph.nodes("context"):
            parts.append("beside a context")
        if self.graph.nodes("condition"):
            parts.append(f"with a condition of {self.graph.condition[0]:,}")
        return f" {self.glyphs.dot} ".join(parts)

    def _output(self) -> str:
        attrs = self.graph.nx.nodes[self.graph.end]
        reads = self._reads(self.graph.end) if self.items is None else ""
        tokens, width = self.graph.nx.nodes[self.graph.start]["num_tokens"], attrs["logits_dim"]
        logits = f"logits of {width:,} tokens" if width is not None and width == tokens else ends.gives(self.graph)
        logits += " (tied to the embedding)" if attrs["tied"] else ""
        parts = ["output", reads, ends.last_norm(self.graph), logits, *ends.output_options(self.graph)]
        return f" {self.glyphs.dot} ".join(filter(None, parts))

    def _staged(self, items: Chain) -> list[_Row]:
        rows: list[_Row] = []
        for stage, part in split_stages(self.graph, items):
            rows += [*self._stage(stage), *self._chain(part, self.glyphs.rail + "  ")]
        return [*rows, _Row("", self.glyphs.rail)]

    def _stage(self, stage: int) -> list[_Row]:
        """What is above a stage's blocks."""
        rows = [_Row("", self.glyphs.rail)]
        if self.graph.stages != [None]:
            rows.append(_Row("", f"{self.glyphs.stage} stage {stage_title(self.graph, stage)}"))
        return rows

    def _chain(self, items: Chain, indent: str) -> list[_Row]:
        return self._folded(self._fold(items), items, indent)

    def _fold(self, items: Chain) -> Folded:
        keys = [self._key(item) for item in items]
        return fold(keys, lambda index: len(str(keys[index])))

    def _folded(self, folded: Folded, items: Chain, indent: str) -> list[_Row]:
        rows: list[_Row] = []
        for part in folded:
            if isinstance(part, int):
                rows += self._item(items[part], indent)
            elif len(part.body) == 1 and _is_block(part.body[0], items):
                node = items[part.body[0]]  # type: ignore[index]
                assert isinstance(node, str)
                rows.append(self._block(node, indent, f" {self.glyphs.times}{part.count}"))
            else:
                rows.append(_Row(indent, self._heading(part, items)))
                rows += self._folded(part.body, items, indent + "   ")
        return rows

    def _item(self, item: str | Split, indent: str) -> list[_Row]:
        if isinstance(item, str):
            return [self._block(item, indent)]
        rows: list[_Row] = []
        for i, branch in enumerate(item.branches):
            mark = self.glyphs.next if i else self.glyphs.open
            rows.append(_Row(indent, f"{mark} branch {i + 1}"))
            rows += self._chain(branch, f"{indent}{self.glyphs.rail}  ")
        return [*rows, _Row(indent, f"{self.glyphs.close} sum")]

    def _block(self, node: str, indent: str, times: str = "") -> _Row:
        kind = self.graph.block(node)["kind"]
        return _Row(indent, self.labels.name(node) + times, self._note(node), kind)

    def _heading(self, loop: Loop, items: Chain) -> str:
        inside = self._inline(loop.body, items)
        blocks = sum(_count(part, items) for part in loop.body)
        text = inside if len(inside) <= _HEADING else f"{blocks} blocks"
        return f"({text}) {self.glyphs.times}{loop.count}"

    def _inline(self, folded: Folded, items: Chain) -> str:
        """As a pattern writes it; a lone split has no parentheses of its own."""
        parts = []
        for part in folded:
            if isinstance(part, Loop):
                inside = self._inline(part.body, items)
                bare = len(part.body) == 1 and _is_block(part.body[0], items)
                parts.append(f"{inside if bare else f'({inside})'} {self.glyphs.times}{part.count}")
            else:
                item = items[part]
                text = self.labels.name(item) if isinstance(item, str) else self._split_inline(item)
                parts.append(text if len(folded) == 1 or isinstance(item, str) else f"({text})")
        return " ".join(parts)

    def _split_inline(self, split: Split) -> str:
        texts = []
        for branch in split.branches:
            folded = self._fold(branch)
            inside = self._inline(folded, branch)
            bare = len(folded) == 1 and (isinstance(folded[0], Loop) or _is_block(folded[0], branch))
            texts.append(inside if bare else f"({inside})")
        return " & ".join(texts)

    def _listed(self) -> list[_Row]:
        """Every block with what it reads: for a graph that is not chains and branches."""
        rows: list[_Row] = []
        place = {node: i for i, node in enumerate(self.graph.nx)}
        order = nx.lexicographical_topological_sort(self.graph.nx, key=place.__getitem__)
        nodes = [node for node in order if self.graph.node_type(node) in ("block", "sum")]
        for stage, part in split_stages(self.graph, tuple(nodes)):
            rows += self._stage(stage)
            for node in part:
                assert isinstance(node, str)
                is_block = self.graph.node_type(node) == "block"
                text = f"{node}: {self.labels.name(node)}" if is_block else f"{node}: sum"
                notes = [self._reads(node), *([self._note(node)] if is_block else [])]
                kind = self.graph.nx.nodes[node].get("kind", "")
                rows.append(_Row(self.glyphs.rail + "  ", text, f" {self.glyphs.dot} ".join(notes), kind))
        return [*rows, _Row("", self.glyphs.rail)]

    def _reads(self, node: str) -> str:
        streams, bases = self.graph.sources(node, "stream"), self.graph.sources(node, "base")
        if bases:
            return f"reads {bases[0]} + the gains of {', '.join(streams)}"
        return f"reads {' + '.join(streams) or 'nothing'}"

    def _key(self, item: str | Split) -> Any:
        """Equal for items that are drawn alike."""
        if isinstance(item, str):
            return self.labels.name(item), self._note(item)
        return tuple(tuple(self._key(inner) for inner in branch) for branch in item.branches)

    def _note(self, node: str) -> str:
        return f" {self.glyphs.dot} ".join(self.labels.notes(node))


def _is_block(part: int | Loop, items: Chain) -> bool:
    return isinstance(part, int) and isinstance(items[part], str)


def _count(part: int | Loop, items: Chain) -> int:
    """How many blocks a part of a folded chain stands for."""
    if isinstance(part, int):
        return sum(1 for _ in blocks_of((items[part],)))
    return part.count * sum(_count(inner, items) for inner in part.body)
