"""The geometry of a stack: its blocks beside the rail of the residual stream, which runs down at their right.

A part of the tree is placed about a rail at x = 0; branches are placed as columns of their own and then moved. What is
read beside the stream comes in from the left, and what is read of the stream itself from the right: see `lanes`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...graph.costs import stage_title
from ...graph.layout import Chain
from ..parts import (
    DrawnAlike,
    DrawnBlock,
    DrawnBranches,
    DrawnLabel,
    DrawnRead,
    DrawnRepeat,
    DrawnRow,
    DrawnSide,
    DrawnSkip,
    DrawnSum,
    Part,
    Parts,
    drawn_blocks,
    leaves,
)
from ..tree import DrawnStack, tree
from ..widths import broken
from ..wiring import End, Wire
from ..words.operations import adds
from . import columns
from .face import SHOULDER, STUB, Faces
from .lanes import LANE, LEFT, NEAR, RIGHT, Lane, Port, bundled, lanes
from .numbers import number
from .placed import ColumnPart
from .scene import RADIUS, Box, Edge, Frame, Point, Rect, Scene, Text, size, text_width

if TYPE_CHECKING:
    from ...graph.graph import Graph

GAP = 12.0  # between what follows one another
PAD = 11.0  # from a frame to what is in it
ABREAST = 380.0  # how wide two branches beside each other may be
COUNT = 17.0  # height of the number of times on a repeat's frame
HEADING = 17.0  # of a stage


class Column:
    """Places the parts of one graph."""

    def __init__(self, graph: Graph, faces: Faces) -> None:
        self.graph, self.faces = graph, faces
        self.arriving: dict[End, list[Wire]] = {}
        self.leaving: dict[End, list[Wire]] = {}
        self.heights: dict[int, float] = {}  # of rows, by their numbers, where another column needs more than this one
        self.high: dict[Hashable, float] = {}  # how much plain parts take
        self.placing: dict[type[Part], Callable[[ColumnPart, Any], None]] = {
            DrawnBlock: self._block,
            DrawnLabel: self._label,
            DrawnSkip: self._skip,
            DrawnSum: self._skip,
            DrawnRead: self._read,
            DrawnAlike: self._alike,
            DrawnSide: self._side,
            DrawnBranches: self._branches,
            DrawnRepeat: self._repeat,
        }

    def begin(self, drawn: DrawnStack) -> None:
        """Set what all of its boxes have in common, and what reads what."""
        self.drawn = drawn
        self.faces.measure(drawn_blocks(drawn.parts))
        for wire in drawn.wires:
            self.arriving.setdefault(wire.target, []).append(wire)
            self.leaving.setdefault(wire.source, []).append(wire)

    def stack(self, items: Chain, top: float, unfold: bool, count: int | None = None) -> list[ColumnPart]:
        """All stages in columns, each on a rail that starts at `top`.

        Args:
            unfold: draw every block.
            count: how many columns; None: one, or more where that is too long.
        """
        self.begin(tree(self.faces.captions, items, unfold))
        stages = self.drawn.stages
        units = [(stage, unit) for stage, parts in stages for unit in columns.units(parts)]
        heights = [self.height(unit) for _, unit in units]
        if count is None:
            high = sum(heights) + sum(self.heading(stage, False) + self.foot for stage, _ in stages)
            count = columns.count(high, self._width)
        if count == 1 or len(units) < 2:
            return [self._strip(stages, top, self.graph.start)]
        runs = columns.runs_of(heights, count)
        return self.strips([units[run.start : run.stop] for run in runs], top)

    def _width(self) -> float:
        """How wide all stages are in one column; without wires, as wide as one of each that look alike."""
        stages = self.drawn.stages
        if not self.drawn.wires:
            stages = tuple(
                (stage, tuple({self._plain(part) or id(part): part for part in parts}.values()))
                for stage, parts in stages
            )
        piece = self._strip(stages, 0.0, self.graph.start)
        return piece.left + piece.right

    def strips(self, runs: Sequence[Sequence[tuple[int, Parts]]], top: float) -> list[ColumnPart]:
        """Parts, with their stages, in columns: each run in one."""
        pieces: list[ColumnPart] = []
        before = None
        for run in runs:
            stages: dict[int, Parts] = {}
            for stage, unit in run:
                stages[stage] = (*stages.get(stage, ()), *unit)
            node = pieces[-1].node if pieces else self.graph.start
            pieces.append(self._strip([*stages.items()], top, node, before))
            before = [*stages][-1]
        columns.link(pieces, self.drawn.wires, self._label_of)
        if len(pieces) > 1:
            number(pieces)
        return pieces

    def height(self, parts: Parts) -> float:
        """How much of a column parts take."""
        return sum(map(self._height, parts))

    def _height(self, part: Part) -> float:
        if (key := self._plain(part)) is None:
            return self._down(ColumnPart(0.0, "", 0.0, 0.0), (part,)).y
        if key not in self.high:
            self.high[key] = self._down(ColumnPart(0.0, "", 0.0, 0.0), (part,)).y
        return self.high[key]

    def _plain(self, part: Part) -> Hashable | None:
        """Of a block, or a repeat of blocks, a key for all that take as much, but for their wires; None: of others."""
        if type(part) is DrawnBlock:
            return self.faces.faces[part.node].space
        if type(part) is DrawnRepeat:
            inside = [self._plain(each) for each in part.parts]
            return None if None in inside else (part.times, *inside)
        return None

    def heading(self, stage: int, goes_on: bool) -> float:
        """How much is above a stage's parts; `goes_on`: it began in another column."""
        return 0.0 if self.graph.stages == [None] else GAP + HEADING * len(self._title(stage, goes_on))

    @property
    def foot(self) -> float:
        """How much is below a stage's parts."""
        return 0.0 if self.graph.stages == [None] else PAD

    def _title(self, stage: int, goes_on: bool) -> list[str]:
        title = f"stage {stage_title(self.graph, stage)}" + (", continued" if goes_on else "")
        return broken(title, size("label"), self.faces.width + STUB - 6)

    def _label_of(self, wire: Wire) -> str:
        """The label that a wire's source shows; empty: it shows none."""
        if isinstance(wire.source, DrawnLabel):
            return wire.source.name
        own = () if isinstance(wire.source, str) else self.faces.captions.own(wire.source.node)
        return own[0] if own and wire.role != "scores" else ""

    def _strip(
        self, stages: Sequence[tuple[int, Parts]], top: float, node: str, before: int | None = None
    ) -> ColumnPart:
        """Stages, or parts of them, in one column; the first goes on that of the column `before` if it is the same."""
        piece = ColumnPart(top, node, top, top)
        for stage, own in stages:
            piece.take(self._stage(piece.next(), stage, own, stage == before))
        frames = piece.scene.frames
        for i, frame in enumerate(frames):
            if frame.role == "stage":
                rect = Rect(-piece.left, frame.rect.y, piece.left + piece.right, frame.rect.height)
                labels = tuple(label._replace(x=rect.x + PAD) for label in frame.labels)
                frames[i] = frame._replace(rect=rect, labels=labels)
        return self._join(piece)

    def _stage(self, piece: ColumnPart, stage: int, parts: Parts, goes_on: bool) -> ColumnPart:
        if self.graph.stages == [None]:
            return self._chain(piece, parts)
        top, lines = piece.y + GAP, self._title(stage, goes_on)
        piece.y += self.heading(stage, goes_on)
        self._chain(piece, parts)
        piece.left, piece.right = max(piece.left, self.faces.width + STUB) + PAD, max(piece.right, SHOULDER) + PAD
        rect = Rect(-piece.left, top, piece.left + piece.right, piece.y + PAD - top)
        labels = (Text(rect.x + PAD, top + 16 + 14 * i, line, "label") for i, line in enumerate(lines))
        piece.scene.frames.insert(0, Frame("stage", rect, stage, tuple(labels)))
        piece.y = rect.bottom
        return piece

    def _chain(self, piece: ColumnPart, parts: Parts) -> ColumnPart:
        """Parts one below the other, and the wires between them."""
        return self._join(self._down(piece, parts))

    def _down(self, piece: ColumnPart, parts: Parts) -> ColumnPart:
        for part in parts:
            if isinstance(part, DrawnRow):
                end = piece.y + self.heights.get(part.number, 0.0)
                piece.y = max(self._down(piece, part.parts).y, end)
                continue
            top = piece.y
            piece.y += GAP
            if isinstance(part, DrawnBlock) and part.is_node and self.faces.captions.gap(part.node):
                self.end(piece, top)
                piece.node, piece.rail = part.node, piece.y  # the stream begins here, after a gap
            self.placing[type(part)](piece, part)
        return piece

    def end(self, piece: ColumnPart, y: float) -> None:
        """Lead the rail to its end there."""
        if piece.rail < y:
            piece.scene.edges.append(Edge("rail", piece.node, piece.node, ((0.0, piece.rail), (0.0, y)), arrow=False))

    def _block(self, piece: ColumnPart, block: DrawnBlock) -> None:
        node = block.node
        box = self.faces.box(block, -STUB - self.faces.width, piece.y, on_rail=True)
        face, rect = self.faces.faces[node], box.rect
        assert rect is not None
        enter, leave = rect.y + face.taps[0], rect.y + face.taps[1]
        alone = not face.sign  # the rail ends where it enters, and begins where it leaves
        joins = 0.0 if alone else -RADIUS
        piece.scene.edges += [
            Edge("branch", piece.node, node, ((0.0, enter), (rect.right, enter))),
            Edge("branch", node, node, ((rect.right, leave), (joins, leave)), not alone),
        ]
        piece.y = rect.bottom
        piece.step(node, *((enter, leave) if alone else (leave - RADIUS, leave + RADIUS)))
        if face.pill is not None:
            pill = face.pill.moved(0.0, rect.y)
            piece.scene.edges.append(Edge("rail", node, node, ((0.0, piece.rail), (0.0, pill.y)), False))
            piece.y = piece.rail = pill.bottom
            piece.right = max(piece.right, pill.right)
        piece.scene.boxes.append(box)
        piece.ports += self._ports(block, rect)
        piece.left = max(piece.left, -rect.x)

    def _ports(self, block: DrawnBlock, rect: Rect) -> list[Port]:
        if not self.drawn.wires:
            return []
        wires = [(wire, False) for wire in self.arriving.get(block, ())]
        wires += [(wire, True) for wire in self.leaving.get(block, ())]
        if not wires:
            return []
        ends = [("out", wire.role) if out else (wire.role, _name(wire.source)) for wire, out in wires]
        heights = self.faces.heights(block.node, rect, ends)
        return [Port(wire, out, block.node, ((rect.x, y),)) for (wire, out), y in zip(wires, heights, strict=True)]

    def _alike(self, piece: ColumnPart, run: DrawnAlike) -> None:
        """A box across the rail, for the stream goes through all that it stands for."""
        box = self.faces.alike(run, -STUB - self.faces.width, piece.y, STUB + self.faces.width + SHOULDER)
        rect = box.rect
        assert rect is not None
        piece.scene.boxes.append(box)
        piece.step(run.node, rect.y, rect.bottom)
        wires = self.arriving.get(run, ())
        heights = ((i + 1) / (len(wires) + 1) for i in range(len(wires)))
        piece.ports += [
            Port(wire, False, run.node, ((rect.x, rect.y + rect.height * share),))
            for wire, share in zip(wires, heights, strict=True)
        ]
        piece.left, piece.right = max(piece.left, -rect.x), max(piece.right, SHOULDER)

    def _label(self, piece: ColumnPart, label: DrawnLabel) -> None:
        """A dot on the rail where lines to what reads it begin, with the name above that at the right."""
        piece.y += 4
        box = self.faces.label(label.nodes, label.name, (0.0, piece.y))
        piece.scene.boxes.append(box)
        piece.ports += [Port(wire, True, piece.node, ((0.0, piece.y),)) for wire in self.leaving.get(label, ())]
        piece.right = max(piece.right, *(text.extent[1] for text in box.texts), RADIUS)

    def _read(self, piece: ColumnPart, read: DrawnRead) -> None:
        box = self.faces.read(read.nodes, piece.y)
        self._meet(piece, read, box)
        top, bottom = (box.rect.y, box.rect.bottom) if box.rect else (piece.y, piece.y + 2 * RADIUS)
        piece.step(read.node, top, bottom)

    def _skip(self, piece: ColumnPart, skip: DrawnSkip) -> None:
        self._meet(piece, skip, self.faces.skip(skip, (0.0, piece.y + RADIUS)))
        down = ((0.0, piece.rail), (0.0, piece.y))
        if piece.rail < piece.y:
            piece.scene.edges.append(Edge("rail", piece.node, skip.node, down, arrow=False))
        piece.y = piece.rail = piece.y + 2 * RADIUS
        if isinstance(skip, DrawnSum):
            piece.node = skip.node

    def _meet(self, piece: ColumnPart, part: DrawnBlock, box: Box) -> None:
        """What streams of further up arrive at."""
        piece.scene.boxes.append(box)
        end = (box.rect.right, box.rect.middle) if box.rect else (RADIUS, piece.y + RADIUS)
        piece.ports += [Port(wire, False, part.node, (end,)) for wire in self.arriving.get(part, ())]
        piece.left = max(piece.left, end[0])  # a read on the rail is as wide at both sides
        piece.right = max(piece.right, end[0], *(mark.rect.right for mark in box.marks), RADIUS)

    def _repeat(self, piece: ColumnPart, repeat: DrawnRepeat) -> None:
        top, inside = piece.y, piece.next()
        inside.y = top - GAP + PAD + (COUNT / 2 if type(repeat.parts[0]) is DrawnRepeat else 0.0)
        self._chain(inside, repeat.parts)
        right = max(inside.right, SHOULDER - 3) + (PAD if inside.right > SHOULDER else 3)
        rect = Rect(-inside.left - PAD, top, inside.left + PAD + right, inside.y + PAD - top)
        times = f"×{repeat.times:,}"
        x = min(rect.x + 28, -2 * RADIUS - text_width(times, "times"))  # of reads alone, left of the rail
        label = Text(x, top + 4.5, times, "times")
        inside.scene.frames.insert(0, Frame("repeat", rect, repeat.times, (label,)))
        inside.y, inside.left, inside.right = rect.bottom, max(-rect.x, RADIUS - x), rect.right
        piece.take(inside)

    # Branches --------------------------------------------------------------------------------------------------------

    def _branches(self, piece: ColumnPart, branches: DrawnBranches) -> None:
        """Branches in rows, in each one left of the rail and one right of it, or one alone where two are too wide.

        Each row hands the stream out above it. What its blocks read beside it comes through channels above, and the
        scores that others read leave below. What they add is gathered below the last row; that of the rows before goes
        there around those below.
        """
        base, meet = piece.node, branches.node
        rows = _rows([self._branch(column, base) for column in branches.columns])
        top, placed = piece.y, []
        for row in rows:
            entering = lanes(port.wire for column in row for port in column.ports if not port.out)
            leaving = lanes(port.wire for column in row for port in column.ports if port.out)
            spread, foot = top + LANE * len(entering), max(column.y for column in row) + GAP + RADIUS
            above = {lane: LANE * (i - len(entering)) for i, lane in enumerate(entering)}
            below = {lane: foot + RADIUS + LANE * (i + 0.5) for i, lane in enumerate(leaving)}
            for column, at in zip(row, (LEFT, RIGHT), strict=False):
                self._channel(column, above, below)
                x = at * (STUB + column.extent(-at))
                piece.widen(at, at * x + column.extent(at))
                placed.append((column.moved(x, spread), spread, spread + foot))
            gather = spread + foot
            top = gather + RADIUS + LANE * len(leaving) + GAP
        piece.step(meet, gather - RADIUS, gather + RADIUS)
        piece.scene.boxes.append(self.faces.sum(branches.nodes, (0.0, gather)))
        piece.y = top - GAP
        for at in (LEFT, RIGHT):
            own = [each for each in placed if each[0].x * at > 0]
            if any(foot < gather for _, _, foot in own):
                piece.widen(at, piece.extent(at) + LANE)
            for column, spread, foot in own:
                way = () if foot == gather else ((at * piece.extent(at), foot), (at * piece.extent(at), gather))
                self._gather(piece, column, spread, meet, ((column.x, foot), *way, (at * RADIUS, gather)))

    def _side(self, piece: ColumnPart, side: DrawnSide) -> None:
        """A way beside the rail, at its left, that begins at it and ends in what is read of it further down."""
        (parts,), top = side.columns, piece.y
        own = [*leaves(parts)]
        entering = lanes(w for n in own for w in self.arriving.get(n, ()) if w.source not in own)
        leaving = lanes(w for n in own for w in self.leaving.get(n, ()) if w.target not in own)
        start = top + LANE * len(entering)
        column = ColumnPart(start + GAP / 2, piece.node, start, start)
        self._chain(column, parts)
        self.end(column, column.y)
        above = {lane: top + LANE * i for i, lane in enumerate(entering)}
        below = {lane: column.y + LANE * (i + 0.5) for i, lane in enumerate(leaving)}
        piece.y = column.y + LANE * len(leaving)
        self._channel(column, above, below)
        x = -STUB - column.right
        piece.left = max(piece.left, column.left - x)
        moved = Scene("")
        moved.add(column.scene, x)
        head = ((0.0, start), (x, start))
        moved.edges = [e.through((*head, *e.points[1:])) if e.points[0] == head[1] else e for e in moved.edges]
        piece.scene.add(moved)
        piece.ports += [port.moved(x) for port in column.ports]

    def _branch(self, parts: Parts, base: str) -> ColumnPart:
        """One column: a lone block in its own line, others beside a rail of their own that ends in their gain."""
        block = parts[0] if len(parts) == 1 else None
        if type(block) is DrawnBlock and adds(self.graph, block.node):
            box = self.faces.box(block, -self.faces.width / 2, 2 * GAP)
            rect = box.rect
            assert rect is not None
            half = self.faces.width / 2
            piece = ColumnPart(rect.bottom, block.node, rect.bottom, 0.0, half, half, ports=self._ports(block, rect))
            piece.scene.boxes.append(box)
            piece.scene.edges.append(Edge("branch", base, block.node, ((0.0, 0.0), (0.0, rect.y))))
            return self._join(piece)
        piece = ColumnPart(GAP / 2, base, 0.0, 0.0)
        self._chain(piece, parts)
        piece.y += 4
        return piece

    def _gather(self, piece: ColumnPart, column: ColumnPart, spread: float, meet: str, way: Sequence[Point]) -> None:
        """Lead the stream into a column, and what it adds out of it, `way`, to where branches meet."""
        x, scene = column.x, column.scene
        start, head = (x, column.start), ((0.0, spread), (x, spread))
        scene.edges = [e.through((*head, *e.points[1:])) if e.points[0] == start else e for e in scene.edges]
        foot = (x, column.rail)
        if column.rail < column.y or not scene.boxes:  # a rail of its own
            middle = (x, max(column.y, column.start + GAP) + RADIUS)
            lead = ((x, column.rail),) if scene.boxes else head
            scene.edges.append(Edge("rail", column.node, meet, (*lead, (x, middle[1] - RADIUS)), arrow=False))
            scene.boxes.append(self.faces.gain((meet,), middle))
            foot = (x, middle[1] + RADIUS)
        scene.edges.append(Edge("branch", column.node, meet, (foot, *way)))
        piece.scene.add(scene)
        piece.ports += column.ports

    def _channel(self, column: ColumnPart, above: dict[Lane, float], below: dict[Lane, float]) -> None:
        """Lead a column's ports to the channels of its branches."""
        for at in (LEFT, RIGHT):
            own = lanes(port.wire for port in column.ports if port.side == at)
            places = {lane: column.extent(at) + NEAR + LANE * (i + 1) for i, lane in enumerate(own)}
            for i, port in enumerate(column.ports):
                if port.side == at:
                    x = at * places[port.lane]
                    y = (below if port.out else above)[port.lane]
                    column.ports[i] = replace(port, points=(*port.points, (x, port.y), (x, y)))
            column.widen(at, max([0.0, *places.values()]))

    def _join(self, piece: ColumnPart) -> ColumnPart:
        """Draw the wires that begin and end in this piece."""
        if not piece.ports:
            return piece
        for at in (LEFT, RIGHT):
            bundle = bundled(piece.ports, at, piece.extent(at))
            piece.scene.edges += bundle.edges
            piece.scene.labels += bundle.texts
            piece.widen(at, bundle.extent)
        arriving = {port.wire for port in piece.ports if not port.out}
        done = {port.wire for port in piece.ports if port.out and port.wire in arriving}
        piece.ports = [port for port in piece.ports if port.wire not in done]
        return piece


def _rows(columns: Sequence[ColumnPart]) -> list[list[ColumnPart]]:
    """Two that follow each other in a row where they are not too wide for that, else one."""
    rows: list[list[ColumnPart]] = []
    for column in columns:
        own = rows[-1] if rows else []
        if len(own) == 1 and sum(each.left + each.right for each in (*own, column)) <= ABREAST:
            own.append(column)
        else:
            rows.append([column])
    return rows


def _name(end: End) -> str:
    return end if isinstance(end, str) else end.node
