"""A scene as SVG.

Text is text, colours are in a style sheet inside the picture and follow the reader's light or dark setting
unless a theme is asked for. Every block
is a group with the names of its nodes, so that a page around the picture can find it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise
from math import ceil, floor

from .choices import THEMES, check_choice
from .palette import style
from .scene import DOT, NAMELESS, RADIUS, Box, Edge, Frame, Key, Point, Rect, Scene, Text

MARGIN = 16.0
CORNER = 6.0
HEAD = 6.5, 3.4  # an arrow's length and half its width
WIDE_HEAD = 8.5, 5.2


def svg(scene: Scene, theme: str = "auto") -> str:
    """The picture, one string. `theme`: one of THEMES."""
    check_choice("theme", theme, THEMES)
    return "\n".join(_Svg(scene, theme).lines())


class _Svg:
    def __init__(self, scene: Scene, theme: str) -> None:
        self.scene, self.theme = scene, theme
        extent = scene.extent
        self.dx, self.dy = MARGIN - floor(extent.x), MARGIN - floor(extent.y)
        self.width, self.height = ceil(extent.right) + self.dx + MARGIN, ceil(extent.bottom) + self.dy + MARGIN

    def lines(self) -> Iterator[str]:
        wide, high = n(self.width), n(self.height)
        title = escape(self.scene.title)
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="blockdsl" viewBox="0 0 {wide} {high}" '
            f'width="{wide}" height="{high}" role="group" aria-label="{title}">'
        )
        yield f"<title>{title}</title>"
        if self.scene.alt:
            yield f"<desc>{escape(self.scene.alt)}</desc>"
        yield f"<style>\n{style(self.theme)}\n</style>"
        yield f'<rect class="ground" width="{wide}" height="{high}"/>'
        yield f'<g transform="translate({n(self.dx)} {n(self.dy)})">'
        for frame in self.scene.frames:
            yield self._frame(frame)
        order = ("rail", "branch", "position", "condition", "context", "scores")
        edges = sorted(self.scene.edges, key=lambda edge: order.index(edge.role) if edge.role in order else len(order))
        yield from map(self._edge, edges)
        yield from (self._core(edge) for edge in edges if edge.many)  # above all of them: where two meet, both are open
        for box in self.scene.boxes:
            yield from self._box(box)
        yield from map(self._key, self.scene.keys)
        for label in self.scene.labels:
            yield text(label)
        if self.scene.head:
            lines = sorted(self.scene.head, key=lambda line: (line.x, line.y))
            yield f'<g class="head">{"".join(map(text, lines))}</g>'
        yield "</g>\n</svg>"

    def _key(self, key: Key) -> str:
        r = key.swatch
        if key.hue:
            middle = Text(r.x + r.width / 2, r.middle + 4.5, key.sign, "badge", "middle")
            return (
                f'<g class="key"><rect class="{key.hue}" {area(r)} rx="3"/>{text(key.label) if key.label.text else ""}'
                f"{text(middle) if key.sign else ''}</g>"
            )
        if key.line:
            many = key.line == "many"
            edge = Edge("read" if many else key.line, "", "", ((r.x, r.middle), (r.right, r.middle)), many=many)
            shown = self._edge(edge) + (self._core(edge) if many else "")
        else:
            shown = sign(key.sign, (r.x + r.width / 2, r.middle))
            shown = f'<g class="label">{shown}</g>' if not key.sign else shown
        return f'<g class="key">{shown}{text(key.label) if key.label.text else ""}</g>'

    def _frame(self, frame: Frame) -> str:
        data = "data-stage" if frame.role == "stage" else "data-times"
        labels = "".join(map(text, frame.labels))
        return f'<g class="{frame.role}" {data}="{frame.value}"><rect {area(frame.rect)} rx="10"/>{labels}</g>'

    def _edge(self, edge: Edge) -> str:
        ends = f'data-from="{escape(edge.source)}" data-to="{escape(edge.target)}"'
        points, head = edge.points, ""
        if edge.arrow and not edge.many:
            head = f'<path class="head {edge.role}" d="{arrow(points, HEAD)}"/>'
        for i in edge.heads:
            middle = [(a + b) / 2 for a, b in zip(*points[i : i + 2], strict=True)]
            head += f'<path class="head {edge.role}" d="{arrow((points[i], (middle[0], middle[1])), WIDE_HEAD)}"/>'
        path = curve(points) if edge.curved else rounded(points)
        marks = (" many" if edge.many else "") + (" cut" if edge.cut else "")
        return f'<path class="edge {edge.role}{marks}" {ends} d="{path}"/>{head}'

    def _core(self, edge: Edge) -> str:
        """The light middle of a line that stands for several, and its head."""
        *way, (x, y), (end, _) = edge.points
        hollow = rounded((*way, (x, y), (end + WIDE_HEAD[0] * ((x > end) - (x < end)), y)))
        head = arrow(edge.points, WIDE_HEAD)
        return f'<path class="core" d="{hollow}"/><path class="head {edge.role}" d="{head}"/>'

    def _box(self, box: Box) -> Iterator[str]:
        yield f"<g {self._names(box)}>"
        if box.tip:
            yield f"<title>{escape(box.tip)}</title>"
        if box.rect:
            yield f'<rect {area(box.rect)} rx="6"/>'
        for mark in box.marks:
            yield f'<rect class="mark {mark.role}" {area(mark.rect)} rx="4"/>'
        yield from map(text, box.texts)
        if box.join:
            yield sign(box.sign, box.join)
        yield "</g>"

    def _names(self, box: Box) -> str:
        """The attributes by which a page finds a box."""
        if box.type in NAMELESS:
            return f'class="node {box.type}" data-of="{escape(" ".join(box.nodes))}"'
        named = f"block kind-{box.kind}" if box.type == "block" else f"node {box.type}"
        nodes = escape(" ".join(box.nodes))
        classes = f"{named} {box.hue}".strip()
        return f'class="{classes}" data-node="{escape(box.node)}" data-nodes="{nodes}" role="img" tabindex="0"'


_SIGNS = {
    "+": "M{x} {y}m-4 0h8m-4 -4v8",
    "⋈": "M{x} {y}m-3.6 -3.2v6.4l7.2 -6.4v6.4z",  # a gate: a GRU cell joins branch and stream
    "≡": "M{x} {y}m-3.6 -2.6h7.2m-7.2 2.6h7.2m-7.2 2.6h7.2",  # residual streams, which a block mixes
    "Δ": "M{x} {y}m0 -4l3.8 6.6h-7.6z",
}


def sign(what: str, at: Point) -> str:
    """A sum's circle and the sign in it; of nothing, a dot."""
    x, y = map(n, at)
    circle = f'<circle class="join" cx="{x}" cy="{y}" r="{n(RADIUS if what else DOT)}"/>'
    return circle + (f'\n<path class="sign" d="{_SIGNS[what].format(x=x, y=y)}"/>' if what else "")


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(words: str) -> str:
    """As text or in quotes; a sign that XML has no place for becomes U+FFFD."""
    return html.escape(_NOT_XML.sub("\ufffd", words))


def n(value: float) -> str:
    """A number of at most two decimals."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def area(rect: Rect) -> str:
    return f'x="{n(rect.x)}" y="{n(rect.y)}" width="{n(rect.width)}" height="{n(rect.height)}"'


def text(line: Text) -> str:
    anchor = "" if line.anchor == "start" else f' text-anchor="{line.anchor}"'
    scaled = "" if line.scale == 1 else f' style="font-size:{n(line.size)}px"'
    return f'<text class="{line.role}" x="{n(line.x)}" y="{n(line.y)}"{anchor}{scaled}>{escape(line.text)}</text>'


def rounded(points: tuple[Point, ...]) -> str:
    """A path along the points with round corners."""
    out = [f"M{n(points[0][0])} {n(points[0][1])}"]
    for before, at, after in zip(points, points[1:], points[2:], strict=False):
        start, end = toward(at, before), toward(at, after)
        out.append(f"L{n(start[0])} {n(start[1])}Q{n(at[0])} {n(at[1])} {n(end[0])} {n(end[1])}")
    return "".join([*out, f"L{n(points[-1][0])} {n(points[-1][1])}"])


def toward(at: Point, other: Point) -> Point:
    """A corner's length from one point to another, at most half the way."""
    dx, dy = other[0] - at[0], other[1] - at[1]
    length = abs(dx) + abs(dy)
    share = min(CORNER, length / 2) / length if length else 0
    return at[0] + dx * share, at[1] + dy * share


def curve(points: tuple[Point, ...]) -> str:
    """A path from point to point that leaves and arrives upright."""
    out = [f"M{n(points[0][0])} {n(points[0][1])}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (y + to_y) / 2
        out.append(f"C{n(x)} {n(middle)} {n(to_x)} {n(middle)} {n(to_x)} {n(to_y)}")
    return "".join(out)


def arrow(points: tuple[Point, ...], shape: tuple[float, float]) -> str:
    """A triangle with its tip at the last point."""
    (x, y), (to_x, to_y) = points[-2:]
    length, half = shape
    dx, dy = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
    if dx and dy:
        dx = 0
    back = to_x - dx * length, to_y - dy * length
    left, right = (back[0] - dy * half, back[1] + dx * half), (back[0] + dy * half, back[1] - dx * half)
    return f"M{n(to_x)} {n(to_y)}L{n(left[0])} {n(left[1])}L{n(right[0])} {n(right[1])}Z"
