"""The boxes of a picture by themselves: what is written in them, how large they are, what colour they have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..registry.kinds import kind_of
from ..registry.reads import JOINS
from . import ends, reads
from .captions import Captions
from .colors import Colors
from .details import Details
from .inline import as_written
from .lines import under_title
from .operations import Operation, gated, mixes, operations, post_norm, read_by
from .parts import DrawnAlike, DrawnBlock, DrawnRead, DrawnSkip, DrawnSum, drawn_blocks
from .scene import RADIUS, Box, Mark, Point, Rect, Text, even, size, text_width, widest
from .told import UNTOLD, Told
from .widths import broken, cut_to_fit, wrapped

if TYPE_CHECKING:
    from ..graph.graph import Graph

STUB = 30.0  # from a box to the rail
SHOULDER = 14.0  # how far the input and the output extend past the rail
INSET = 10.0  # from a box's edge to its text
LEAST, MOST, MOST_OP = 140.0, 220.0, 240.0  # a box's width; the text in it, and in an operation
LINE = 14.0
SINGLE = 38.0  # height of a box with a title alone
OP, OP_GAP = 20.0, 5.0
SOURCE, SOURCE_LEAST = 26.0, 130.0  # height of a position or the context; the least width of what is below its title
TAP = 11.0  # from a box's upper and lower edge to where the stream enters and leaves
PILL = 16.0  # height of a norm on the rail
BADGE = 15.0  # of what became of a block, on a corner of its box
GAIN = "Δ"  # the sign of what a branch added
ALIKE_LINES = 4  # of what is in a run of blocks that two graphs have


@dataclass(frozen=True)
class _Face:
    """What one block's box has written in it."""

    title: str
    tie: str
    label: str
    lines: tuple[str, ...]
    operations: tuple[Operation, ...]
    shift: str
    scale: str
    measured: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def rows(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """What stands under the title, from above, and the role of its text."""
        return (self.measured, "value"), (self.lines, "note"), (self.changes, "change")

    @property
    def height(self) -> float:
        rows = len(self.operations)
        lines = len(self.measured) + len(self.lines) + len(self.changes)
        return SINGLE + LINE * lines + (rows * (OP + OP_GAP) + 5 if rows else 0)

    def row(self, rect: Rect, index: int) -> float:
        """The middle of an operation, counted from the first; negative ones from the last."""
        count = len(self.operations)
        return rect.bottom - INSET - OP / 2 - (OP + OP_GAP) * (count - 1 - index % count)


class Faces:
    """Boxes for the nodes of one graph.

    Args:
        colors: of its blocks.
        opened: draw the operations of each block.
        told: what a comparison says of nodes.
    """

    def __init__(self, graph: Graph, details: Details, colors: Colors, opened: bool, told: Told = UNTOLD) -> None:
        self.graph, self.details, self.colors, self.opened, self.told = graph, details, colors, opened, told
        self.captions: Captions = details.captions
        self.width = LEAST
        self.faces: dict[str, _Face] = {}
        self._written: dict[tuple[str, ...], str] = {}

    def measure(self, blocks: Iterable[DrawnBlock]) -> None:
        """Set the width that all blocks have."""
        for block in blocks:
            face = self.faces[block.node] = self._face(block)
            self.width = max(self.width, even(self._needed(block.node, face)))

    def _face(self, block: DrawnBlock) -> _Face:
        node = block.node
        attrs = self.graph.nx.nodes[node]
        rows = tuple(
            row._replace(text=cut_to_fit(row.text, size("op"), MOST_OP))
            for row in (operations(self.graph, node) if self.opened else ())
        )
        lines = [cut_to_fit(line, size("note"), MOST) for line in under_title(self.captions, node, self.opened)]
        return _Face(
            cut_to_fit(_capital(kind_of(attrs["kind"]).title), size("title"), MOST, bold=True),
            cut_to_fit(f"@{attrs['tie']}", size("mark"), 90) if attrs["tie"] else "",
            cut_to_fit(" ".join(f"^{name}" for name in self.captions.own(node)), size("mark"), 90),
            tuple(wrapped(lines, size("note"), MOST)),
            rows,
            "" if self.opened or not attrs["shift"] else f"shift {attrs['shift']}",
            "" if self.opened else _scale(attrs["scale"] * attrs["options"]["branch_scale"]),
            self._measured(block.nodes),
            tuple(wrapped([*self.told.changes.get(node, ())], size("change"), MOST, bold=True)),
        )

    def _measured(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """The number on a box, where there are any; a range and its mean in two lines where one is too long."""
        said = "" if self.colors.heat is None else self.colors.heat.said(nodes)
        return tuple(wrapped(said.split(", "), size("value"), MOST, ", ", bold=True)) if said else ()

    def _tip(self, nodes: Sequence[str], lines: str) -> str:
        """A tooltip, with what was measured first."""
        return "\n".join([*(() if self.colors.heat is None else self.colors.heat.tip(nodes)), lines])

    def in_words(self, part: DrawnBlock) -> str:
        """A block with all that is written on it, or how a read joins the stream."""
        if isinstance(part, DrawnSkip):
            return reads.skip_words(self.graph, part.node, self.captions.added[part.node])
        if isinstance(part, DrawnRead):
            return self.captions.names.read_words(part.node)
        face = self.faces[part.node]
        rows = [row.text for row in face.operations]
        lines, *others = (" ".join(each) for each in (face.lines, face.changes, face.measured))
        said = ", ".join(filter(None, (lines, *rows, face.shift, face.scale, face.tie, face.label, *others)))
        return face.title.lower() + (f" ({said})" if said else "")

    def _needed(self, node: str, face: _Face) -> float:
        title = text_width(face.title, "title")
        title += sum(text_width(mark, "mark") + 14 for mark in (face.label, face.tie) if mark)
        marks = max((text_width(mark, "mark") + 14 for mark in (face.shift, face.scale) if mark), default=0)
        lines = max(widest(each, role) for each, role in face.rows())
        beside = self._indent(node) + max(title, lines) + marks + INSET
        return max(beside, widest([row.text for row in face.operations], "op") + 4 * INSET)

    def _indent(self, node: str) -> float:
        return INSET + text_width(self._code(node), "code") + 8

    def _code(self, node: str) -> str:
        return cut_to_fit(self.graph.block(node)["kind"], size("code"), 80)

    def height(self, node: str) -> float:
        return self.faces[node].height

    def box(self, block: DrawnBlock, x: float, y: float) -> Box:
        """A block's box with its left upper corner there."""
        node = block.node
        face, kind = self.faces[node], self.graph.block(node)["kind"]
        rect = Rect(x, y, self.width, face.height)
        base, indent = y + 23, x + self._indent(node)
        texts = [Text(x + INSET, base, self._code(node), "code"), Text(indent, base, face.title, "title")]
        rows = [(line, role) for lines, role in face.rows() for line in lines]
        texts += [Text(indent, base + 2 + LINE * (i + 1), line, role) for i, (line, role) in enumerate(rows)]
        marks: list[Mark] = []
        self._badge(marks, texts, node, rect)
        beside = indent + text_width(face.title, "title") + 6
        for text, role in ((face.label, "given"), (face.tie, "tie")):
            if text:
                _mark(marks, texts, text, beside, y + 11.5, role)
                beside = marks[-1].rect.right + 6
        enter, leave = self.taps(node, rect)
        for text, middle, role in ((face.shift, enter, "shift"), (face.scale, leave, "scale")):
            if text:
                _mark(marks, texts, text, rect.right - text_width(text, "mark") - 12, middle - 7.5, role)
        for i, row in enumerate(face.operations):
            middle = face.row(rect, i)
            marks.append(Mark(Rect(x + INSET, middle - OP / 2, rect.width - 2 * INSET, OP), "op"))
            texts.append(Text(x + rect.width / 2, middle + 3.5, row.text, "op", "middle"))
            if i:
                marks.append(Mark(Rect(x + rect.width / 2 - 0.6, middle - OP / 2 - OP_GAP, 1.2, OP_GAP), "flow"))
        tip = self._tip(block.nodes, self.details.of_block(block.nodes))
        hue = self.colors.of(block.nodes)
        sign = "⋈" if gated(self.graph, node) else "≡" if mixes(self.graph, node) else "+"
        return Box(node, block.nodes, "block", rect, tuple(texts), tuple(marks), None, sign, kind, tip, hue)

    def _badge(self, marks: list[Mark], texts: list[Text], node: str, rect: Rect) -> None:
        """What became of a node, on its box's upper left corner, told by more than a colour."""
        if sign := self.told.sign(node):
            corner = Rect(rect.x - BADGE / 2, rect.y - BADGE / 2, BADGE, BADGE)
            marks.append(Mark(corner, "badge"))
            texts.append(Text(rect.x, rect.y + 4, sign, "badge", "middle"))

    def alike(self, run: DrawnAlike, x: float, y: float, wide: float) -> Box:
        """The box of a run that both graphs have: how many blocks, and which."""
        count = sum(len(block.nodes) for block in drawn_blocks(run.inside)) // run.copies
        title = f"{count:,} blocks alike"
        words = self._words_of(run)
        lines = broken(words, size("note"), wide - 2 * INSET, bold=False)[:ALIKE_LINES]
        rect = Rect(x, y, wide, SINGLE + LINE * len(lines) - 6)
        middle = x + wide / 2
        texts = [Text(middle, y + 20, title, "title", "middle")]
        texts += [Text(middle, y + 21 + LINE * (i + 1), line, "note", "middle") for i, line in enumerate(lines)]
        tip = f"{title} in both: {words}"
        return Box(run.node, run.nodes, "alike", rect, tuple(texts), tip=tip, hue="grey-0")

    def _words_of(self, run: DrawnAlike) -> str:
        """The blocks of a run as a pattern writes them; it is placed by itself, and again in its column."""
        if run.nodes not in self._written:
            self._written[run.nodes] = as_written(self.captions, run.inside)
        return self._written[run.nodes]

    def pill(self, node: str, y: float) -> tuple[Mark, Text] | None:
        """The norm of the sum after a post-norm block, on the rail."""
        norm = post_norm(self.graph.block(node)["options"])
        if norm is None:
            return None
        text = norm.in_words(eps=self.opened)
        wide = even(text_width(text, "mark") + 10)
        return Mark(Rect(-wide / 2, y, wide, PILL), "norm"), Text(0.0, y + 11.5, text, "mark", "middle")

    def taps(self, node: str, rect: Rect) -> tuple[float, float]:
        """Where the stream enters a box and its update leaves it."""
        face = self.faces[node]
        if face.operations:
            return face.row(rect, 0), face.row(rect, -1)
        return rect.y + TAP, rect.bottom - TAP

    def heights(self, node: str, rect: Rect, wires: Sequence[tuple[str, str]]) -> list[float]:
        """Where wires, each its role and its source, meet a box's left edge.

        Scores of several blocks arrive at one place. Those that leave have the role "out", and what they carry as their
        source; they too leave from one place.
        """
        face = self.faces[node]
        ends = [(role, source if role in ("position", "out") else "") for role, source in wires]
        distinct = [*dict.fromkeys(ends)]
        if not face.operations:
            return [rect.y + rect.height * (distinct.index(end) + 1) / (len(distinct) + 1) for end in ends]
        rows = [self._row(face, role, source) for role, source in distinct]
        heights = {
            end: face.row(rect, row) + OP * ((rows[:i].count(row) + 1) / (rows.count(row) + 1) - 0.5)
            for i, (end, row) in enumerate(zip(distinct, rows, strict=True))
        }
        return [heights[end] for end in ends]

    def _row(self, face: _Face, role: str, source: str) -> int:
        if role == "out" and source in ("kv", "values"):  # from where they are made
            made = (i for i, row in enumerate(face.operations) if "v" in row.text.replace(",", "").split())
            return next(made, len(face.operations) // 2)
        reads = read_by(self.graph, source) if role == "position" else source if role == "out" else role
        return next((i for i, row in enumerate(face.operations) if reads in row.reads), len(face.operations) // 2)

    # Other nodes -----------------------------------------------------------------------------------------------------

    def sum(self, nodes: tuple[str, ...], at: Point) -> Box:
        tip = f"{nodes[0]}: the stream and what each branch adds to it"
        return Box(nodes[0], nodes, "sum", None, join=at, tip=tip)

    def gain(self, nodes: tuple[str, ...], at: Point) -> Box:
        tip = "what this branch added to the stream"
        return Box(nodes[0], nodes, "gain", None, join=at, sign=GAIN, tip=tip)

    def label(self, nodes: tuple[str, ...], name: str, at: Point) -> Box:
        """A dot on the rail, with its name at the right above what begins there."""
        texts = (Text(7.0, at[1] - 4.5, f"^{name}", "name"),) if name else ()
        tip = f"{name}: " if name else ""
        return Box(
            nodes[0], nodes, "label", None, texts, join=at, sign="", tip=tip + reads.place_of(self.graph, [*nodes])
        )

    def read(self, nodes: tuple[str, ...], y: float) -> Box:
        """A circle on the rail where it adds, with how beside that; else, in the stream's place, how."""
        attrs = self.graph.nx.nodes[nodes[0]]
        join = JOINS[attrs["join"]]
        how = join.formula.removeprefix("x + ") if self.opened else join.name
        beside = [_scale(attrs["scale"]), f"@{attrs['tie']}" if attrs["tie"] else "", *self._measured(nodes)]
        tip = self._tip(nodes, self.details.of_read(nodes))
        if join.replaces:
            text = " ".join(filter(None, (how, *beside)))
            wide = even(text_width(text, "mark") + 12)
            rect = Rect(-wide / 2, y, wide, PILL)
            texts = [Text(0.0, y + 11.5, text, "mark", "middle")]
            marks: list[Mark] = []
            self._badge(marks, texts, nodes[0], Rect(rect.x - BADGE / 2, rect.middle, 0.0, 0.0))
            return Box(nodes[0], nodes, "read", rect, tuple(texts), tuple(marks), tip=tip)
        text = " ".join(filter(None, (how if join.shapes(1, 1) else "", *beside)))
        marks, texts = [], []
        self._badge(marks, texts, nodes[0], Rect(-RADIUS - BADGE / 2 - 2, y + RADIUS, 0.0, 0.0))
        if text:
            _mark(marks, texts, text, RADIUS + 11, y + RADIUS - 7.5, "how")
        return Box(nodes[0], nodes, "read", None, tuple(texts), tuple(marks), (0.0, y + RADIUS), tip=tip)

    def lone_read(self, node: str) -> Box:
        """A read as a pattern writes it, where there is no rail."""
        text = " ".join((self.captions.name(node), *self._measured((node,))))
        wide = even(text_width(text, "mark") + 12)
        texts = (Text(wide / 2, 11.5, text, "mark", "middle"),)
        tip = self._tip((node,), self.details.of_read((node,)))
        return Box(node, (node,), "read", Rect(0, 0, wide, PILL), texts, tip=tip)

    def skip(self, skip: DrawnSkip, at: Point) -> Box:
        """A circle on the rail where streams of further up are added; of a sum with a base, what those gained."""
        node, added = skip.node, self.captions.added[skip.node]
        marks: list[Mark] = []
        texts: list[Text] = []
        if added and self.graph.sources(node, "base"):
            _mark(marks, texts, GAIN, RADIUS + 11, at[1] - 7.5, "how")
        tip = reads.skip_words(self.graph, node, added)
        is_sum = isinstance(skip, DrawnSum)
        if is_sum:
            tip = f"{node}: a sum that adds nothing" if not added else f"{node}: the stream and {tip}"
            self._badge(marks, texts, node, Rect(at[0] - RADIUS - BADGE / 2 - 2, at[1], 0.0, 0.0))
        role = "sum" if is_sum else "skip"
        return Box(node, skip.nodes, role, None, tuple(texts), tuple(marks), at, tip=tip)

    def input(self, x: float, y: float, wide: float) -> Box:
        graph = self.graph
        read = " · ".join(filter(None, (ends.model_input(graph), ends.length(graph, "length {}"))))
        notes = [read, f"dim {graph.dim:,}", *ends.options(graph)]
        titles = {"tokens": "Token embedding", "images": "Patch embedding"}
        return self._end(graph.start, titles.get(graph.reads or "", "Input"), notes, x, y, wide)

    def output(self, x: float, y: float, wide: float) -> Box:
        attrs = self.graph.nx.nodes[self.graph.end]
        notes = [ends.last_norm(self.graph), ends.gives(self.graph), "tied to the embedding" if attrs["tied"] else ""]
        notes += ends.output_options(self.graph)
        return self._end(self.graph.end, "Output", notes, x, y, wide)

    def _end(self, node: str, title: str, notes: list[str], x: float, y: float, wide: float) -> Box:
        notes = [note for note in notes if note]
        rows = [(line, "value") for line in self._measured((node,))]
        rows += [(line, "note") for line in wrapped(notes, size("note"), wide - INSET, " · ")]
        changes = wrapped([*self.told.changes.get(node, ())], size("change"), wide - INSET, bold=True)
        rows += [(line, "change") for line in changes]
        rect = Rect(x, y, wide, 30 + LINE * len(rows))
        middle = x + wide / 2
        texts = [Text(middle, y + 19, title, "title", "middle")]
        texts += [Text(middle, y + 20 + LINE * (i + 1), line, role, "middle") for i, (line, role) in enumerate(rows)]
        marks: list[Mark] = []
        self._badge(marks, texts, node, rect)
        tip = self._tip((node,), self.details.of_end(node, [title, *notes]))
        hue = self.told.hue(node) if self.colors.heat is None else self.colors.heat.look((node,))
        return Box(node, (node,), self.graph.node_type(node), rect, tuple(texts), tuple(marks), tip=tip, hue=hue)

    def source(self, node: str, right: float, y: float) -> Box:
        """A position, the condition or the context, its right upper corner there."""
        attrs = self.graph.nx.nodes[node]
        if attrs["type"] == "context":
            title, tip = "context", f"{node}: the sequence that cross-attention reads"
        elif attrs["type"] == "condition":
            title, tip = "condition", self.details.of_condition(node)
        else:
            title, tip = self.captions.position(node), self.details.of_position(node)
            title += "" if read_by(self.graph, node) else " positions"
        most = max(text_width(title, "label"), SOURCE_LEAST)
        lines = wrapped(self.details.further(node), size("note"), most) if self.opened else []
        wide = even(max(text_width(title, "label"), widest(lines, "note")) + 2 * INSET)
        middle = right - wide / 2
        texts = [Text(middle, y + 17, title, "label", "middle")]
        texts += [Text(middle, y + 18 + LINE * (i + 1), line, "note", "middle") for i, line in enumerate(lines)]
        rect = Rect(right - wide, y, wide, SOURCE + LINE * len(lines))
        marks: list[Mark] = []
        self._badge(marks, texts, node, rect)
        return Box(node, (node,), attrs["type"], rect, tuple(texts), tuple(marks), tip=tip)


def _mark(marks: list[Mark], texts: list[Text], text: str, x: float, y: float, role: str) -> None:
    marks.append(Mark(Rect(x, y, text_width(text, "mark") + 8, 15), role))
    texts.append(Text(x + 4, y + 11, text, "mark"))


def _scale(scale: float) -> str:
    return "" if scale == 1 else "×½" if scale == 0.5 else f"×{scale:.3g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
