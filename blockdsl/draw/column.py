"""The geometry of a stack: its blocks beside the rail of the residual stream, which runs down at their right.

A part of the tree is placed about a rail at x = 0; branches are placed as columns of their own and then moved. What a
block reads beside the stream comes in from the left: each source has a lane, a vertical line with arrows to the blocks
 that read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from ..graph.costs import stage_title
from ..graph.layout import Chain, split_stages
from .face import SHOULDER, STUB, Faces
from .operations import adds
from .scene import RADIUS, Edge, Frame, Point, Rect, Scene, Text, even, text_width
from .tree import DrawnBlock, DrawnBranches, DrawnRepeat, Parts, drawn_blocks, tree

if TYPE_CHECKING:
    from ..graph.graph import Graph

GAP = 12.0  # between what follows one another
LANE = 9.0  # from one lane to the next
NEAR = 5.0  # more than that from a box to the first lane, for an arrow to end in
PAD = 11.0  # from a frame to what is in it
BETWEEN = 18.0  # branches
HEADING = 17.0  # of a stage

Lane = tuple[str, str]


class Wire(NamedTuple):
    """What a block reads beside the stream."""

    role: str
    source: str
    target: str

    @property
    def lane(self) -> Lane:
        """Wires of one source run together."""
        return self.role, self.source


@dataclass(frozen=True)
class Port:
    """Where a wire arrives at a block or, `out`, leaves one: points from there to the left, as far as placed."""

    wire: Wire
    out: bool
    points: tuple[Point, ...]

    @property
    def y(self) -> float:
        return self.points[-1][1]


@dataclass
class ColumnPart:
    """Parts that are placed.

    Attributes:
        y: where they end.
        node, rail: the rail continues after this node, from this y.
        left, right: how far they extend from the rail.
        start: the y where the rail began.
    """

    y: float
    node: str
    rail: float
    start: float
    left: float = 0.0
    right: float = RADIUS
    scene: Scene = field(default_factory=lambda: Scene(""))
    ports: list[Port] = field(default_factory=list)

    def next(self) -> ColumnPart:
        """An empty one that goes on where this ends."""
        return ColumnPart(self.y, self.node, self.rail, self.start)

    def take(self, other: ColumnPart) -> None:
        """Put what another has into this one, which then ends where the other does."""
        self.scene.add(other.scene)
        self.ports += other.ports
        self.y, self.node, self.rail = other.y, other.node, other.rail
        self.left, self.right = max(self.left, other.left), max(self.right, other.right)

    def step(self, node: str, join: float) -> None:
        """Lead the rail to the circle of a node."""
        self.scene.edges.append(Edge("rail", self.node, node, ((0.0, self.rail), (0.0, join - RADIUS)), arrow=False))
        self.node, self.rail = node, join + RADIUS
        self.y = max(self.y, self.rail)


class Column:
    """Places the parts of one graph."""

    def __init__(self, graph: Graph, faces: Faces, unfold: bool) -> None:
        self.graph, self.faces, self.unfold = graph, faces, unfold
        self.arriving: dict[str, list[Wire]] = {}
        self.leaving: dict[str, list[Wire]] = {}

    def stack(self, items: Chain, top: float) -> ColumnPart:
        """All stages, on a rail that starts at `top`."""
        stages = [
            (stage, tree(self.faces.labels, part, self.unfold)) for stage, part in split_stages(self.graph, items)
        ]
        parts = tuple(part for _, stage in stages for part in stage)
        self.faces.measure(block.node for block in drawn_blocks(parts))
        self._wire(parts)
        piece = ColumnPart(top, self.graph.start, top, top)
        for stage, own in stages:
            piece.take(self._stage(piece.next(), stage, own))
        frames = piece.scene.frames
        for i, frame in enumerate(frames):
            if frame.role == "stage":
                rect = Rect(-piece.left, frame.rect.y, piece.left + piece.right, frame.rect.height)
                frames[i] = replace(frame, rect=rect, label=replace(frame.label, x=rect.x + PAD))
        return self._join(piece)

    def _wire(self, parts: Parts) -> None:
        drawn = {node: block.node for block in drawn_blocks(parts) for node in block.nodes}
        wires: dict[Wire, None] = {}
        for block in drawn_blocks(parts):
            for role in ("position", "condition", "context"):
                wires |= {Wire(role, source, block.node): None for source in self.graph.sources(block.node, role)}
            for node in block.nodes:
                wires |= {
                    Wire("scores", drawn[source], block.node): None for source in self.graph.sources(node, "scores")
                }
        for wire in wires:
            self.arriving.setdefault(wire.target, []).append(wire)
            if wire.role == "scores":
                self.leaving.setdefault(wire.source, []).append(wire)

    def _stage(self, piece: ColumnPart, stage: int, parts: Parts) -> ColumnPart:
        if self.graph.stages == [None]:
            return self._chain(piece, parts)
        top = piece.y + GAP
        piece.y = top + HEADING
        self._chain(piece, parts)
        title = f"stage {stage_title(self.graph, stage)}"
        piece.left, piece.right = piece.left + PAD, max(piece.right, SHOULDER) + PAD
        piece.left = max(piece.left, even(text_width(title, "label") + 2 * PAD))
        rect = Rect(-piece.left, top, piece.left + piece.right, piece.y + PAD - top)
        label = Text(rect.x + PAD, top + 16, title, "label")
        piece.scene.frames.insert(0, Frame("stage", rect, stage, label))
        piece.y = rect.bottom
        return piece

    def _chain(self, piece: ColumnPart, parts: Parts) -> ColumnPart:
        """Parts one below the other."""
        for part in parts:
            piece.y += GAP
            if isinstance(part, DrawnBlock):
                self._block(piece, part)
            elif isinstance(part, DrawnBranches):
                self._branches(piece, part)
            else:
                self._repeat(piece, part)
        return self._join(piece)

    def _block(self, piece: ColumnPart, block: DrawnBlock) -> None:
        box = self.faces.box(block, -STUB - self.faces.width, piece.y)
        rect = box.rect
        assert rect is not None
        enter, leave = self.faces.taps(block.node, rect)
        piece.scene.edges += [
            Edge("branch", piece.node, block.node, ((0.0, enter), (rect.right, enter))),
            Edge("branch", block.node, block.node, ((rect.right, leave), (-RADIUS, leave))),
        ]
        piece.y = rect.bottom
        piece.step(block.node, leave)
        if pill := self.faces.pill(block.node, rect.bottom + 4):
            mark, text = pill
            box = replace(box, marks=(*box.marks, mark), texts=(*box.texts, text))
            down = ((0.0, piece.rail), (0.0, mark.rect.y))
            piece.scene.edges.append(Edge("rail", block.node, block.node, down, arrow=False))
            piece.y = piece.rail = mark.rect.bottom
            piece.right = max(piece.right, mark.rect.right)
        piece.scene.boxes.append(replace(box, join=(0.0, leave)))
        piece.ports += self._ports(block, rect)
        piece.left = max(piece.left, -rect.x)

    def _ports(self, block: DrawnBlock, rect: Rect) -> list[Port]:
        wires = [(wire, False) for wire in self.arriving.get(block.node, ())]
        wires += [(wire, True) for wire in self.leaving.get(block.node, ())]
        heights = self.faces.heights(block.node, rect, [("out", "") if out else wire.lane for wire, out in wires])
        return [Port(wire, out, ((rect.x, y),)) for (wire, out), y in zip(wires, heights, strict=True)]

    def _repeat(self, piece: ColumnPart, repeat: DrawnRepeat) -> None:
        top, inside = piece.y, piece.next()
        inside.y = top - GAP + PAD
        self._chain(inside, repeat.parts)
        right = max(inside.right, SHOULDER - 3) + (PAD if inside.right > SHOULDER else 3)
        rect = Rect(-inside.left - PAD, top, inside.left + PAD + right, inside.y + PAD - top)
        label = Text(right + 6, rect.middle + 5, f"×{repeat.times:,}", "times")
        inside.scene.frames.insert(0, Frame("repeat", rect, repeat.times, label))
        inside.y, inside.left, inside.right = rect.bottom, -rect.x, even(label.extent[1])
        piece.take(inside)

    # Branches --------------------------------------------------------------------------------------------------------

    def _branches(self, piece: ColumnPart, branches: DrawnBranches) -> None:
        """Columns from left to right; the stream is handed out above them, and what they add gathered below.

        What their blocks read beside it comes through channels above, and the scores that others read leave below.
        """
        base, top = piece.node, piece.y
        within = [{block.node for block in drawn_blocks(column)} for column in branches.columns]
        entering = _lanes(w for own in within for n in own for w in self.arriving.get(n, ()) if w.source not in own)
        leaving = _lanes(w for own in within for n in own for w in self.leaving.get(n, ()) if w.target not in own)
        spread = top + LANE * len(entering)
        columns = [self._branch(column, base, spread) for column in branches.columns]
        gather = max(column.y for column in columns) + GAP + RADIUS
        above = {lane: top + LANE * i for i, lane in enumerate(entering)}
        below = {lane: gather + RADIUS + LANE * (i + 0.5) for i, lane in enumerate(leaving)}
        piece.step(branches.node, gather)
        piece.scene.boxes.append(self.faces.sum(branches.nodes, (0.0, gather)))
        piece.y = gather + RADIUS + LANE * len(leaving)
        for column in columns:
            self._channel(column, above, below)
        x = -STUB - sum(column.left + column.right for column in columns) - BETWEEN * (len(columns) - 1)
        piece.left = max(piece.left, -x)
        for column in columns:
            self._place(piece, column, x + column.left, branches.node, spread, gather)
            x += column.left + column.right + BETWEEN

    def _branch(self, parts: Parts, base: str, top: float) -> ColumnPart:
        """One column: a lone block in its own line, others beside a rail of their own that ends in their gain."""
        block = parts[0] if len(parts) == 1 else None
        if isinstance(block, DrawnBlock) and adds(self.graph, block.node):
            box = self.faces.box(block, -self.faces.width / 2, top + 2 * GAP)
            rect = box.rect
            assert rect is not None
            half = self.faces.width / 2
            piece = ColumnPart(rect.bottom, block.node, rect.bottom, top, half, half, ports=self._ports(block, rect))
            piece.scene.boxes.append(box)
            piece.scene.edges.append(Edge("branch", base, block.node, ((0.0, top), (0.0, rect.y))))
            return self._join(piece)
        piece = ColumnPart(top + GAP / 2, base, top, top)
        self._chain(piece, parts)
        piece.y += 4
        return piece

    def _place(self, piece: ColumnPart, column: ColumnPart, x: float, meet: str, spread: float, gather: float) -> None:
        """Move a column there, and lead the stream into it and what it adds out of it."""
        moved = Scene("")
        moved.add(column.scene, x)
        start, head = (x, column.start), ((0.0, spread), (x, spread))
        moved.edges = [replace(e, points=(*head, *e.points[1:])) if e.points[0] == start else e for e in moved.edges]
        foot = (x, column.rail)
        if column.rail < column.y or not moved.boxes:  # a rail of its own
            middle = (x, max(column.y, column.start + GAP) + RADIUS)
            lead = ((x, column.rail),) if moved.boxes else head
            moved.edges.append(Edge("rail", column.node, meet, (*lead, (x, middle[1] - RADIUS)), arrow=False))
            moved.boxes.append(self.faces.gain((meet,), middle))
            foot = (x, middle[1] + RADIUS)
        points = (foot, (x, gather), (-RADIUS, gather))
        moved.edges.append(Edge("branch", column.node, meet, points))
        piece.scene.add(moved)
        piece.ports += [replace(p, points=tuple((px + x, py) for px, py in p.points)) for p in column.ports]

    def _channel(self, column: ColumnPart, above: dict[Lane, float], below: dict[Lane, float]) -> None:
        """Lead a column's ports on its left to the channels of its branches."""
        lanes = {
            lane: column.left + NEAR + LANE * (i + 1) for i, lane in enumerate(_lanes(p.wire for p in column.ports))
        }
        for i, port in enumerate(column.ports):
            x = -lanes[port.wire.lane]
            y = (below if port.out else above)[port.wire.lane]
            column.ports[i] = replace(port, points=(*port.points, (x, port.y), (x, y)))
        column.left += NEAR + LANE * len(lanes) if lanes else 0

    # Scores ----------------------------------------------------------------------------------------------------------

    def _join(self, piece: ColumnPart) -> ColumnPart:
        """Draw the wires that begin and end in this piece, each in a lane where no other is in its way."""
        leaving = {port.wire: port for port in piece.ports if port.out}
        inner = [port for port in piece.ports if not port.out and port.wire in leaving]
        spans: dict[str, list[float]] = {}
        for port in inner:
            spans.setdefault(port.wire.source, []).extend((port.y, leaving[port.wire].y))
        busy: list[list[tuple[float, float]]] = []
        lanes: dict[str, float] = {}
        for source, heights in spans.items():
            low, high = min(heights), max(heights)
            free = (i for i, taken in enumerate(busy) if all(high < a or low > b for a, b in taken))
            number = next(free, len(busy))
            if number == len(busy):
                busy.append([])
            busy[number].append((low, high))
            lanes[source] = -piece.left - NEAR - LANE * (number + 1)
        for port in inner:
            out, x = leaving[port.wire], lanes[port.wire.source]
            points = (*out.points, (x, out.y), (x, port.y), *reversed(port.points))
            piece.scene.edges.append(Edge("scores", port.wire.source, port.wire.target, points))
        done = {port.wire for port in inner}
        piece.ports = [port for port in piece.ports if port.wire not in done]
        piece.left += NEAR + LANE * len(busy) if busy else 0
        return piece


def _lanes(wires: Iterable[Wire]) -> list[Lane]:
    """The lanes that wires need, each once, in order."""
    return [*dict.fromkeys(wire.lane for wire in wires)]
