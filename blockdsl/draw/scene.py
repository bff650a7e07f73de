"""What a picture consists of: boxes with their texts, frames, edges, all with coordinates. No SVG.

The unit is a pixel at 100%; x grows to the right, y downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from .widths import width

Point = tuple[float, float]


@dataclass(frozen=True)
class Rect:
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


@dataclass(frozen=True)
class Text:
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
        return replace(self, x=self.x + dx, y=self.y + dy)


@dataclass(frozen=True)
class Mark:
    """A small frame inside a box: a shift, a half step, a tie, or one operation."""

    rect: Rect
    role: str

    def moved(self, dx: float, dy: float) -> Mark:
        return replace(self, rect=self.rect.moved(dx, dy))


@dataclass(frozen=True)
class Box:
    """A node.

    Attributes:
        node: of the graph; nodes: all that it stands for.
        type: of the node, "block", "sum", "input", ..., or one of NAMELESS; kind: of a block.
        rect: None for a sum.
        join: where what it gives meets the stream, the middle of a circle; None where it does not.
        sign: in that circle; empty: it is a dot.
        tip: more on it, a line each.
        hue: the class of its colour.
    """

    node: str
    nodes: tuple[str, ...]
    type: str
    rect: Rect | None
    texts: tuple[Text, ...] = ()
    marks: tuple[Mark, ...] = ()
    join: Point | None = None
    sign: str = "+"
    kind: str | None = None
    tip: str = ""
    hue: str = ""

    def moved(self, dx: float, dy: float) -> Box:
        return replace(
            self,
            rect=None if self.rect is None else self.rect.moved(dx, dy),
            texts=tuple(text.moved(dx, dy) for text in self.texts),
            marks=tuple(mark.moved(dx, dy) for mark in self.marks),
            join=None if self.join is None else (self.join[0] + dx, self.join[1] + dy),
        )


@dataclass(frozen=True)
class Edge:
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
        return replace(self, points=tuple((x + dx, y + dy) for x, y in self.points))


@dataclass(frozen=True)
class Frame:
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
        return replace(self, rect=self.rect.moved(dx, dy), labels=tuple(label.moved(dx, dy) for label in self.labels))


@dataclass(frozen=True)
class Key:
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
        return replace(self, swatch=self.swatch.moved(dx, dy), label=self.label.moved(dx, dy))


@dataclass
class Scene:
    """A whole picture.

    Attributes:
        title: what it shows, in a line; alt: all of it, in sentences.
        frames: those around others first.
        head: lines above all of it.
    """

    title: str
    alt: str = ""
    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    labels: list[Text] = field(default_factory=list)
    head: list[Text] = field(default_factory=list)

    def add(self, other: Scene, dx: float = 0, dy: float = 0) -> None:
        """Put what another scene has into this one."""
        if dx == dy == 0:  # nothing is copied: parts are put into others once for each frame around them
            self.boxes += other.boxes
            self.edges += other.edges
            self.frames += other.frames
            self.labels += other.labels
            self.head += other.head
            return
        self.boxes += [box.moved(dx, dy) for box in other.boxes]
        self.edges += [edge.moved(dx, dy) for edge in other.edges]
        self.frames += [frame.moved(dx, dy) for frame in other.frames]
        self.labels += [label.moved(dx, dy) for label in other.labels]
        self.head += [line.moved(dx, dy) for line in other.head]

    @property
    def extent(self) -> Rect:
        """The smallest rectangle that holds everything."""
        rects = [box.rect for box in self.boxes if box.rect] + [frame.rect for frame in self.frames]
        rects += [mark.rect for box in self.boxes for mark in box.marks] + [key.swatch for key in self.keys]
        texts = [label for frame in self.frames for label in frame.labels] + [key.label for key in self.keys]
        texts += self.labels + self.head
        points = [point for edge in self.edges for point in edge.points]
        points += [
            (box.join[0] + side, box.join[1] + side) for box in self.boxes if box.join for side in (-RADIUS, RADIUS)
        ]
        xs = [x for rect in rects for x in (rect.x, rect.right)] + [x for text in texts for x in text.extent]
        ys = [y for rect in rects for y in (rect.y, rect.bottom)]
        ys += [y for text in texts for y in (text.y - text.size, text.y + text.size / 3)]
        xs, ys = xs + [x for x, _ in points], ys + [y for _, y in points]
        return Rect(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


RADIUS, DOT = 7.0, 3.0
"""Of the circle of a sum, and of the dot of a label."""

NAMELESS = ("gain", "label", "skip")
"""Types of boxes that stand for no node; theirs is the one that they are drawn with."""

# Each role of a text: its size, whether it is bold, whether monospace.
FONTS = {
    "title": (12.5, True, False),
    "note": (10.5, False, False),
    "value": (11.0, True, False),
    "code": (11.0, False, True),
    "mark": (9.5, False, False),
    "label": (11.0, True, False),
    "times": (14.0, True, False),
    "name": (11.0, True, True),
    "op": (10.5, False, False),
    "heading": (13.0, True, False),
    "facts": (12.0, True, False),
    "settings": (10.5, False, False),
    "change": (10.5, True, False),
    "badge": (13.0, True, False),
}


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
