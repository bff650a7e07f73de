"""A scene in pieces, for a page that draws it again after each key: shapes, and where each of them is.

What looks alike is one shape, an SVG element from a place of its own; most of a picture is a few shapes at many places.
Shapes have numbers that stay, so that a page needs to be told of each only once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

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


class Shapes:
    """The shapes that one page has, each by its number.

    Attributes:
        name: by which the page asks for more.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.texts: list[str] = []
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
    if found is None or len(found.texts) > MOST:
        found = Shapes()
    _pages[found.name] = found
    while len(_pages) > PAGES:
        del _pages[next(iter(_pages))]
    return found


def scene_pieces(scene: Scene, name: str = "", known: int = 0) -> dict[str, Any]:
    """A scene for JSON.

    Args:
        name, known: of the page's shapes, and how many of them it has.

    Returns:
        Its `size` and `moved`, `title` and `alt`; `name`, `first`, `shapes`: the page's shapes from that number on;
        `frames` and `boxes`, each a shape's number and where it is, of a box with the nodes that it stands for, if any;
        `lines`, from below to above, each its classes, and of many a path's number in `paths` and where it begins;
        `upper`: elements above all else.
    """
    shapes = shapes_of(name)
    first = min(known, len(shapes.texts)) if shapes.name == name else 0
    paths: dict[str, int] = {}
    dx, dy, wide, high = sheet(scene)
    return {
        "size": (wide, high),
        "moved": (dx, dy),
        "title": scene.title,
        "alt": scene.alt,
        "frames": [_frame(frame, shapes) for frame in scene.frames],
        "boxes": [_box(box, shapes) for box in scene.boxes],
        "lines": [*_lines(scene.edges, paths).items()],
        "paths": [*paths],
        "upper": "".join(upper(scene)),
        "name": shapes.name,
        "first": first,
        "shapes": shapes.texts[first:],
    }


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


def _lines(edges: Sequence[Edge], paths: dict[str, int]) -> dict[str, list[float]]:
    """Classes → of each stroke that has them the number of its path, and where it begins; `paths` → their numbers."""
    out: dict[str, list[float]] = {}
    known: dict[Hashable, list[tuple[list[float], int]]] = {}
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
                places += number, x, y
        known.clear()
    return out


def _plain(edge: Edge) -> Iterable[Stroke]:
    return edge_line(edge), *edge_heads(edge)
