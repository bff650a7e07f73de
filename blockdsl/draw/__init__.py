"""Drawings of block graphs. Each reads the graph and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UserError
from ..files import write_whole

if TYPE_CHECKING:
    from ..graph.diff import Difference
    from ..graph.graph import Graph

__all__ = ["side_by_side"]

Drawn = TypeVar("Drawn", str, bytes)

FORMS = {".svg": "to_svg", ".png": "to_png", ".pdf": "to_pdf", ".html": "to_html"}
"""How a picture's name ends → the method that draws it."""


def side_by_side(
    graphs: Mapping[str, Graph],
    path: str | PathLike[str] | None = None,
    *,
    theme: str = "auto",
    model: Graph | None = None,
    **options: Any,
) -> str:
    """Several graphs as one SVG picture, from left to right; what one gives is the context of the next.

    Args:
        graphs: each with its name, as {"encoder": g, "decoder": h}. A node is called `encoder.a0` in the picture.
        path: a file to write it to.
        theme, options: as `BlockGraph.to_svg` has them.
        model: of which they are the two streams: what both have is above both.

    Raises:
        UserError: there is no graph, or an option has a value that it cannot have.
    """
    from .forms.svg import svg
    from .layout.picture import scene

    _check(graphs)
    return save_drawing(svg(scene(graphs, model, **options), theme), path, ".svg")


def aligned(diff: Difference, path: str | PathLike[str] | None = None, *, theme: str = "auto", **options: Any) -> str:
    """A difference as one SVG picture: what belongs together at one height.

    Args:
        path: a file to write it to.
        theme, options: as `BlockGraph.to_svg` has them, but for `color`.

    Raises:
        UserError: an option has a value that it cannot have.
    """
    from .forms.svg import svg
    from .layout.difference import difference

    return save_drawing(svg(difference(diff, **options), theme), path, ".svg")


def aligned_page(diff: Difference, path: str | PathLike[str] | None = None, **options: Any) -> str:
    """A difference as one HTML page, as `aligned` draws it; arguments and errors are those, and `dtype`."""
    from functools import partial

    from .forms.html import html
    from .layout.difference import SIDES, difference
    from .words.changes import streams

    graphs, notes = {}, {}
    for name, own in streams(diff).items():
        for side, graph, status in zip(SIDES, (own.before, own.after), own.status(), strict=True):
            called = f"{name} {side}".strip()
            graphs[called], notes[called] = graph, status
    return save_drawing(html(graphs, partial(difference, diff), notes=notes, **options), path, ".html")


def save_drawing(drawn: Drawn, path: str | PathLike[str] | None, ending: str) -> Drawn:
    """What was drawn, which is in the file then too; None: there is none.

    Raises:
        UserError: the file's name says that it is another kind of picture.
    """
    if path is None:
        return drawn
    named = Path(path).suffix.lower()
    if named in FORMS and named != ending:
        raise UserError(f"{path}: {FORMS[ending]} writes {ending} files; {FORMS[named]} writes {named}")
    write_whole(path, f"{drawn}\n" if isinstance(drawn, str) and ending == ".svg" else drawn)
    return drawn


def page(graphs: Mapping[str, Graph], path: str | PathLike[str] | None = None, **options: Any) -> str:
    """Several graphs as one HTML page, as `side_by_side` draws them.

    Args:
        graphs: each with its name; one alone may be called "".
        path: a file to write it to.
        options: as `BlockGraph.to_html` has them.

    Raises:
        UserError: there is no graph, or an option has a value that it cannot have.
    """
    from .forms.html import html

    _check(graphs)
    return save_drawing(html(graphs, **options), path, ".html")


def _check(graphs: Mapping[str, Graph]) -> None:
    if not graphs:
        raise UserError("there is no graph to draw; give some by name, as in {'encoder': g, 'decoder': h}")
