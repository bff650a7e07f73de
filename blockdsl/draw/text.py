"""The graph drawn with characters, for a terminal.

Each repeat is drawn once with its count, each stage under a heading, branches between brackets that end in their
sum. UTF-8 and ASCII differ by the table of glyphs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..costs import stage_title
from ..fold import Folded, Loop, fold
from ..kinds import kinds
from ..options import spell
from .layout import Chain, Split, chain, split_stages

if TYPE_CHECKING:
    from ..graph import BlockGraph


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


def draw(graph: BlockGraph, ascii: bool = False) -> str:
    """The drawing, one string with newlines and no newline at its end."""
    return _Text(graph, ASCII if ascii else UTF8).drawing()


class _Text:
    def __init__(self, graph: BlockGraph, glyphs: Glyphs) -> None:
        self.graph, self.glyphs = graph, glyphs
        self.before: dict[str, str | None] = {}  # each block's predecessor of its own kind, in order
        last: dict[str, str] = {}
        for node in graph.nodes("block"):
            kind = graph.nx.nodes[node]["block"]
            self.before[node] = last.get(kind)
            last[kind] = node

    def drawing(self) -> str:
        items = chain(self.graph)
        rows = self._listed() if items is None else self._staged(items)
        width = max((len(row.indent) + len(row.text) for row in rows if row.note), default=0) + 3
        lines = [self._title(), self._ends("input")]
        for row in rows:
            left = row.indent + row.text
            lines.append(f"{left:{width}}{row.note}" if row.note else left)
        return "\n".join([*lines, self._ends("output")])

    def _title(self) -> str:
        graph = self.graph
        count = len(graph.nodes("block"))
        parts = [
            f"dim {graph.dim}",
            "causal" if graph.causal else "",
            f"{count:,} block{'' if count == 1 else 's'}",
            f"{len(graph.stages)} stages" if len(graph.stages) > 1 else "",
            f"{graph.parameters():,} parameters",
        ]
        return f" {self.glyphs.dot} ".join(part for part in parts if part)

    def _ends(self, node: str) -> str:
        attrs = self.graph.nx.nodes[node]
        tokens = attrs["num_tokens"]
        if node == "output":
            norm = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm", None: ""}[attrs["norm"]]
            logits = f"logits of {tokens:,} tokens{' (tied to the embedding)' if attrs['tied'] else ''}" if tokens else ""
            notes = [norm, logits]
        else:
            embedding = f"{tokens:,} tokens, up to {attrs['max_seq_len']:,} a row" if tokens else ""
            absolute = "absolute positions" if self.graph.sources(node, "position") else ""
            context = "beside a context" if self.graph.nodes("context") else ""
            notes = [embedding, absolute, context]
        return f" {self.glyphs.dot} ".join([node, *filter(None, notes)])

    def _staged(self, items: Chain) -> list[_Row]:
        rail = self.glyphs.rail + "  "
        rows: list[_Row] = []
        for stage, part in split_stages(self.graph, items):
            rows.append(_Row("", self.glyphs.rail))
            if self.graph.stages != [None]:
                rows.append(_Row("", f"{self.glyphs.stage} stage {stage_title(self.graph, stage)}"))
            rows += self._chain(part, rail)
        return [*rows, _Row("", self.glyphs.rail)]

    def _chain(self, items: Chain, indent: str) -> list[_Row]:
        keys = [self._key(item) for item in items]
        return self._folded(fold(keys, lambda index: len(str(keys[index]))), items, indent)

    def _folded(self, folded: Folded, items: Chain, indent: str) -> list[_Row]:
        rows: list[_Row] = []
        for part in folded:
            if isinstance(part, int):
                rows += self._item(items[part], indent)
            elif len(part.body) == 1 and isinstance(part.body[0], int) and isinstance(items[part.body[0]], str):
                node = items[part.body[0]]
                assert isinstance(node, str)
                rows.append(_Row(indent, f"{self._name(node)} {self.glyphs.times}{part.count}", self._note(node)))
            else:
                rows.append(_Row(indent, self._heading(part, items)))
                rows += self._folded(part.body, items, indent + "   ")
        return rows

    def _item(self, item: str | Split, indent: str) -> list[_Row]:
        if isinstance(item, str):
            return [_Row(indent, self._name(item), self._note(item))]
        rows: list[_Row] = []
        for i, branch in enumerate(item.branches):
            mark = self.glyphs.next if i else self.glyphs.open
            rows.append(_Row(indent, f"{mark} branch {i + 1}"))
            rows += self._chain(branch, f"{indent}{self.glyphs.rail}  ")
        return [*rows, _Row(indent, f"{self.glyphs.close} sum")]

    def _heading(self, loop: Loop, items: Chain) -> str:
        inside = self._inline(loop.body, items)
        blocks = sum(_count(part) for part in loop.body)
        text = inside if len(inside) <= _HEADING else f"{blocks} in a row"
        return f"({text}) {self.glyphs.times}{loop.count}"

    def _inline(self, folded: Folded, items: Chain) -> str:
        parts = []
        for part in folded:
            if isinstance(part, int):
                item = items[part]
                parts.append(self._name(item) if isinstance(item, str) else self._split_inline(item))
            else:
                parts.append(f"({self._inline(part.body, items)}) {self.glyphs.times}{part.count}")
        return " ".join(parts)

    def _split_inline(self, split: Split) -> str:
        return " & ".join(
            " ".join(self._name(item) if isinstance(item, str) else "(…)" for item in branch) for branch in split.branches
        )

    def _listed(self) -> list[_Row]:
        """Every block with what it reads: for a graph that is not chains and branches."""
        rows = [_Row("", self.glyphs.rail)]
        for node in self.graph.order():
            if self.graph.nx.nodes[node]["kind"] in ("block", "sum"):
                reads = " + ".join(self.graph.sources(node, "base") + self.graph.sources(node, "stream"))
                is_block = self.graph.nx.nodes[node]["kind"] == "block"
                note = f"reads {reads}" + (f"; {self._note(node)}" if is_block else "")
                rows.append(_Row(self.glyphs.rail + "  ", f"{node}: {self._name(node)}" if is_block else node, note))
        return [*rows, _Row("", self.glyphs.rail)]

    def _key(self, item: str | Split) -> Any:
        """Equal for items that are drawn alike."""
        if isinstance(item, str):
            return self._name(item), self._note(item)
        return tuple(tuple(self._key(inner) for inner in branch) for branch in item.branches)

    def _name(self, node: str) -> str:
        """The block as a pattern writes it."""
        attrs = self.graph.nx.nodes[node]
        flags = [name if value is True else f"{name}={spell(value)}" for name, value in attrs["given"].items()]
        text = attrs["block"] + (f"({', '.join(flags)})" if flags else "")
        text += f">>{attrs['shift']}" if attrs["shift"] else ""
        if attrs["scale"] != 1:
            text += f"/{1 / attrs['scale']:g}"
        return text + (f"@{attrs['tie']}" if attrs["tie"] else "")

    def _note(self, node: str) -> str:
        """The block in words, with what it reads beside the stream."""
        attrs = self.graph.nx.nodes[node]
        notes = [kinds()[attrs["block"]].title]
        notes += [f"rotary {self.graph.nx.nodes[p]['dim']}" for p in self.graph.sources(node, "position")]
        notes += ["reads the context" for _ in self.graph.sources(node, "context")]
        for source in self.graph.sources(node, "scores"):
            notes.append("adds the scores before" if source == self.before[node] else f"adds the scores of {source}")
        return f" {self.glyphs.dot} ".join(notes)


def _count(part: int | Loop) -> int:
    return 1 if isinstance(part, int) else part.count * sum(_count(inner) for inner in part.body)
