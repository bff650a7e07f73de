"""The geometry of a stack: its blocks beside the rail of the residual stream, which runs down at their right.

A part of the tree is placed about a rail at x = 0; branches are placed as columns of their own and then moved. What a
block reads beside the stream reaches it from the left: each source has a lane, a vertical line from which arrows turn
off to the blocks that read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from ..costs import stage_title
from .face import STUB, Faces
from .layout import Chain, split_stages
from .scene import RADIUS, Box, Edge, Frame, Point, Rect, Scene, Text, text_width
from .tree import Fork, Part, Parts, Repeat, Unit, tree, units

if TYPE_CHECKING:
    from ..graph import BlockGraph

GAP = 12.0  # between what follows one another
LANE = 9.0  # from one lane to the next
PAD = 11.0  # from a frame to what is in it
COLUMNS = 22.0  # between branches
HEADING = 17.0  # of a stage


class Wire(NamedTuple):
    """What a block reads beside the stream. Those with the same `lane` run together."""

    role: str
    source: str
    target: str

    @property
    def lane(self) -> tuple[str, ...]:
        return tuple(self) if self.role == "scores" else (self.role, self.source)


@dataclass(frozen=True)
class Port:
    """Where a wire arrives at a block or, `out`, leaves one; the points from there to the left, as far as placed."""

    wire: Wire
    out: bool
    points: tuple[Point, ...]

    @property
    def y(self) -> float:
        return self.points[-1][1]

    def along(self, *points: Point) -> Port:
        return replace(self, points=(*self.points, *points))


@dataclass
class Piece:
    """Parts that are placed.

    Attributes:
        left, right: how far they reach from the rail.
        y: where the next part may start.
        node, rail: the rail goes on behind this node, at this y.
        entry: the edges that come from where the rail starts.
    """

    scene: Scene
    y: float
    node: str
    rail: float
    left: float = 0.0
    right: float = 0.0
    ports: list[Port] = field(default_factory=list)
    start: float = 0.0

    def reach(self, left: float, right: float = RADIUS) -> None:
        self.left, self.right = max(self.left, left), max(self.right, right)

    def below(self) -> Piece:
        """An empty one that goes on where this ends."""
        return Piece(Scene(""), self.y, self.node, self.rail, start=self.start)

    def take(self, other: Piece) -> None:
        """Put what another has into this one, which goes on where the other ends."""
        self.scene.add(other.scene)
        self.ports += other.ports
        self.y, self.node, self.rail = other.y, other.node, other.rail
        self.reach(other.left, other.right)


class Column:
    """Places the parts of one graph."""

    def __init__(self, graph: BlockGraph, faces: Faces, unfold: bool) -> None:
        self.graph, self.faces, self.unfold = graph, faces, unfold
        self.drawn: dict[str, str] = {}  # node → that whose box stands for it
        self.wires_of: dict[str, list[Wire]] = {}

    def stack(self, items: Chain, top: float) -> Piece:
        """All stages, from a rail that starts at `top`."""
        stages = [(stage, tree(self.faces.labels, part, self.unfold)) for stage, part in split_stages(self.graph, items)]
        parts = tuple(part for _, stage in stages for part in stage)
        self.drawn = {node: unit.node for unit in units(parts) for node in unit.nodes}
        self.faces.measure([*units(parts)])
        self._wire(parts)
        piece = Piece(Scene(""), top, self.graph.start, top, start=top)
        for stage, own in stages:
            piece.take(self._stage(piece, stage, own))
        return self._laned(piece)

    def _wire(self, parts: Parts) -> None:
        graph = self.graph
        ends: dict[Wire, None] = {}
        for unit in units(parts):
            for role in ("position", "context"):
                ends |= {Wire(role, source, unit.node): None for source in graph.sources(unit.node, role)}
            for node in unit.nodes:
                for source in graph.sources(node, "scores"):
                    ends[Wire("scores", self.drawn.get(source, source), unit.node)] = None
        for wire in ends:
            self.wires_of.setdefault(wire.target, []).append(wire)

    def _into(self, parts: Parts) -> list[Wire]:
        """The wires that come to these parts from elsewhere."""
        inside = {unit.node for unit in units(parts)}
        return [wire for node in inside for wire in self.wires_of.get(node, ()) if wire.source not in inside]

    def _from(self, node: str) -> list[Wire]:
        return [w for wires in self.wires_of.values() for w in wires if w.role == "scores" and w.source == node]

    def _stage(self, before: Piece, stage: int, parts: Parts) -> Piece:
        piece = before.below()
        if self.graph.stages == [None]:
            self._chain(piece, parts)
            return self._laned(piece)
        top = piece.y + GAP
        piece.y = top + HEADING
        self._chain(piece, parts)
        self._laned(piece)
        title = f"stage {stage_title(self.graph, stage)}"
        piece.left = max(piece.left + PAD, text_width(title, "label") + 3 * PAD)
        piece.right += PAD
        rect = Rect(-piece.left, top, piece.left + piece.right, piece.y + PAD - top)
        label = Text(rect.x + PAD, top + 16, title, "label")
        piece.scene.frames.insert(0, Frame("stage", rect, stage, label))
        piece.y = rect.bottom
        return piece

    def _chain(self, piece: Piece, parts: Parts) -> None:
        for part in parts:
            piece.y += GAP
            self._part(piece, part)

    def _part(self, piece: Piece, part: Part) -> None:
        if isinstance(part, Unit):
            self._unit(piece, part)
        elif isinstance(part, Fork):
            self._fork(piece, part)
        else:
            self._repeat(piece, part)

    def _unit(self, piece: Piece, unit: Unit) -> None:
        box = self.faces.box(unit, -STUB - self.faces.width, piece.y)
        rect = box.rect
        assert rect is not None
        enter, leave = self.faces.taps(unit, rect)
        join = (0.0, leave)
        before, after = piece.node, unit.node
        scene = piece.scene
        scene.edges += [
            Edge("rail", before, after, ((0.0, piece.rail), (0.0, leave - RADIUS)), arrow=False),
            Edge("branch", before, after, ((0.0, enter), (rect.right, enter))),
            Edge("branch", after, after, ((rect.right, leave), (-RADIUS, leave))),
        ]
        scene.boxes.append(replace(box, join=join))
        piece.ports += self._ports(unit, rect)
        piece.node, piece.rail, piece.y = after, leave + RADIUS, max(rect.bottom, leave + RADIUS)
        piece.reach(-rect.x)

    def _ports(self, unit: Unit, rect: Rect) -> list[Port]:
        arriving, leaving = self.wires_of.get(unit.node, []), self._from(unit.node)
        wires = [(wire, False) for wire in arriving] + [(wire, True) for wire in leaving]
        heights = self.faces.heights(unit, rect, [("out" if out else wire.role) for wire, out in wires])
        return [Port(wire, out, ((rect.x, y),)) for (wire, out), y in zip(wires, heights, strict=True)]

    def _repeat(self, piece: Piece, repeat: Repeat) -> None:
        top = piece.y
        inside = piece.below()
        inside.y = top - GAP + PAD
        self._chain(inside, repeat.parts)
        self._laned(inside)
        times = f"×{repeat.times:,}"
        rect = Rect(-inside.left - PAD, top, inside.left + inside.right + 2 * PAD, inside.y + PAD - top)
        label = Text(rect.right + 6, rect.middle + 5, times, "times")
        inside.scene.frames.insert(0, Frame("repeat", rect, repeat.times, label))
        inside.y = rect.bottom
        inside.reach(-rect.x, label.extent[1])
        piece.take(inside)

    # Branches --------------------------------------------------------------------------------------------------------

    def _fork(self, piece: Piece, fork: Fork) -> None:
        """Columns from left to right; the stream is handed out above them and what they add gathered below."""
        top = piece.y
        lanes = [*dict.fromkeys(wire.lane for column in fork.columns for wire in self._into(column))]
        spread = top + len(lanes) * LANE + 2
        columns = [self._branch(column, piece.node, spread + 2 * GAP) for column in fork.columns]
        lowest = max(column.y for column in columns)
        leaving = [port.wire.lane for column in columns for port in column.ports if port.out]
        gather = lowest + 2 * GAP
        x = -STUB
        for number in range(len(columns) - 1, -1, -1):
            column = columns[number]
            outer = self._imports(column, {lane: top + i * LANE for i, lane in enumerate(lanes)}, leaving, gather)
            x -= column.right
            self._place(piece, fork, column, x, spread, gather)
            piece.ports += [
                replace(port, points=tuple((px + x, py) for px, py in port.points)) for port in column.ports
            ]
            x -= max(column.left, outer) + COLUMNS
        join = (0.0, gather)
        rail = Edge("rail", piece.node, fork.node, ((0.0, piece.rail), (0.0, gather - RADIUS)), arrow=False)
        piece.scene.edges.append(rail)
        piece.scene.boxes.append(self.faces.sum(fork.nodes, join))
        piece.node, piece.rail = fork.node, gather + RADIUS
        piece.y = gather + RADIUS + len(leaving) * LANE
        piece.reach(-x - COLUMNS)

    def _branch(self, parts: Parts, base: str, top: float) -> Piece:
        """One column; a lone block stands in its own line, others beside a rail of their own."""
        if len(parts) == 1 and isinstance(parts[0], Unit):
            (unit,) = parts
            half = self.faces.width / 2
            box = self.faces.box(unit, -half, top)
            rect = box.rect
            assert rect is not None
            piece = Piece(Scene("", [box]), rect.bottom, unit.node, rect.bottom, half, half, self._ports(unit, rect), top)
            return piece
        piece = Piece(Scene(""), top - GAP, base, top - GAP, start=top - GAP)
        self._chain(piece, parts)
        self._laned(piece)
        piece.reach(RADIUS + 2)
        return piece

    def _place(self, piece: Piece, fork: Fork, column: Piece, x: float, spread: float, gather: float) -> None:
        scene, base = piece.scene, piece.node
        head: tuple[Point, ...] = ((0.0, spread), (x, spread))
        alone = len(column.scene.boxes) == 1 and column.scene.boxes[0].join is None and column.scene.boxes[0].rect
        moved = Scene("")
        moved.add(column.scene, x)
        if alone:
            scene.edges.append(Edge("branch", base, column.node, (*head, (x, column.start))))
        elif not moved.boxes:
            scene.edges.append(Edge("branch", base, fork.node, (*head, (x, gather), (-RADIUS, gather))))
            return
        # The branch's rail starts where the stream is handed out.
        rails = [e for e in moved.edges if e.role == "rail" and e.points[0] == (x, column.start) and not alone]
        moved.edges = [replace(e, points=(*head, *e.points[1:])) if e in rails else e for e in moved.edges]
        scene.add(moved)
        foot = column.rail
        if not alone:
            middle = (x, column.y + RADIUS + 3)
            scene.edges.append(Edge("rail", column.node, fork.node, ((x, foot), (x, middle[1] - RADIUS)), arrow=False))
            scene.boxes.append(self.faces.gain(fork.nodes, middle))
            foot = middle[1] + RADIUS
        scene.edges.append(Edge("branch", column.node, fork.node, ((x, foot), (x, gather), (-RADIUS, gather))))

    def _imports(
        self, column: Piece, headers: dict[tuple[str, ...], float], leaving: list[tuple[str, ...]], gather: float
    ) -> float:
        """Lead a column's ports to the channels above and below it; returns how far left its lanes reach."""
        lanes = {lane: -column.left - LANE * (i + 1) for i, lane in enumerate({p.wire.lane: None for p in column.ports})}
        ports = []
        for port in column.ports:
            x = lanes[port.wire.lane]
            y = gather + RADIUS + LANE * (leaving.index(port.wire.lane) + 1) - 4 if port.out else headers[port.wire.lane]
            ports.append(port.along((x, port.y), (x, y)))
        column.ports = ports
        return column.left + LANE * len(lanes)

    # Lanes -----------------------------------------------------------------------------------------------------------

    def _laned(self, piece: Piece) -> Piece:
        """Join the ends of wires that begin and end in this piece."""
        leaving = {port.wire: port for port in piece.ports if port.out}
        busy: list[list[tuple[float, float]]] = []
        left = piece.left
        for port in [port for port in piece.ports if not port.out and port.wire in leaving]:
            out = leaving[port.wire]
            span = (min(out.y, port.y), max(out.y, port.y))
            number = next((i for i, lane in enumerate(busy) if all(span[0] > b or span[1] < a for a, b in lane)), len(busy))
            if number == len(busy):
                busy.append([])
            busy[number].append(span)
            x = -left - LANE * (number + 1)
            points = (*out.points, (x, out.y), (x, port.y), *reversed(port.points))
            piece.scene.edges.append(Edge("scores", port.wire.source, port.wire.target, points))
            piece.ports.remove(port)
            piece.ports.remove(out)
            piece.left = max(piece.left, -x)
        return piece


def lanes_of(ports: list[Port]) -> Iterator[tuple[str, ...]]:
    """The lanes that ports ask for, in order."""
    yield from {port.wire.lane: None for port in ports}


__all__ = ["Box", "Column", "Piece", "Port", "Wire", "lanes_of"]
