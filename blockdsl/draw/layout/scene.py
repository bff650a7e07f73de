"""What a picture consists of: boxes with their texts, frames, edges, all with coordinates. No SVG.

The unit is a pixel at 100%; x grows to the right, y downwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any, NamedTuple

from ..widths import FONTS, width

Point = tuple[float, float]
RADIUS, DOT = 7.0, 3.0
"""Of the circle of a sum, and of the dot of a label."""


class Rect(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    def moved(self, dx: float, dy: float) -> Rect:
        return Rect(self.x + dx, self.y + dy, self.width, self.height)


def around(rects: Sequence[Rect]) -> Rect:
    """The smallest rectangle that holds all of them."""
    x, y = min(rect.x for rect in rects), min(rect.y for rect in rects)
    return Rect(x, y, max(rect.right for rect in rects) - x, max(rect.bottom for rect in rects) - y)


class Text(NamedTuple):
    """A line of text.

    Attributes:
        x, y: where its baseline starts, has its middle or ends, as `anchor` says.
        role: one of FONTS; fixes its size and weight.
        anchor: "start", "middle" or "end".
        scale: of its size.
    """

    x: float
    y: float
    text: str
    role: str
    anchor: str = "start"
    scale: float = 1.0

    @property
    def size(self) -> float:
        return size(self.role) * self.scale

    @property
    def extent(self) -> tuple[float, float]:
        """Where it starts and ends."""
        wide = text_width(self.text, self.role) * self.scale
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return left, left + wide

    def moved(self, dx: float, dy: float) -> Text:
        return Text(self.x + dx, self.y + dy, self.text, self.role, self.anchor, self.scale)


class Mark(NamedTuple):
    """A small frame inside a box: a shift, a half step, a tie, or one operation."""

    rect: Rect
    role: str

    def moved(self, dx: float, dy: float) -> Mark:
        return Mark(self.rect.moved(dx, dy), self.role)


@dataclass(frozen=True, eq=False)
class Look:
    """What a box looks like, wherever it is; blocks that look alike share one.

    Attributes:
        type: of the node, "block", "sum", "input", ..., or one of NAMELESS; kind: of a block.
        rect: None for a sum.
        join: where what it gives meets the stream, the middle of a circle; None where it does not.
        sign: in that circle; empty: it is a dot.
        hue: the class of its colour.
    """

    type: str
    rect: Rect | None
    texts: tuple[Text, ...] = ()
    marks: tuple[Mark, ...] = ()
    join: Point | None = None
    sign: str = "+"
    kind: str | None = None
    hue: str = ""

    @cached_property
    def area(self) -> Rect | None:
        """All that it takes but its texts, which are inside of that or beside a dot."""
        rects = [*([self.rect] if self.rect else ()), *(mark.rect for mark in self.marks)]
        if self.join:
            rects.append(Rect(self.join[0] - RADIUS, self.join[1] - RADIUS, 2 * RADIUS, 2 * RADIUS))
        return around(rects) if rects else None


class Box(NamedTuple):
    """A node.

    Attributes:
        node: of the graph; nodes: all that it stands for.
        x, y: where the place is from which its look counts.
        more: gives `tip`; what nobody points at is not worked out.
    """

    node: str
    nodes: tuple[str, ...]
    look: Look
    x: float = 0.0
    y: float = 0.0
    more: Callable[[], str] | None = None

    @property
    def tip(self) -> str:
        """More on it, a line each."""
        return "" if self.more is None else self.more()

    @property
    def rect(self) -> Rect | None:
        return None if self.look.rect is None else self.look.rect.moved(self.x, self.y)

    @property
    def join(self) -> Point | None:
        return None if self.look.join is None else (self.look.join[0] + self.x, self.look.join[1] + self.y)

    @property
    def texts(self) -> tuple[Text, ...]:
        return tuple(text.moved(self.x, self.y) for text in self.look.texts)

    @property
    def marks(self) -> tuple[Mark, ...]:
        return tuple(mark.moved(self.x, self.y) for mark in self.look.marks)

    def joined(self, at: Point) -> Box:
        """The same, meeting the stream there."""
        look = self.look
        own = Look(look.type, look.rect, look.texts, look.marks, (at[0] - self.x, at[1] - self.y), hue=look.hue)
        return Box(self.node, self.nodes, own, self.x, self.y, self.more)

    def moved(self, dx: float, dy: float) -> Box:
        return Box(self.node, self.nodes, self.look, self.x + dx, self.y + dy, self.more)


class Edge(NamedTuple):
    """A line that carries something from one node to another.

    Attributes:
        role: "rail", "branch", or what it brings beside the stream: "read", "context", "position", "scores", ...
        arrow: whether it ends in one.
        many: whether it stands for several that run side by side.
        cut: whether its other part is elsewhere; the name of both is beside it.
        heads: of which of its pieces, by number, the middle has an arrow's head too.
        curved: drawn as a curve from top to bottom and not with right angles.
    """

    role: str
    source: str
    target: str
    points: tuple[Point, ...]
    arrow: bool = True
    curved: bool = False
    many: bool = False
    cut: bool = False
    heads: tuple[int, ...] = ()

    def moved(self, dx: float, dy: float) -> Edge:
        return self.through(tuple([(x + dx, y + dy) for x, y in self.points]))

    def through(self, points: tuple[Point, ...]) -> Edge:
        """The same by another way."""
        role, source, target, _, arrow, curved, many, cut, heads = self
        return Edge(role, source, target, points, arrow, curved, many, cut, heads)


class Frame(NamedTuple):
    """A stage or a repeat, around boxes.

    Attributes:
        role: "stage" or "repeat".
        value: the stage's index, or how many times.
        labels: its name in one line or several, or the number of times.
    """

    role: str
    rect: Rect
    value: int
    labels: tuple[Text, ...]

    def moved(self, dx: float, dy: float) -> Frame:
        labels = tuple(label.moved(dx, dy) for label in self.labels)
        return Frame(self.role, self.rect.moved(dx, dy), self.value, labels)


class Key(NamedTuple):
    """An entry of the legend: a colour, the sign of a sum or a line, and what it stands for.

    Attributes:
        hue: the class of the colour; empty: it is a sign, or a line.
        label: empty inside a scale, whose ends alone have one.
    sign: as a Box has it, or what stands on the colour; line: the role of an Edge, or "many".
    """

    hue: str
    swatch: Rect
    label: Text
    sign: str = "+"
    line: str = ""

    def moved(self, dx: float, dy: float) -> Key:
        return self._replace(swatch=self.swatch.moved(dx, dy), label=self.label.moved(dx, dy))


@dataclass
class Scene:
    """A whole picture.

    Attributes:
        title: what it shows, in a line; alt: all of it, in sentences.
        frames: those around others first.
        head: lines above all of it; settings: as a pattern has those that they tell.

    A part of it is not changed in its place once `extent` was asked for.
    """

    title: str
    alt: str = ""
    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    labels: list[Text] = field(default_factory=list)
    head: list[Text] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    _known: _Known | None = field(default=None, repr=False, compare=False)

    def add(self, other: Scene, dx: float = 0, dy: float = 0) -> None:
        """Put what another scene has into this one."""
        if dx == dy == 0:  # nothing is copied: parts are put into others once for each frame around them
            self.boxes += other.boxes
            self.edges += other.edges
            self.frames += other.frames
            self.labels += other.labels
            self.head += other.head
            self.settings += other.settings
            return
        self.boxes += [box.moved(dx, dy) for box in other.boxes]
        self.edges += [edge.moved(dx, dy) for edge in other.edges]
        self.frames += [frame.moved(dx, dy) for frame in other.frames]
        self.labels += [label.moved(dx, dy) for label in other.labels]
        self.head += [line.moved(dx, dy) for line in other.head]
        self.settings += other.settings

    @property
    def extent(self) -> Rect:
        """The smallest rectangle that holds everything."""
        parts: tuple[list[Any], ...] = self.frames, self.keys, self.boxes, self.edges, self.labels, self.head
        counts = tuple(map(len, parts))
        known = self._known
        if known is None or not known.goes_on(parts):
            known = _Known(parts, (0,) * len(parts), ())
        if known.counts != counts:  # it is asked for again and again while a little is added
            new = (part[count:] for part, count in zip(parts, known.counts, strict=True))
            corners = (*known.corners, *_corners(*new))
            known = _Known(parts, counts, tuple(_ends(corners)))
        self._known = known
        (left, top), (right, bottom) = known.corners
        return Rect(left, top, right - left, bottom - top)


class _Known(NamedTuple):
    """Of a scene's extent: the lists of its parts, how many were in each then, and the two corners."""

    lists: tuple[list[Any], ...]
    counts: tuple[int, ...]
    corners: tuple[Point, ...]

    def goes_on(self, lists: Sequence[list[Any]]) -> bool:
        """Whether these are the same lists, with no less in them."""
        ours = zip(self.lists, self.counts, lists, strict=True)
        return all(new is old and len(new) >= count for old, count, new in ours)


def _ends(points: Sequence[Point]) -> Iterator[Point]:
    """The upper left and the lower right corner of what holds all of these."""
    xs, ys = zip(*points, strict=True)
    yield min(xs), min(ys)
    yield max(xs), max(ys)


def _corners(
    frames: Sequence[Frame],
    keys: Sequence[Key],
    boxes: Sequence[Box],
    edges: Sequence[Edge],
    labels: Sequence[Text],
    head: Sequence[Text],
) -> list[Point]:
    """Points that reach as far as all of these do."""
    points = [point for edge in edges for point in edge.points]
    rects = [frame.rect for frame in frames] + [key.swatch for key in keys]
    rects += [area.moved(box.x, box.y) for box in boxes if (area := box.look.area) is not None]
    for x, y, wide, high in rects:
        points += (x, y), (x + wide, y + high)
    for text in (*(label for frame in frames for label in frame.labels), *(key.label for key in keys), *labels, *head):
        (left, right), high = text.extent, text.size
        points += (left, text.y - high), (right, text.y + high / 3)
    return points


NAMELESS = ("gain", "label", "skip")
"""Types of boxes that stand for no node; theirs is the one that they are drawn with."""


def size(role: str) -> float:
    return FONTS[role][0]


def even(length: float) -> float:
    """The next even number: halves of it are whole, and lines are sharp."""
    return 2.0 * ceil(length / 2)


def text_width(text: str, role: str) -> float:
    points, bold, monospace = FONTS[role]
    return width(text, points, bold, monospace)


def widest(texts: Sequence[str], role: str) -> float:
    return max((text_width(text, role) for text in texts), default=0.0)
