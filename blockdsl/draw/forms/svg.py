"""A scene as SVG.

Text is text, colours are in a style sheet inside the picture and follow the reader's light or dark setting
unless a theme is asked for. Every block
is a group with the names of its nodes, so that a page around the picture can find it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import ceil, floor
from typing import NamedTuple

from ..choices import THEMES, check_choice
from ..color.palette import style
from ..layout.scene import DOT, NAMELESS, RADIUS, Box, Edge, Frame, Key, Look, Point, Rect, Scene, Text, even

MARGIN = 12.0
CORNER = 6.0
HEAD = 6.5, 3.4  # an arrow's length and half its width
WIDE_HEAD = 8.5, 5.2


def svg(scene: Scene, theme: str = "auto") -> str:
    """The picture, one string. `theme`: one of THEMES."""
    check_choice("theme", theme, THEMES)
    return "\n".join(_lines(scene, theme))


class Sheet(NamedTuple):
    """What a picture is drawn on: its size, and how far its scene is moved for that."""

    dx: float
    dy: float
    width: float
    height: float


def sheet(scene: Scene) -> Sheet:
    """As large as the scene and a margin."""
    extent = scene.extent
    dx, dy = MARGIN - floor(extent.x), MARGIN - floor(extent.y)
    return Sheet(dx, dy, ceil(extent.right) + dx + MARGIN, ceil(extent.bottom) + dy + MARGIN)


def _lines(scene: Scene, theme: str) -> Iterator[str]:
    dx, dy, wide, high = map(n, sheet(scene))
    title = escape(scene.title)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="blockdsl" viewBox="0 0 {wide} {high}" '
        f'width="{wide}" height="{high}" role="group" aria-label="{title}">'
    )
    yield f"<title>{title}</title>"
    if scene.alt:
        yield f"<desc>{escape(scene.alt)}</desc>"
    yield f"<style>\n{style(theme)}\n</style>"
    yield f'<rect class="ground" width="{wide}" height="{high}"/>'
    yield f'<g transform="translate({dx} {dy})">'
    yield from map(frame_group, scene.frames)
    edges = in_order(scene.edges)
    yield from (path(edge_line(edge), _ends(edge)) + "".join(map(path, edge_heads(edge))) for edge in edges)
    for edge in edges:
        if edge.many:
            yield "".join(map(path, edge_core(edge)))
    for box in scene.boxes:
        yield f"<g {_names(box)}>"
        if box.more is not None:
            yield f"<title>{escape(box.tip)}</title>"
        yield from box_shapes(box)
        yield "</g>"
    yield from upper(scene)
    yield "</g>\n</svg>"


def _names(box: Box) -> str:
    """The attributes by which a page finds a box."""
    look = box.look
    nodes = escape(" ".join(box.nodes))
    if look.type in NAMELESS:
        return f'class="{classes(look)}" data-of="{nodes}"'
    return f'class="{classes(look)}" data-node="{escape(box.node)}" data-nodes="{nodes}" role="img" tabindex="0"'


def frame_group(own: Frame) -> str:
    data = "data-stage" if own.role == "stage" else "data-times"
    labels = "".join(map(text, own.labels))
    if own.role == "repeat":  # the number stands on the frame
        left, right = own.labels[0].extent[0], own.labels[-1].extent[1]
        badge = Rect(left - 6, own.rect.y - 9, even(right - left + 12), 18.0)
        labels = f'<rect class="count" {area(badge)} rx="9"/>{labels}'
    return f'<g class="{own.role}" {data}="{own.value}"><rect {area(own.rect)} rx="10"/>{labels}</g>'


def upper(scene: Scene) -> Iterator[str]:
    """What is above all boxes, or beside them: the legend, names of lines, the lines above the picture."""
    yield from map(_key, scene.keys)
    yield from map(text, scene.labels)
    if scene.head:
        lines = sorted(scene.head, key=lambda line: (line.x, line.y))
        settings = ", ".join(dict.fromkeys(scene.settings))
        tip = f"<title>{escape(settings)}</title>" if settings else ""
        yield f'<g class="head">{tip}{"".join(map(text, lines))}</g>'


def _key(key: Key) -> str:
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
        shown = path(edge_line(edge), _ends(edge)) + "".join(map(path, edge_heads(edge)))
        shown += "".join(map(path, edge_core(edge))) if many else ""
    else:
        shown = sign(key.sign, (r.x + r.width / 2, r.middle))
        shown = f'<g class="label">{shown}</g>' if not key.sign else shown
    return f'<g class="key">{shown}{text(key.label) if key.label.text else ""}</g>'


def box_shapes(box: Box) -> Iterator[str]:
    """What a box shows."""
    if box.rect:
        yield f'<rect {area(box.rect)} rx="6"/>'
    for mark in box.marks:
        yield f'<rect class="mark {mark.role}" {area(mark.rect)} rx="4"/>'
    yield from map(text, box.texts)
    if box.join:
        yield sign(box.look.sign, box.join)


def classes(look: Look) -> str:
    """Those of a box's group."""
    named = f"block kind-{look.kind}" if look.type == "block" else f"node {look.type}"
    return f"{named} {look.hue}".strip()


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


_ORDER = {role: i for i, role in enumerate(("rail", "branch", "position", "condition", "context", "scores"))}


def in_order(edges: Iterable[Edge]) -> list[Edge]:
    """Edges from below to above."""
    return sorted(edges, key=lambda edge: _ORDER.get(edge.role, len(_ORDER)))


Segment = tuple[str, tuple[Point, ...]]
"""A part of a path: its letter, and the points that follow it."""


class Stroke(NamedTuple):
    """A path and its classes."""

    classes: str
    way: tuple[Segment, ...]


def path(stroke: Stroke, more: str = "") -> str:
    return f'<path class="{stroke.classes}"{more} d="{_absolute(stroke.way)}"/>'


def _absolute(way: Iterable[Segment]) -> str:
    return "".join(letter + " ".join(f"{n(x)} {n(y)}" for x, y in points) for letter, points in way)


def relative(way: Iterable[Segment]) -> str:
    """The same, to follow a move to the place from which its points count."""
    out, at = [], (0.0, 0.0)
    for letter, points in way:
        moves = " ".join(f"{n(x - at[0])} {n(y - at[1])}" for x, y in points)
        if (letter, moves) != ("M", "0 0"):
            out.append(letter.lower() + moves)
        at = points[-1] if points else at
    return "".join(out)


def _ends(edge: Edge) -> str:
    return f' data-from="{escape(edge.source)}" data-to="{escape(edge.target)}"'


def edge_line(edge: Edge) -> Stroke:
    """An edge without its heads."""
    marks = (" many" if edge.many else "") + (" cut" if edge.cut else "")
    return Stroke(f"edge {edge.role}{marks}", curve(edge.points) if edge.curved else rounded(edge.points))


def edge_heads(edge: Edge) -> Iterator[Stroke]:
    """At its end, but for the wide ones of `core`, and on its way."""
    points = edge.points
    if edge.arrow and not edge.many:
        yield Stroke(f"head {edge.role}", arrow(points, HEAD))
    for i in edge.heads:
        (x, y), (to_x, to_y) = points[i : i + 2]
        yield Stroke(f"head {edge.role}", arrow((points[i], ((x + to_x) / 2, (y + to_y) / 2)), WIDE_HEAD))


def edge_core(edge: Edge) -> Iterator[Stroke]:
    """The light middle of a line that stands for several, and its head.

    They are above all lines: where two meet, both are open.
    """
    *way, (x, y), (end, _) = edge.points
    yield Stroke("core", rounded((*way, (x, y), (end + WIDE_HEAD[0] * ((x > end) - (x < end)), y))))
    yield Stroke(f"head {edge.role}", arrow(edge.points, WIDE_HEAD))


def rounded(points: tuple[Point, ...]) -> tuple[Segment, ...]:
    """A path along the points with round corners."""
    out: list[Segment] = [("M", points[:1])]
    for before, at, after in zip(points, points[1:], points[2:], strict=False):
        out += [("L", (toward(at, before),)), ("Q", (at, toward(at, after)))]
    return (*out, ("L", points[-1:]))


def toward(at: Point, other: Point) -> Point:
    """A corner's length from one point to another, at most half the way."""
    dx, dy = other[0] - at[0], other[1] - at[1]
    length = abs(dx) + abs(dy)
    share = min(CORNER, length / 2) / length if length else 0
    return at[0] + dx * share, at[1] + dy * share


def curve(points: tuple[Point, ...]) -> tuple[Segment, ...]:
    """A path from point to point that leaves and arrives upright."""
    out: list[Segment] = [("M", points[:1])]
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (y + to_y) / 2
        out.append(("C", ((x, middle), (to_x, middle), (to_x, to_y))))
    return tuple(out)


def arrow(points: tuple[Point, ...], shape: tuple[float, float]) -> tuple[Segment, ...]:
    """A triangle with its tip at the last point."""
    (x, y), (to_x, to_y) = points[-2:]
    length, half = shape
    dx, dy = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
    if dx and dy:
        dx = 0
    back = to_x - dx * length, to_y - dy * length
    left, right = (back[0] - dy * half, back[1] + dx * half), (back[0] + dy * half, back[1] - dx * half)
    return ("M", points[-1:]), ("L", (left,)), ("L", (right,)), ("Z", ())
