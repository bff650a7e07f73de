"""From graphs to a scene: the stack, what is around it, and graphs beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..graph.costs import stage_title
from ..registry.options import whole
from .alt import alt_text
from .captions import Captions
from .choices import DETAILS, check_choice
from .colors import BY_COST, Colors, colors, heats
from .column import GAP, Column
from .columns import APART as GUTTER
from .columns import stream
from .details import Details
from .face import SHOULDER, SOURCE, STUB, Faces
from .header import stack_facts, stack_settings
from .lanes import LANE, NEAR
from .layered import DOWN, layered
from .legend import add_legend
from .parts import DrawnBlock, Parts
from .placed import ColumnPart
from .scene import RADIUS, Box, Edge, Rect, Scene, Text, size, widest
from .shade import Shade
from .widths import wrapped

if TYPE_CHECKING:
    from ..graph.graph import Graph

SIDE = 18.0  # from the stack to what stands beside it
APART = 46.0  # one graph from the next
COLUMN = 420.0  # a picture that is wider has larger text above it
HEAD_LEAST, HEAD_APART = 230.0, 18.0  # the least width of that text, and from there to the picture


def scene(graphs: Mapping[str, Graph], **options: Any) -> Scene:
    """Of graphs side by side, each under its name; one alone may be called ""."""
    return picture(graphs[""], **options) if [*graphs] == [""] else pictures(graphs, **options)


def picture(
    graph: Graph,
    *,
    unfold: bool = False,
    detail: str = "block",
    color: str | Shade = "kind",
    seq_len: int = 1024,
    columns: int | None = None,
) -> Scene:
    """The scene of one graph; the arguments are those of `BlockGraph.to_svg`."""
    drawn = _Picture(graph, unfold, detail, color, seq_len, columns)
    scene = drawn.scene
    drawn.head(_head_scale(scene.extent.width))
    add_legend(scene, drawn.colors.legend)
    return scene


def pictures(
    graphs: Mapping[str, Graph],
    *,
    unfold: bool = False,
    detail: str = "block",
    color: str | Mapping[str, Shade] = "kind",
    seq_len: int = 1024,
    columns: int | None = None,
    joined: bool = True,
) -> Scene:
    """The scene of several graphs, each under its name.

    A node is called `name.node` in it.

    Args:
        color: for all of them, or a Shade for each by its name.
        joined: what one gives is the context of the next.
    """
    whole = Scene("")
    legend: dict[tuple[str, str], None] = {}
    headings: list[Text] = []
    by_cost = heats(graphs, color, seq_len) if color in BY_COST else None
    before: Box | None = None
    x = 0.0
    drawings: dict[str, _Picture] = {}
    for name, graph in graphs.items():
        own = (color if by_cost is None else by_cost[name]) if isinstance(color, str) else color[name]
        side = name.rpartition(" ")[0]  # "encoder before" and "encoder after" are held against each other
        beside = None if joined else next(g for other, g in graphs.items() if other.rpartition(" ")[0] == side)
        drawings[name] = _Picture(graph, unfold, detail, own, seq_len, columns, joined and bool(drawings), beside)
    scale = _head_scale(sum(drawn.scene.extent.width + APART for drawn in drawings.values()))
    for name, drawn in drawings.items():
        drawn.head(scale)
        graph, scene = drawn.graph, drawn.scene
        extent = scene.extent
        dx = x - round(extent.x)
        scene = _renamed(scene, name)
        headings.append(Text(dx + drawn.middle, 0.0, name, "heading", "middle"))
        whole.add(scene, dx)
        if joined and before is not None and before.rect is not None:
            context = f"{name}.context"
            boxes = [box for box in whole.boxes if box.node == context]
            if not boxes:
                whole.edges = [_fed(edge, context, before) for edge in whole.edges]
            whole.edges += [_into(before, box, x) for box in boxes]
        legend |= dict.fromkeys(drawn.colors.legend)
        before = next(box for box in whole.boxes if box.node == f"{name}.{graph.end}")
        x = round(dx + extent.right) + APART
        whole.title += (" · " if whole.title else "") + f"{name}: {scene.title}"
        whole.alt += (" " if whole.alt else "") + f"{name}: {scene.alt}"
    top = whole.extent.y - 18
    whole.labels += [heading.moved(0, top) for heading in headings]
    add_legend(whole, tuple(legend))
    return whole


def _renamed(scene: Scene, name: str) -> Scene:
    boxes = [replace(b, node=f"{name}.{b.node}", nodes=tuple(f"{name}.{n}" for n in b.nodes)) for b in scene.boxes]
    edges = [replace(e, source=f"{name}.{e.source}", target=f"{name}.{e.target}") for e in scene.edges]
    return replace(scene, boxes=boxes, edges=edges)


def _fed(edge: Edge, context: str, output: Box) -> Edge:
    """An edge from a context that is what another graph gives."""
    if edge.source != context or output.rect is None:
        return edge
    start = output.rect.right, output.rect.middle
    return replace(edge, source=output.node, points=(start, (edge.points[0][0], start[1]), *edge.points[1:]))


def _into(output: Box, context: Box, x: float) -> Edge:
    """An edge to the box of a context, from above."""
    assert output.rect is not None
    assert context.rect is not None
    middle, above = context.rect.x + context.rect.width / 2, context.rect.y - DOWN / 2
    x -= APART / 2
    start = output.rect.right, output.rect.middle
    points = (start, (x, start[1]), (x, above), (middle, above), (middle, context.rect.y))
    return Edge("context", output.node, context.node, points)


def _head_scale(wide: float) -> float:
    """How much larger the text above a picture is where the picture is so wide that it will be shown smaller."""
    return min(1.4, max(1.0, wide / COLUMN))


class _Picture:
    """One graph's scene.

    Args:
        feeds: the context comes from outside the scene: its edges start at its lane, and it has no box.
        beside: a graph that this one is held against.
    """

    def __init__(
        self,
        graph: Graph,
        unfold: bool,
        detail: str,
        color: str | Shade | Colors,
        seq_len: int,
        columns: int | None,
        feeds: bool = False,
        beside: Graph | None = None,
    ) -> None:
        check_choice("detail", detail, DETAILS)
        captions = Captions(graph, beside, sides=True)
        details = Details(graph, captions, seq_len)
        self.graph, self.feeds = graph, feeds
        self.colors = color if isinstance(color, Colors) else colors(graph, details, color)
        self.faces = Faces(graph, details, self.colors.of, detail == "op")
        self.scene = Scene(details.title())
        self.settings = stack_settings(captions) if detail == "block" else []
        items = captions.items
        if items is None:
            self.feeds = False
            self.scene.add(layered(graph, self.faces))
            self.scene.alt = self._alt([("", tuple(DrawnBlock((node,)) for node in graph.nodes("block")))])
            self.middle = self.scene.extent.x + self.scene.extent.width / 2
            return
        unfold = unfold or isinstance(color, Shade)  # blocks of a repeat are alike, and their shades may not be
        count = None if columns is None else whole("columns", columns, 1)
        column = Column(graph, self.faces, unfold)
        pieces = column.stack(items, 0.0, count)
        self.left = STUB + self.faces.width
        self.middle = (SHOULDER - self.left) / 2
        self.feeds = self.feeds and len(pieces) == 1
        self._input(pieces[0])
        pieces = self._side_by_side(pieces)
        self._output(pieces[-1])
        for piece in pieces:
            self.scene.add(piece.scene)
        self._sources(pieces)
        named = graph.stages != [None]
        stages = column.drawn.stages
        self.scene.alt = self._alt([(f"stage {stage_title(graph, i)}" if named else "", parts) for i, parts in stages])

    def _alt(self, stages: list[tuple[str, Parts]]) -> str:
        lines = {box.node: [text.text for text in box.texts] for box in self.scene.boxes}
        written = {node: " · ".join(texts).replace(" · ", ": ", 1) for node, texts in lines.items()}
        return alt_text(written[self.graph.start], stages, written[self.graph.end], self.faces.in_words)

    @property
    def wide(self) -> float:
        return self.left + SHOULDER

    def head(self, scale: float) -> None:
        """Write what the stack is above it, in lines as wide as the picture."""
        extent = self.scene.extent
        words = [(stack_facts(self.graph), "facts"), (self.settings, "settings")]
        longest = max(widest(said, role) for said, role in words) + 1
        wide = max(extent.width, HEAD_LEAST * scale, longest * scale)
        lines = [
            (line, role)
            for said, role in words
            for line in wrapped(said, size(role) * scale, wide, " · ", bold=role == "facts")
        ]
        y = extent.y - HEAD_APART
        for line, role in reversed(lines):
            self.scene.head.append(Text(extent.x, y, line, role, scale=scale))
            y -= round(size(role) * scale * 1.4)

    def _input(self, piece: ColumnPart) -> None:
        """The input, and below it the positions that are added to the tokens."""
        graph, start = self.graph, self.graph.start
        positions = graph.sources(start, "position")
        top = -(SOURCE + GAP) * len(positions)
        box = self.faces.input(-self.left, 0, self.wide)
        assert box.rect is not None
        self.top = top - GAP / 2 - box.rect.height
        box = box.moved(0, self.top)
        rail = top - GAP / 2
        for i, position in enumerate(positions):
            source = self.faces.source(position, -STUB, top + i * (SOURCE + GAP) + GAP / 2)
            assert source.rect is not None
            middle = source.rect.middle
            self.scene.boxes.append(source)
            self.scene.edges += [
                Edge("rail", start, start, ((0.0, rail), (0.0, middle - RADIUS)), arrow=False),
                Edge("position", position, start, ((-STUB, middle), (-RADIUS, middle))),
            ]
            box, rail = replace(box, join=(0.0, middle)), middle + RADIUS
        self.scene.boxes.append(box)
        first = ((0.0, piece.start), (0.0, rail))
        piece.scene.edges = [
            replace(e, points=(first[1], *e.points[1:])) if e.points[0] == first[0] else e for e in piece.scene.edges
        ]
        piece.rail = rail if piece.rail == piece.start else piece.rail

    def _side_by_side(self, pieces: list[ColumnPart]) -> list[ColumnPart]:
        """The columns from left to right, their tops beside the input's, and the stream from each to the next."""
        lanes = LANE * len({port.wire.source for piece in pieces for port in piece.ports}) + NEAR
        placed = pieces[:1]
        for piece in pieces[1:]:
            way = placed[-1].x + placed[-1].right + GUTTER / 2
            moved = piece.moved(way + GUTTER / 2 + lanes + piece.left, self.top)
            stream(placed[-1], moved, way, self.top)
            placed.append(moved)
        return placed

    def _output(self, piece: ColumnPart) -> None:
        y = piece.y + GAP + 4
        self.scene.boxes.append(self.faces.output(piece.x - self.left, y, self.wide))
        if not self.faces.captions.gap(self.graph.end):
            self.scene.edges.append(Edge("rail", piece.node, self.graph.end, ((piece.x, piece.rail), (piece.x, y))))

    def _sources(self, pieces: list[ColumnPart]) -> None:
        """The context and the positions that blocks read, and the lanes from them.

        Lanes of the first column begin below their source; those of others come from there above all columns.
        """
        x = -max(pieces[0].left, self.left) - SIDE
        boxes: dict[str, Rect] = {}
        starts: dict[str, tuple[float, float]] = {}
        sources = (port.wire.source for piece in pieces for port in piece.ports)
        nodes = dict.fromkeys(source for source in sources if isinstance(source, str))
        for node in sorted(nodes, key=lambda node: self.graph.node_type(node) == "context"):
            if self.feeds and self.graph.node_type(node) == "context":
                starts[node] = (x, 0.0)
                continue
            box = self.faces.source(node, x, self.top)
            assert box.rect is not None
            boxes[node] = box.rect
            self.scene.boxes.append(box)
            starts[node] = (box.rect.x + box.rect.width / 2, box.rect.bottom)
            x = box.rect.x - GAP
        above = {node: self.top - GAP - LANE * i for i, node in enumerate(starts)}
        for piece in pieces:
            own = [node for node in starts if any(port.wire.source == node for port in piece.ports)]
            for port in piece.ports:
                source = port.wire.source
                assert isinstance(source, str)
                if piece is pieces[0]:
                    way = [starts[source], (starts[source][0], port.y)]
                else:
                    lane, up = piece.x - piece.left - NEAR - LANE * (own.index(source) + 1), boxes[source].right - 8
                    way = [(up, self.top), (up, above[source]), (lane, above[source]), (lane, port.y)]
                points = (*way, *reversed(port.points))
                self.scene.edges.append(Edge(port.wire.role, source, port.node, points))


__all__ = ["picture", "pictures", "scene"]
