"""From graphs to a scene: the stack, what is around it, and graphs beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ...graph.costs import stage_title
from ...graph.still import still
from ...registry.options import whole
from ..choices import DETAILS, check_choice
from ..color.colors import Colors, became, colors
from ..parts import DrawnBlock, Parts
from ..widths import wrapped
from ..words.alt import alt_text
from ..words.captions import Captions
from ..words.details import Details
from ..words.header import Head, head_of, heads_of
from ..words.told import UNTOLD, Told
from .column import GAP, Column
from .columns import APART as GUTTER
from .columns import FOOT, stream
from .face import MOST, NARROW, SHOULDER, STUB, Faces
from .lanes import LANE, NEAR
from .layered import DOWN, layered
from .legend import add_legend
from .placed import ColumnPart
from .scene import RADIUS, Box, Edge, Rect, Scene, Text, size

if TYPE_CHECKING:
    from ...graph.graph import Graph
    from ...measurement import Measurement

SIDE = 10.0  # from the stack to what stands beside it
APART = 20.0  # one graph from the next
HALVES = 30.0  # columns of two graphs that are held against each other
COLUMN = 420.0  # a picture that is wider has larger text above it
HEAD_LEAST, HEAD_APART = 250.0, 18.0  # the least width of that text, and from there to the picture


def scene(graphs: Mapping[str, Graph], model: Graph | None = None, **options: Any) -> Scene:
    """Of graphs side by side, each under its name, one alone perhaps "". `model`: of which they are the streams."""
    graphs = {name: still(graph) for name, graph in graphs.items()}
    return picture(graphs[""], **options) if [*graphs] == [""] else pictures(graphs, model, **options)


def picture(
    graph: Graph,
    *,
    unfold: bool | None = None,
    detail: str = "block",
    color: str = "kind",
    overlay: Measurement | None = None,
    seq_len: int = 1024,
    columns: int | None = None,
) -> Scene:
    """The scene of one graph; the arguments are those of `BlockGraph.to_svg`."""
    own = colors({"": graph}, color, overlay, seq_len)[""]
    drawn = Picture(graph, detail, own, seq_len)
    drawn.draw(overlay is not None if unfold is None else unfold, columns)
    scene = drawn.scene
    drawn.write_head(head_scale(scene.extent.width))
    add_legend(scene, own.legend, heat=own.heat)
    return scene


def pictures(
    graphs: Mapping[str, Graph],
    model: Graph | None = None,
    *,
    unfold: bool | None = None,
    detail: str = "block",
    color: str = "kind",
    told: Mapping[str, Told] | None = None,
    overlay: Measurement | None = None,
    seq_len: int = 1024,
    columns: int | None = None,
    joined: bool = True,
    legend: bool = True,
) -> Scene:
    """The scene of several graphs, each under its name.

    A node is called `name.node` in it.

    Args:
        model: of which they are the streams: what both have is above both.
        told: what became of the nodes of each, in place of `color`; every block is drawn.
        joined: what one gives is the context of the next.
        legend: whether there is one, and text above each.
    """
    whole = Scene("")
    meanings: dict[tuple[str, str], None] = {}
    headings: list[Text] = []
    unfold = (overlay is not None if unfold is None else unfold) or told is not None
    looks = (
        colors(graphs, color, overlay, seq_len) if told is None else {name: became(own) for name, own in told.items()}
    )
    before: Box | None = None
    x = 0.0
    drawings: dict[str, Picture] = {}
    for name, graph in graphs.items():
        feeds = joined and bool(drawings)
        drawings[name] = Picture(graph, detail, looks[name], seq_len, feeds, most=NARROW if legend else MOST)
        drawings[name].draw(unfold, columns)
    scale = head_scale(sum(drawn.scene.extent.width + APART for drawn in drawings.values()))
    above: Head | None = None
    foot: float | None = None
    if model is not None:
        above, own_heads = heads_of(model, {name: drawn.head for name, drawn in drawings.items()})
        for name, drawn in drawings.items():
            drawn.head = own_heads[name]
        foot = min(drawn.scene.extent.y for drawn in drawings.values())
        whole.title = " · ".join(above.title())
        whole.alt = f"{above.above()[0]} in all."
    for name, drawn in drawings.items():
        if legend:
            drawn.write_head(scale, foot)
        graph, scene = drawn.graph, drawn.scene
        extent = scene.extent
        dx = x - round(extent.x)
        scene = renamed(scene, name)
        headings.append(Text(dx + drawn.middle, 0.0, name, "heading", "middle", scale=scale if legend else 1.0))
        whole.add(scene, dx)
        if joined and before is not None and before.rect is not None:
            context = f"{name}.context"
            boxes = [box for box in whole.boxes if box.node == context]
            if not boxes:
                whole.edges = [_fed(edge, context, before) for edge in whole.edges]
            whole.edges += [_into(before, box, x, whole) for box in boxes]
        meanings |= dict.fromkeys(drawn.colors.legend)
        before = next(box for box in whole.boxes if box.node == f"{name}.{graph.end}")
        x = round(dx + extent.right) + APART
        whole.title += (" · " if whole.title else "") + f"{name}: {' · '.join(drawn.head.title())}"
        whole.alt += (" " if whole.alt else "") + f"{name}: {scene.alt}"
    top = whole.extent.y - 18
    whole.labels += [heading.moved(0, top) for heading in headings]
    if above is not None:
        write_head(whole, above, scale)
    if legend:
        add_legend(whole, tuple(meanings), heat=next(iter(looks.values())).heat)
    return whole


def renamed(scene: Scene, name: str) -> Scene:
    """The scene of a graph among others: its nodes are called `name.node`."""
    boxes = [b._replace(node=f"{name}.{b.node}", nodes=tuple(f"{name}.{n}" for n in b.nodes)) for b in scene.boxes]
    edges = [e._replace(source=f"{name}.{e.source}", target=f"{name}.{e.target}") for e in scene.edges]
    return replace(scene, boxes=boxes, edges=edges)


def _fed(edge: Edge, context: str, output: Box) -> Edge:
    """An edge from a context that is what another graph gives."""
    if edge.source != context or output.rect is None:
        return edge
    start = output.rect.right, output.rect.middle
    return edge._replace(source=output.node, points=(start, (edge.points[0][0], start[1]), *edge.points[1:]))


def _into(output: Box, context: Box, x: float, whole: Scene) -> Edge:
    """An edge to the box of a context, from above all that stands beside that."""
    assert output.rect is not None
    assert context.rect is not None
    x -= APART / 2
    beside = [box.rect for box in whole.boxes if box.rect and box.rect.x > x]  # the context too, be it the leftmost
    top = min(rect.y for rect in beside if rect.y <= context.rect.middle <= rect.bottom)
    middle, above = context.rect.x + context.rect.width / 2, top - DOWN / 2
    start = output.rect.right, output.rect.middle
    points = (start, (x, start[1]), (x, above), (middle, above), (middle, context.rect.y))
    return Edge("context", output.node, context.node, points)


def head_scale(wide: float) -> float:
    """How much larger the text above a picture is where the picture is so wide that it will be shown smaller."""
    return min(1.4, max(1.0, wide / COLUMN))


class Picture:
    """One graph's scene, in steps: its `pieces`, what is around them, and what is above.

    `at` is where its first rail is, of several graphs.

    Args:
        feeds: the context comes from outside the scene: its edges start at its lane, and it has no box.
        beside: a graph that this one is held against.
        told: what that comparison says of nodes.
        most: how wide text in a box may be.
    """

    def __init__(
        self,
        graph: Graph,
        detail: str,
        colors: Colors,
        seq_len: int,
        feeds: bool = False,
        beside: Graph | None = None,
        told: Told = UNTOLD,
        most: float = MOST,
    ) -> None:
        check_choice("detail", detail, DETAILS)
        self.captions = Captions(graph, beside)
        details = self.details = Details(graph, self.captions, seq_len)
        self.graph, self.feeds = graph, feeds
        self.colors = colors
        self.faces = Faces(graph, details, colors, detail == "op", told, most)
        self.column = Column(graph, self.faces)
        self.scene = Scene("")
        self.at = 0.0
        self.head = head_of(self.captions, details.total)
        if detail == "op":
            self.head.settings.clear()  # which its blocks say

    def draw(self, unfold: bool, columns: int | None) -> None:
        """All but the head; `unfold` and `columns` are those of `BlockGraph.to_svg`."""
        self.scene.title = " · ".join(self.head.title())
        items = self.captions.items
        if items is None:
            self.feeds = False
            self.scene.add(layered(self.graph, self.faces))
            self.scene.alt = self._alt([("", tuple(DrawnBlock((node,)) for node in self.graph.nodes("block")))])
            self.middle = self.scene.extent.x + self.scene.extent.width / 2
            return
        pieces = self.column.stack(items, 0.0, unfold, counted_columns(columns))
        self.feeds = self.feeds and len(pieces) == 1
        self.begin(pieces)
        (places,) = across([self])
        self.place(places)
        named = self.graph.stages != [None]
        stages = self.column.drawn.stages
        self.scene.alt = self._alt(
            [(f"stage {stage_title(self.graph, i)}" if named else "", parts) for i, parts in stages]
        )

    def _alt(self, stages: list[tuple[str, Parts]]) -> str:
        ends = self.graph.start, self.graph.end
        looks = {box.node: box.look for box in self.scene.boxes if box.node in ends}
        enters, leaves = (" · ".join(text.text for text in looks[node].texts).replace(" · ", ": ", 1) for node in ends)
        return alt_text(enters, stages, leaves, self.faces.in_words)

    @property
    def wide(self) -> float:
        return self.left + SHOULDER

    def write_head(self, scale: float, foot: float | None = None) -> None:
        """Write what the stack is above it, in lines as wide as the picture; `foot`: as `write_head` has it."""
        write_head(self.scene, self.head, scale, foot)

    def begin(self, pieces: list[ColumnPart]) -> None:
        """Take the stack's columns, the first with the input above it, and find the boxes of what blocks read."""
        self.pieces = pieces
        added = self.graph.sources(self.graph.start, "position")
        rects = [self.faces.source(node, 0.0, 0.0).rect for node in added]
        self.left = STUB + max([self.faces.width, *(rect.width for rect in rects if rect)])
        self.middle = (SHOULDER - self.left) / 2
        self._input(pieces[0])
        sources = (port.wire.source for piece in pieces for port in piece.ports)
        nodes = dict.fromkeys(source for source in sources if isinstance(source, str))
        self.sources: dict[str, Box | None] = {
            node: None if self.feeds and self.graph.node_type(node) == "context" else self.faces.source(node, 0.0, 0.0)
            for node in sorted(nodes, key=lambda node: self.graph.node_type(node) == "context")
        }

    def _input(self, piece: ColumnPart) -> None:
        """The input, and below it the positions that are added to the tokens."""
        graph, start = self.graph, self.graph.start
        positions = graph.sources(start, "position")
        sources = [self.faces.source(position, -STUB, 0.0) for position in positions]
        rects = [source.rect for source in sources if source.rect]
        top = -sum(rect.height + GAP for rect in rects)
        box = self.faces.input(-self.left, 0, self.wide)
        assert box.rect is not None
        self.top = top - GAP / 2 - box.rect.height
        box = box.moved(0, self.top)
        rail = top - GAP / 2
        for position, source, rect in zip(positions, sources, rects, strict=True):
            middle = top + GAP / 2 + rect.height / 2
            self.scene.boxes.append(source.moved(0.0, top + GAP / 2))
            top += rect.height + GAP
            self.scene.edges += [
                Edge("rail", start, start, ((0.0, rail), (0.0, middle - RADIUS)), arrow=False),
                Edge("position", position, start, ((-STUB, middle), (-RADIUS, middle))),
            ]
            box, rail = box.joined((0.0, middle)), middle + RADIUS
        self.scene.boxes.append(box)
        first = ((0.0, piece.start), (0.0, rail))
        piece.scene.edges = [
            e.through((first[1], *e.points[1:])) if e.points[0] == first[0] else e for e in piece.scene.edges
        ]
        piece.rail = rail if piece.rail == piece.start else piece.rail

    def margins(self, i: int) -> tuple[float, float]:
        """How much a column and what leads to it needs at the left of its rail and at the right."""
        piece = self.pieces[i]
        if i:
            lanes = LANE * len({port.wire.source for port in piece.ports}) + NEAR
            last = piece is self.pieces[-1]
            return max(piece.left, self.left if last else 0.0) + lanes, piece.right
        return max(piece.left, self.left) + (SIDE + LANE * len(self.sources) if self.sources else 0.0), piece.right

    @property
    def height(self) -> float:
        """From where the first blocks begin to the top of what they read, which stands above the input."""
        return sum(box.rect.height + GAP for box in self.sources.values() if box and box.rect) - self.top

    def place(self, places: Sequence[Place]) -> None:
        """Put the columns where they are to be, and draw what joins them to each other and to what is around them."""
        self._output(self.pieces[-1])
        placed = self.pieces[:1]
        for piece, place in zip(self.pieces[1:], places[1:], strict=True):
            moved = piece.moved(place.x, self.top)
            stream(placed[-1], moved, place.way, self.top - place.above, place.foot)
            placed.append(moved)
        for piece in placed:
            self.scene.add(piece.scene)
        self._sources(placed, places[0].above)

    def _output(self, piece: ColumnPart) -> None:
        y = piece.y + GAP + 4
        piece.scene.boxes.append(self.faces.output(-self.left, y, self.wide))
        if self.faces.captions.gap(self.graph.end):
            self.column.end(piece, piece.y)
        else:
            piece.scene.edges.append(Edge("rail", piece.node, self.graph.end, ((0.0, piece.rail), (0.0, y))))

    def _sources(self, pieces: list[ColumnPart], above: float) -> None:
        """The context and the positions that blocks read, and the lanes from them.

        They stand above the input, with their lanes at the left of the stack, so that they take no width of their own.
        Lanes of further columns come from there above all columns.
        """
        x, y = -max(pieces[0].left, self.left) - SIDE, self.top - GAP
        rects: dict[str, Rect] = {}
        starts: dict[str, tuple[float, float]] = {}
        for node, source in self.sources.items():
            if source is None:
                starts[node] = (x, 0.0)
                continue
            assert source.rect is not None
            box = source.moved(source.rect.width - self.left, y - source.rect.height)
            assert box.rect is not None
            rects[node] = box.rect
            self.scene.boxes.append(box)
            starts[node] = (x, box.rect.middle)
            x, y = x - LANE, box.rect.y - GAP
        right = max((rect.right for rect in rects.values()), default=0.0) + NEAR
        up = {node: right + LANE * i for i, node in enumerate(reversed([*starts]))}
        over = {node: self.top - above - 2 * GAP - LANE * i for i, node in enumerate(starts)}
        for piece in pieces:
            own = [node for node in starts if any(port.wire.source == node for port in piece.ports)]
            for port in piece.ports:
                name = port.wire.source
                assert isinstance(name, str)
                if piece is pieces[0]:
                    head = [(rects[name].x, starts[name][1])] if name in rects else []
                    way = [*head, starts[name], (starts[name][0], port.y)]
                else:
                    lane, middle = piece.x - piece.left - NEAR - LANE * (own.index(name) + 1), starts[name][1]
                    out = [(rects[name].right, middle), (up[name], middle), (up[name], over[name])]
                    way = [*out, (lane, over[name]), (lane, port.y)]
                points = (*way, *reversed(port.points))
                self.scene.edges.append(Edge(port.wire.role, name, port.node, points))


class Place(NamedTuple):
    """Where a column is: the x of its rail, of the first one 0.

    Attributes:
        way, foot: the x where the stream of the column before comes up, and the y where it leaves that.
        above: how far above the column's top it turns into it; of the first, how much is taken above all columns.
    """

    x: float
    way: float
    foot: float
    above: float


def across(pictures: Sequence[Picture]) -> list[list[Place]]:
    """The places of the columns of pictures whose first columns stand side by side, then their second ones, and so on.

    What leads from a column of one to its next goes around the others: the first one's way is outermost below them,
    and the last one's above them.
    """
    last, x = len(pictures) - 1, 0.0
    highest = max(picture.height for picture in pictures)
    rails: list[list[float]] = [[] for _ in pictures]
    places: list[list[Place]] = []
    for k, picture in enumerate(pictures):
        further = LANE * sum(len(other.sources) for other in pictures[k + 1 :])
        places.append([Place(0.0, 0.0, 0.0, highest + picture.top + further + LANE * 2 * last)])
    for i in range(len(pictures[0].pieces)):
        way = x + GUTTER / 2
        foot = max(picture.pieces[i - 1].y for picture in pictures) if i else 0.0
        foot += pictures[0].top if i > 1 else 0.0
        x += GUTTER + LANE * last if i else 0.0
        for k, picture in enumerate(pictures):
            left, right = picture.margins(i)
            x += left + (HALVES if k else 0.0)
            rails[k].append(x)
            x += right
            if i:
                own = rails[k][0]
                own_way, own_foot = way + LANE * (last - k) - own, foot + FOOT + LANE * (last - k)
                places[k].append(Place(rails[k][i] - own, own_way, own_foot, LANE * k))
    for picture, own_rails in zip(pictures, rails, strict=True):
        picture.at = own_rails[0] - rails[0][0]
    return places


def counted_columns(columns: int | None) -> int | None:
    """How many are asked for; raises UserError where that is no such number."""
    return None if columns is None else whole("columns", columns, 1)


def write_head(scene: Scene, head: Head, scale: float, foot: float | None = None) -> None:
    """Write what there is to say of a stack above it; how a pattern sets it is said to who points there.

    Args:
        foot: of a stream, the y above which it is said of both, in small: most is above both.
    """
    facts, settings = head.above(), [*head.settings]
    if foot is None:
        write_lines(scene, [(facts, "facts"), (settings, "settings")], scale)
    else:
        write_lines(scene, [([*facts, *settings], "settings")], scale, 0.0, foot)
    scene.settings += head.settings.values()


def write_lines(
    scene: Scene,
    words: Sequence[tuple[list[str], str]],
    scale: float,
    least: float = HEAD_LEAST,
    foot: float | None = None,
) -> None:
    """Write words and their roles above a scene, or a y, in lines as wide as it is."""
    extent = scene.extent
    wide = max(extent.width, least * scale)
    lines = [
        (line, role)
        for said, role in words
        for line in wrapped(said, size(role) * scale, wide, " · ", bold=role in ("facts", "change"))
    ]
    y = (extent.y if foot is None else foot) - HEAD_APART
    for line, role in reversed(lines):
        scene.head.append(Text(extent.x, y, line, role, scale=scale))
        y -= round(size(role) * scale * 1.4)


__all__ = ["picture", "pictures", "scene"]
