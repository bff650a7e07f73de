"""A scene in pieces, for a page that draws it again after each key: shapes, and where each of them is.

What looks alike is one shape, an SVG element from a place of its own; most of a picture is a few shapes at many places.
Shapes and the ways of lines have numbers that stay, so that a page needs to be told of each only once, and of a picture
only what is not as in the one before.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..layout.scene import NAMELESS, Box, Edge, Frame, Look, Scene
from .svg import (
    Stroke,
    box_shapes,
    classes,
    edge_core,
    edge_heads,
    edge_line,
    frame_group,
    in_order,
    relative,
    sheet,
    upper,
)

MOST = 50_000  # shapes of a page, some 20 MB; with more, it begins anew
PAGES = 4  # whose shapes are kept

Row = Sequence[tuple[Any, ...]]


class Known(NamedTuple):
    """What a page has been told.

    Attributes:
        name: by which it asks for more.
        shapes, paths: how many of each it has.
        picture: the number of the one that it shows.
    """

    name: str = ""
    shapes: int = 0
    paths: int = 0
    picture: int = 0


NOTHING = Known()


class Shapes:
    """The shapes that one page has, each by its number, and where they were in the last picture that it was told.

    Attributes:
        name: by which the page asks for more.
        paths: ways of lines, by their numbers.
        rows: what the last picture has, by name; picture: its number.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.texts: list[str] = []
        self.paths: dict[str, int] = {}
        self.rows: Mapping[str, Row] = {}
        self.picture = 0
        self._numbers: dict[str, int] = {}
        self._known: dict[Hashable, int] = {}

    def number(self, key: Hashable, shape: Callable[[], str]) -> int:
        """The number of a shape; `key`: by which it is known without being made."""
        if key not in self._known:
            text = shape()
            self._known[key] = self._numbers.setdefault(text, len(self.texts))
            if self._known[key] == len(self.texts):
                self.texts.append(text)
        return self._known[key]


_pages: dict[str, Shapes] = {}


def shapes_of(name: str) -> Shapes:
    """Those of a page that was given them by this name; with any other, new ones."""
    found = _pages.pop(name, None)
    if found is None or len(found.texts) + len(found.paths) > MOST:
        found = Shapes()
    _pages[found.name] = found
    while len(_pages) > PAGES:
        del _pages[next(iter(_pages))]
    return found


def scene_pieces(scene: Scene, known: Known = NOTHING) -> dict[str, Any]:
    """A scene for JSON.

    Returns:
        Its `size` and `moved`, `title` and `alt`; `upper`: elements above all else; `name`, `picture`: for `known`.
        `shapes`, `paths`: (the first one's number, those from there on).
        `rows`: by name what is to be put in the place of the last picture's: (how much of that stays at its start, how
        much at its end, what is between). `frames` and `boxes` have a shape's number and where it is, of a box with
        the nodes that it stands for, if any; all others, from below to above, are lines: their name is their classes,
        and each has a path's number and where it begins.
    """
    shapes = shapes_of(known.name)
    if shapes.name != known.name:
        known = NOTHING
    before = shapes.rows if known.picture == shapes.picture else {}
    boxes = [_box(box, shapes) for box in scene.boxes]
    frames = [_frame(frame, shapes) for frame in scene.frames]
    shapes.rows = {"frames": frames, "boxes": boxes, **_lines(scene.edges, shapes.paths)}
    shapes.picture += 1
    dx, dy, wide, high = sheet(scene)
    return {
        "size": (wide, high),
        "moved": (dx, dy),
        "title": scene.title,
        "alt": scene.alt,
        "rows": {name: _change(before.get(name, ()), row) for name, row in shapes.rows.items()},
        "upper": "".join(upper(scene)),
        "name": shapes.name,
        "picture": shapes.picture,
        "shapes": (first := min(known.shapes, len(shapes.texts)), shapes.texts[first:]),
        "paths": (first := min(known.paths, len(shapes.paths)), [*shapes.paths][first:]),
    }


def _change(before: Row, after: Row) -> tuple[int, int, Row]:
    """What of a row stays at its start and at its end, and what comes between."""
    start = _alike(before, after)
    end = _alike(before[: start - len(before) - 1 : -1], after[: start - len(after) - 1 : -1])
    return start, end, after[start : len(after) - end]


def _alike(before: Row, after: Row) -> int:
    """How many are the same at the start of both."""
    return next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )


def _frame(frame: Frame, shapes: Shapes) -> tuple[int, float, float]:
    x, y = frame.rect.x, frame.rect.y
    own = frame.moved(-x, -y)
    return shapes.number(own, lambda: frame_group(own)), x, y


def _box(box: Box, shapes: Shapes) -> tuple[Any, ...]:
    look = box.look
    number = shapes.number(look, lambda: _shape(look))
    if look.type in NAMELESS:
        return number, box.x, box.y
    return number, box.x, box.y, *box.nodes


def _shape(look: Look) -> str:
    return f'<g class="{classes(look)}">{"".join(box_shapes(Box("", (), look)))}</g>'


def _lines(edges: Sequence[Edge], paths: dict[str, int]) -> dict[str, list[tuple[int, float, float]]]:
    """Classes → of each stroke that has them the number of its path, and where it begins; `paths` → their numbers."""
    out: dict[str, list[tuple[int, float, float]]] = {}
    known: dict[Hashable, list[tuple[list[tuple[int, float, float]], int]]] = {}
    several = [edge for edge in edges if edge.many]
    for parts, drawn in ((_plain, edges), (edge_core, several)):
        for edge in in_order(drawn):
            x, y = edge.points[0]
            way = tuple([(a - x, b - y) for a, b in edge.points])
            key = edge.role, way, edge[4:]
            if (found := known.get(key)) is None:
                strokes = [(stroke.classes, relative(stroke.way)) for stroke in parts(edge.through(way))]
                found = [(out.setdefault(c, []), paths.setdefault(d, len(paths))) for c, d in strokes]
                known[key] = found
            for places, number in found:
                places.append((number, x, y))
        known.clear()
    return out


def _plain(edge: Edge) -> Iterable[Stroke]:
    return edge_line(edge), *edge_heads(edge)
