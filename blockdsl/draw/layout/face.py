"""The boxes of a picture by themselves: what is written in them, how large they are, what colour they have."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

from ...registry.content import REMEMBERED, by_content
from ...registry.kinds import Kind, kind_of
from ...registry.reads import JOINS
from ..color.colors import Colors
from ..parts import DrawnAlike, DrawnBlock, DrawnRead, DrawnSkip, DrawnSum, drawn_blocks
from ..widths import broken, cut_to_fit, wrapped
from ..words import ends, reads
from ..words.captions import Captions
from ..words.details import Details
from ..words.inline import as_written
from ..words.lines import under_title
from ..words.operations import Operation, post_norm, read_by, rotates, sign_of, steps
from ..words.told import UNTOLD, Told
from .scene import RADIUS, Box, Look, Mark, Point, Rect, Text, even, size, text_width, widest

if TYPE_CHECKING:
    from ...graph.graph import Graph

STUB = 24.0  # from a box to the rail
SHOULDER = 14.0  # how far the input and the output extend past the rail
INSET = 10.0  # from a box's edge to its text
LEAST = 110.0  # a box's width
MOST, NARROW, MOST_OP = 140.0, 96.0, 240.0  # the text in it, where graphs stand side by side, and in an operation
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
    """What one block's box has written in it, and at its join with the stream.

    Attributes:
        norm: of the sum after the block, on the rail; empty: there is none.
        sign: in the circle where its update meets the stream; empty: it takes the stream's place.
    """

    kind: str
    title: str
    tie: str
    label: str
    lines: tuple[str, ...]
    operations: tuple[Operation, ...]
    shift: str
    scale: str
    norm: str
    sign: str
    measured: tuple[str, ...]
    changes: tuple[str, ...]
    most: float

    @cached_property
    def titled(self) -> list[str]:
        """The title in lines."""
        return broken(self.title, size("title"), self.most)

    def rows(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """What stands under the title, from above, and the role of its text."""
        return (self.measured, "value"), (self.lines, "note"), (self.changes, "change")

    @cached_property
    def height(self) -> float:
        rows = len(self.operations)
        lines = len(self.titled) - 1 + len(self.measured) + len(self.lines) + len(self.changes)
        return SINGLE + LINE * lines + (rows * (OP + OP_GAP) + 5 if rows else 0)

    def row(self, index: int) -> float:
        """The middle of an operation, counted from the first; negative ones from the last."""
        count = len(self.operations)
        return self.height - INSET - OP / 2 - (OP + OP_GAP) * (count - 1 - index % count)

    @cached_property
    def taps(self) -> tuple[float, float]:
        """How far below its top the stream enters the box and its update leaves it."""
        return (self.row(0), self.row(-1)) if self.operations else (TAP, self.height - TAP)

    @cached_property
    def code(self) -> str:
        return cut_to_fit(self.kind, size("code"), 80)

    @cached_property
    def indent(self) -> float:
        """Where what has the kind's letters before it begins: what is under the title, or the title by itself."""
        return INSET + text_width(self.code, "code") + 8

    @cached_property
    def titled_at(self) -> float:
        return INSET if any(lines for lines, _ in self.rows()) else self.indent

    @cached_property
    def width(self) -> float:
        """What it needs."""
        title = max(widest(self.titled, "title"), text_width(self.titled[-1], "title") + _marked(self.label, self.tie))
        lines = self.indent + max(widest(each, role) for each, role in self.rows())
        beside = max(self.titled_at + title, lines) + max(_marked(self.shift), _marked(self.scale)) + INSET
        return max(beside, widest([row.text for row in self.operations], "op") + 4 * INSET)

    @cached_property
    def space(self) -> tuple[Any, ...]:
        """All that says how much space a block takes, in boxes that are as wide as each other."""
        return self.height, self.taps, bool(self.sign), self.pill

    @cached_property
    def words(self) -> str:
        """All that is written on it."""
        rows = [row.text for row in self.operations]
        lines, *others = (" ".join(each) for each in (self.lines, self.changes, self.measured))
        said = ", ".join(filter(None, (lines, *rows, self.shift, self.scale, self.tie, self.label, *others)))
        return self.title.lower() + (f" ({said})" if said else "")

    @cached_property
    def pill(self) -> Rect | None:
        """Of the norm on the rail: from that mostly to its left, where a column is wide, and below the box's top."""
        if not self.norm:
            return None
        wide = even(text_width(self.norm, "mark") + 10)
        return Rect(min(wide / 2, SHOULDER - 3) - wide, self.height + 4, wide, PILL)


@lru_cache(REMEMBERED)
def _look(face: _Face, wide: float, hue: str, badge: str, on_rail: bool) -> Look:
    """A block's box from its left upper corner; `on_rail`: with where it meets the stream beside it."""
    rect = Rect(0.0, 0.0, wide, face.height)
    rows = [(line, role) for lines, role in face.rows() for line in lines]
    last = LINE * (len(face.titled) - 1)  # from the first line of the title to its last
    texts = [Text(INSET, 23 + (last + LINE + 2 if rows else 0), face.code, "code")]
    texts += [Text(face.titled_at, 23 + LINE * i, line, "title") for i, line in enumerate(face.titled)]
    texts += [Text(face.indent, 25 + last + LINE * (i + 1), line, role) for i, (line, role) in enumerate(rows)]
    marks: list[Mark] = []
    _badge(marks, texts, badge, rect)
    beside = face.titled_at + text_width(face.titled[-1], "title") + 6
    for text, role in ((face.label, "given"), (face.tie, "tie")):
        if text:
            _mark(marks, texts, text, beside, 11.5 + last, role)
            beside = marks[-1].rect.right + 6
    enter, leave = face.taps
    for text, middle, role in ((face.shift, enter, "shift"), (face.scale, leave, "scale")):
        if text:
            _mark(marks, texts, text, rect.right - text_width(text, "mark") - 12, middle - 7.5, role)
    for i, row in enumerate(face.operations):
        middle = face.row(i)
        marks.append(Mark(Rect(INSET, middle - OP / 2, wide - 2 * INSET, OP), "op"))
        texts.append(Text(wide / 2, middle + 3.5, row.text, "op", "middle"))
        if i:
            marks.append(Mark(Rect(wide / 2 - 0.6, middle - OP / 2 - OP_GAP, 1.2, OP_GAP), "flow"))
    join = None
    if on_rail:
        rail = wide + STUB
        join = (rail, leave) if face.sign else None
        if face.pill is not None:
            marks.append(Mark(face.pill.moved(rail, 0), "norm"))
            middle = rail + face.pill.x + face.pill.width / 2
            texts.append(Text(middle, face.pill.y + 11.5, face.norm, "mark", "middle"))
    return Look("block", rect, tuple(texts), tuple(marks), join, face.sign, face.kind, hue)


class Faces:
    """Boxes for the nodes of one graph.

    Args:
        colors: of its blocks.
        opened: draw the operations of each block.
        told: what a comparison says of nodes.
        most: how wide text in a box may be.
    """

    def __init__(
        self,
        graph: Graph,
        details: Details,
        colors: Colors,
        opened: bool,
        told: Told = UNTOLD,
        most: float = MOST,
    ) -> None:
        self.graph, self.details, self.colors, self.opened, self.told = graph, details, colors, opened, told
        self.most = most
        self.captions: Captions = details.captions
        self.width = LEAST
        self.faces: dict[str, _Face] = {}
        self._written: dict[tuple[str, ...], str] = {}
        # By the id of a face, whose words take long to hash.
        self._looks: dict[tuple[int, float, str, str, bool], Look] = {}
        self.known: dict[Hashable, _Face] = {}  # of blocks that have the same written in them

    def measure(self, blocks: Iterable[DrawnBlock]) -> None:
        """Set the width that all blocks have."""
        for block in blocks:
            self.faces[block.node] = self._face(block)
        self.width = max([self.width, *(even(face.width) for face in self.known.values())])

    def _face(self, block: DrawnBlock) -> _Face:
        node = block.node
        changes = tuple(wrapped([*self.told.changes.get(node, ())], size("change"), self.most, bold=True))
        labels = " ".join(f"^{name}" for name in self.captions.own(node))
        measured = self._measured(block.nodes)
        key = self.captions.alike(node), labels, measured, changes
        if key not in self.known:
            attrs, uses = self.graph.block(node), len(self.graph.uses(node))
            own = attrs["shift"], attrs["scale"], attrs["tie"] or ""
            changed = frozenset(said.partition(" ")[0] for said in self.told.changes.get(node, ()))
            lines = under_title(self.captions, node, self.opened, changed)
            rotated = self.opened and rotates(self.graph, node)
            self.known[key] = _face(
                kind_of(attrs["kind"]),
                attrs["options"],
                self.graph.dim,
                uses,
                self.opened,
                own,
                lines,
                labels,
                rotated,
                measured,
                changes,
                self.most,
            )
        return self.known[key]

    def _measured(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """The number on a box, where there are any; a range and its mean in two lines where one is too long."""
        said = "" if self.colors.heat is None else self.colors.heat.said(nodes)
        return tuple(wrapped(said.split(", "), size("value"), self.most, ", ", bold=True)) if said else ()

    def _tip(self, nodes: Sequence[str], lines: Callable[[], str]) -> Callable[[], str]:
        """A tooltip, with what was measured first."""
        heat = self.colors.heat
        return lines if heat is None else lambda: "\n".join([*heat.tip(nodes), lines()])

    def in_words(self, part: DrawnBlock) -> str:
        """A block with all that is written on it, or how a read joins the stream."""
        if isinstance(part, DrawnSkip):
            return reads.skip_words(self.graph, part.node, self.captions.added[part.node])
        if isinstance(part, DrawnRead):
            return self.captions.names.read_words(part.node)
        return self.faces[part.node].words

    def height(self, node: str) -> float:
        return self.faces[node].height

    def box(self, block: DrawnBlock, x: float, y: float, on_rail: bool = False) -> Box:
        """A block's box with its left upper corner there; `on_rail`: with where it meets the stream at its right."""
        node, nodes = block.node, block.nodes
        face = self.faces[node]
        key = id(face), self.width, self.colors.of(nodes), self.told.sign(node), on_rail
        if (look := self._looks.get(key)) is None:
            look = self._looks[key] = _look(face, *key[1:])
        return Box(node, nodes, look, x, y, self._tip(nodes, partial(self.details.of_block, nodes)))

    def alike(self, run: DrawnAlike, x: float, y: float, wide: float) -> Box:
        """The box of a run that both graphs have: how many blocks, and which."""
        count = sum(len(block.nodes) for block in drawn_blocks(run.inside)) // run.copies
        title = f"{count:,} blocks alike"
        words = self._words_of(run)
        lines = broken(words, size("note"), wide - 2 * INSET, bold=False)[:ALIKE_LINES]
        rect = Rect(0.0, 0.0, wide, SINGLE + LINE * len(lines) - 6)
        texts = [Text(wide / 2, 20, title, "title", "middle")]
        texts += [Text(wide / 2, 21 + LINE * (i + 1), line, "note", "middle") for i, line in enumerate(lines)]
        tip = f"{title} in both: {words}"
        return Box(run.node, run.nodes, Look("alike", rect, tuple(texts), hue="grey-0"), x, y, lambda: tip)

    def _words_of(self, run: DrawnAlike) -> str:
        """The blocks of a run as a pattern writes them; it is placed by itself, and again in its column."""
        if run.nodes not in self._written:
            self._written[run.nodes] = as_written(self.captions, run.inside)
        return self._written[run.nodes]

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
            end: rect.y + face.row(row) + OP * ((rows[:i].count(row) + 1) / (rows.count(row) + 1) - 0.5)
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
        return Box(nodes[0], nodes, SUM, *at, lambda: f"{nodes[0]}: the stream and what each branch adds to it")

    def gain(self, nodes: tuple[str, ...], at: Point) -> Box:
        return Box(nodes[0], nodes, GAINED, *at, lambda: "what this branch added to the stream")

    def label(self, nodes: tuple[str, ...], name: str, at: Point) -> Box:
        """A dot on the rail, with its name at the right above what begins there."""
        texts = (Text(7.0, -4.5, f"^{name}", "name"),) if name else ()
        look = Look("label", None, texts, join=(0.0, 0.0), sign="")
        named = f"{name}: " if name else ""
        return Box(nodes[0], nodes, look, *at, lambda: named + reads.place_of(self.graph, [*nodes]))

    def read(self, nodes: tuple[str, ...], y: float) -> Box:
        """A circle on the rail where it adds, with how beside that; else, in the stream's place, how."""
        attrs = self.graph.nx.nodes[nodes[0]]
        join = JOINS[attrs["join"]]
        how = join.formula.removeprefix("x + ") if self.opened else join.name
        beside = [_scale(attrs["scale"]), f"@{attrs['tie']}" if attrs["tie"] else "", *self._measured(nodes)]
        tip = self._tip(nodes, partial(self.details.of_read, nodes))
        marks: list[Mark] = []
        if join.replaces:
            text = " ".join(filter(None, (how, *beside)))
            wide = even(text_width(text, "mark") + 12)
            rect = Rect(-wide / 2, 0.0, wide, PILL)
            texts = [Text(0.0, 11.5, text, "mark", "middle")]
            _badge(marks, texts, self.told.sign(nodes[0]), Rect(rect.x - BADGE / 2, rect.middle, 0.0, 0.0))
            return Box(nodes[0], nodes, Look("read", rect, tuple(texts), tuple(marks)), 0.0, y, tip)
        text = " ".join(filter(None, (how if join.shapes(1, 1) else "", *beside)))
        texts = []
        _badge(marks, texts, self.told.sign(nodes[0]), Rect(-RADIUS - BADGE / 2 - 2, RADIUS, 0.0, 0.0))
        if text:
            _mark(marks, texts, text, RADIUS + 11, RADIUS - 7.5, "how")
        return Box(nodes[0], nodes, Look("read", None, tuple(texts), tuple(marks), (0.0, RADIUS)), 0.0, y, tip)

    def lone_read(self, node: str) -> Box:
        """A read as a pattern writes it, where there is no rail."""
        text = " ".join((self.captions.name(node), *self._measured((node,))))
        wide = even(text_width(text, "mark") + 12)
        texts = (Text(wide / 2, 11.5, text, "mark", "middle"),)
        tip = self._tip((node,), partial(self.details.of_read, (node,)))
        return Box(node, (node,), Look("read", Rect(0.0, 0.0, wide, PILL), texts), more=tip)

    def skip(self, skip: DrawnSkip, at: Point) -> Box:
        """A circle on the rail where streams of further up are added; of a sum with a base, what those gained."""
        node, added = skip.node, self.captions.added[skip.node]
        marks: list[Mark] = []
        texts: list[Text] = []
        if added and self.graph.sources(node, "base"):
            _mark(marks, texts, GAIN, RADIUS + 11, -7.5, "how")
        tip = reads.skip_words(self.graph, node, added)
        is_sum = isinstance(skip, DrawnSum)
        if is_sum:
            tip = f"{node}: a sum that adds nothing" if not added else f"{node}: the stream and {tip}"
            _badge(marks, texts, self.told.sign(node), Rect(-RADIUS - BADGE / 2 - 2, 0.0, 0.0, 0.0))
        look = Look("sum" if is_sum else "skip", None, tuple(texts), tuple(marks), (0.0, 0.0))
        return Box(node, skip.nodes, look, *at, lambda: tip)

    def input(self, x: float, y: float, wide: float) -> Box:
        graph = self.graph
        notes = [ends.model_input(graph), ends.length(graph, "length {}"), f"dim {graph.dim:,}", *ends.options(graph)]
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
        rect = Rect(0.0, 0.0, wide, 30 + LINE * len(rows))
        texts = [Text(wide / 2, 19, title, "title", "middle")]
        texts += [Text(wide / 2, 20 + LINE * (i + 1), line, role, "middle") for i, (line, role) in enumerate(rows)]
        marks: list[Mark] = []
        _badge(marks, texts, self.told.sign(node), rect)
        tip = self._tip((node,), partial(self.details.of_end, node, [title, *notes]))
        hue = self.told.hue(node) if self.colors.heat is None else self.colors.heat.look((node,))
        look = Look(self.graph.node_type(node), rect, tuple(texts), tuple(marks), hue=hue)
        return Box(node, (node,), look, x, y, tip)

    def source(self, node: str, right: float, y: float) -> Box:
        """A position, the condition or the context, its right upper corner there."""
        attrs = self.graph.nx.nodes[node]
        tip: Callable[[], str]
        if attrs["type"] == "context":
            title, tip = "context", lambda: f"{node}: the sequence that cross-attention reads"
        elif attrs["type"] == "condition":
            title, tip = "condition", partial(self.details.of_condition, node)
        else:
            title, tip = self.captions.position(node), partial(self.details.of_position, node)
        titled = wrapped(title.split(", "), size("label"), self.most, bold=True)
        most = max(widest(titled, "label"), SOURCE_LEAST)
        lines = wrapped([*ends.of_source(self.graph, node)], size("note"), most) if self.opened else []
        wide = even(max(widest(titled, "label"), widest(lines, "note")) + 2 * INSET)
        texts = [Text(wide / 2, 17 + LINE * i, line, "label", "middle") for i, line in enumerate(titled)]
        below = 18 + LINE * len(titled)
        texts += [Text(wide / 2, below + LINE * i, line, "note", "middle") for i, line in enumerate(lines)]
        rect = Rect(0.0, 0.0, wide, SOURCE + LINE * (len(titled) - 1 + len(lines)))
        marks: list[Mark] = []
        _badge(marks, texts, self.told.sign(node), rect)
        return Box(node, (node,), Look(attrs["type"], rect, tuple(texts), tuple(marks)), right - wide, y, tip)


SUM = Look("sum", None, join=(0.0, 0.0))
GAINED = Look("gain", None, join=(0.0, 0.0), sign=GAIN)


@by_content
def _face(
    kind: Kind,
    options: Mapping[str, Any],
    dim: int,
    uses: int,
    opened: bool,
    own: tuple[int, float, str],
    lines: tuple[str, ...],
    labels: str,
    rotated: bool,
    measured: tuple[str, ...],
    changes: tuple[str, ...],
    most: float,
) -> _Face:
    """The face of a block; `own`: its shift, its scale and its tie; `lines`: under its title."""
    shift, scale, tie = own
    rows = steps(kind, kind.completed(dim, options, uses), shift, scale, rotated) if opened else ()
    norm = post_norm(options)
    return _Face(
        kind.name,
        _capital(kind.title),
        cut_to_fit(f"@{tie}", size("mark"), 90) if tie else "",
        cut_to_fit(labels, size("mark"), 90),
        tuple(wrapped([*lines], size("note"), max(LEAST / 2, most - text_width(kind.name, "code") - 8))),
        tuple(row._replace(text=cut_to_fit(row.text, size("op"), MOST_OP)) for row in rows),
        "" if opened or not shift else f"shift {shift}",
        "" if opened else _scale(scale * options["branch_scale"]),
        "" if norm is None else norm.in_words(eps=opened),
        sign_of(options),
        measured,
        changes,
        most,
    )


def _badge(marks: list[Mark], texts: list[Text], sign: str, rect: Rect) -> None:
    """What became of a node, on its box's upper left corner, told by more than a colour."""
    if sign:
        corner = Rect(rect.x - BADGE / 2, rect.y - BADGE / 2, BADGE, BADGE)
        marks.append(Mark(corner, "badge"))
        texts.append(Text(rect.x, rect.y + 4, sign, "badge", "middle"))


def _mark(marks: list[Mark], texts: list[Text], text: str, x: float, y: float, role: str) -> None:
    marks.append(Mark(Rect(x, y, text_width(text, "mark") + 8, 15), role))
    texts.append(Text(x + 4, y + 11, text, "mark"))


def _marked(*marks: str) -> float:
    """How much marks beside a text take."""
    return sum(text_width(mark, "mark") + 14 for mark in marks if mark)


def _scale(scale: float) -> str:
    return "" if scale == 1 else "×½" if scale == 0.5 else f"×{scale:.3g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
