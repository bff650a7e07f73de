"""The boxes of a picture by themselves: what is written in them, how large they are, what colour they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..kinds import kind_of
from .details import Details
from .labels import Labels
from .scene import Box, Mark, Point, Rect, Text, text_width, widest
from .tree import Unit
from .widths import cut, wrapped

if TYPE_CHECKING:
    from ..graph import BlockGraph

STUB = 30.0  # from a box to the rail
INSET = 10.0  # from a box's edge to its text
LEAST, MOST = 138.0, 230.0  # a box's width; the text in it
LINE = 14.0
SINGLE = 38.0  # height of a box with a title alone
OP, OP_GAP = 20.0, 6.0


class Faces:
    """Boxes for the nodes of one graph.

    Args:
        hue: node → the class of its colour.
        detail: "block", or "op" for blocks opened to their operations.
    """

    def __init__(self, graph: BlockGraph, details: Details, hue: Callable[[str], str], detail: str) -> None:
        self.graph, self.details, self.hue, self.detail = graph, details, hue, detail
        self.labels: Labels = details.labels
        self.width = LEAST
        self.lines: dict[str, list[str]] = {}

    def measure(self, drawn: Sequence[Unit]) -> None:
        """Set the width that all blocks have."""
        for unit in drawn:
            self.width = max(self.width, self._needed(unit.node))

    def _needed(self, node: str) -> float:
        attrs = self.graph.nx.nodes[node]
        self.lines[node] = wrapped(self.labels.options(node), 10.5, MOST)
        title = text_width(self._title(node), "title")
        if attrs["tie"]:
            title += 6 + text_width(self._tie(attrs), "mark") + 8
        marks = max((text_width(mark, "mark") + 8 for mark in (_shift(attrs), _scale(attrs)) if mark), default=-6)
        return self._indent(attrs) + max(title, widest(self.lines[node], "note")) + 6 + marks + INSET

    def _title(self, node: str) -> str:
        return cut(kind_of(self.graph.nx.nodes[node]["block"]).title.capitalize(), 12.5, MOST, bold=True)

    def _tie(self, attrs: dict[str, Any]) -> str:
        return cut(f"@{attrs['tie']}", 9.5, 90)

    def _indent(self, attrs: dict[str, Any]) -> float:
        return INSET + text_width(attrs["block"], "code") + 8

    def height(self, node: str) -> float:
        return SINGLE + LINE * len(self.lines[node])

    def box(self, unit: Unit, x: float, y: float) -> Box:
        """A block's box with its left upper corner there."""
        node = unit.node
        attrs = self.graph.nx.nodes[node]
        rect = Rect(x, y, self.width, self.height(node))
        lines = self.lines[node]
        base = rect.y + 23
        indent = rect.x + self._indent(attrs)
        title = self._title(node)
        texts = [Text(rect.x + INSET, base, attrs["block"], "code"), Text(indent, base, title, "title")]
        texts += [Text(indent, base + 2 + LINE * (i + 1), line, "note") for i, line in enumerate(lines)]
        marks = []
        if attrs["tie"]:
            self._mark(marks, texts, self._tie(attrs), indent + text_width(title, "title") + 6, rect.y + 11.5, "tie")
        for mark, middle, role in (
            (_shift(attrs), self.taps(unit, rect)[0], "shift"),
            (_scale(attrs), self.taps(unit, rect)[1], "scale"),
        ):
            if mark:
                self._mark(marks, texts, mark, rect.right - text_width(mark, "mark") - 12, middle - 7.5, role)
        return Box(
            node,
            unit.nodes,
            "block",
            rect,
            tuple(texts),
            tuple(marks),
            block=attrs["block"],
            tip=self.details.of_block(unit.nodes),
            hue=self.hue(node),
        )

    def _mark(self, marks: list[Mark], texts: list[Text], text: str, x: float, y: float, role: str) -> None:
        marks.append(Mark(Rect(x, y, text_width(text, "mark") + 8, 15), role))
        texts.append(Text(x + 4, y + 11, text, "mark"))

    def taps(self, unit: Unit, rect: Rect) -> tuple[float, float]:
        """Where the stream enters a box and its update leaves it."""
        return rect.y + 10.5, rect.bottom - 10.5

    def heights(self, unit: Unit, rect: Rect, roles: list[str]) -> list[float]:
        """Where wires meet the box's left edge."""
        return [rect.y + rect.height * (i + 1) / (len(roles) + 1) for i in range(len(roles))]

    def sum(self, nodes: tuple[str, ...], at: Point) -> Box:
        tip = f"{nodes[0]}: the stream and what each branch adds to it"
        return Box(nodes[0], nodes, "sum", None, join=at, tip=tip)

    def gain(self, nodes: tuple[str, ...], at: Point) -> Box:
        return Box(nodes[0], nodes, "gain", None, join=at, sign="Δ", tip="what the branch added to the stream")

    def end(self, node: str, lines: list[str], x: float, y: float, wide: float) -> Box:
        """The input or the output."""
        rect = Rect(x, y, wide, 26 + LINE * (len(lines) - 1) + 4)
        texts = [Text(x + wide / 2, y + 19, lines[0], "title", "middle")]
        texts += [Text(x + wide / 2, y + 20 + LINE * (i + 1), line, "note", "middle") for i, line in enumerate(lines[1:])]
        kind = self.graph.nx.nodes[node]["kind"]
        return Box(node, (node,), kind, rect, tuple(texts), tip=self.details.of_end(node, lines))

    def source(self, node: str, title: str, x: float, y: float) -> Box:
        """A position or the context."""
        rect = Rect(x, y, text_width(title, "label") + 2 * INSET, 26)
        kind = self.graph.nx.nodes[node]["kind"]
        tip = self.details.of_position(node) if kind == "position" else "context: the sequence that cross-attention reads"
        text = Text(x + rect.width / 2, y + 17, title, "label", "middle")
        return Box(node, (node,), kind, rect, (text,), tip=tip)


def _shift(attrs: dict[str, Any]) -> str:
    return f"shift {attrs['shift']}" if attrs["shift"] else ""


def _scale(attrs: dict[str, Any]) -> str:
    scale = attrs["scale"]
    return "" if scale == 1 else "×½" if scale == 0.5 else f"×{scale:.3g}"
