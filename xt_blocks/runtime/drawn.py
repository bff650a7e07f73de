"""Modules with pictures of their graphs, which notebooks show."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from blockdsl.draw import page, side_by_side
from blockdsl.draw.forms.images import HasPicture

if TYPE_CHECKING:
    from blockdsl import BlockGraph


class Drawn(HasPicture):
    """A module made of block graphs."""

    @property
    def graphs(self) -> dict[str, BlockGraph]:
        """Its graphs by name, in the order in which they run."""
        inner = getattr(self, "net", None)
        return {"": self.graph} if inner is None else inner.graphs  # type: ignore[attr-defined]

    def to_svg(self, path: str | PathLike[str] | None = None, **options: Any) -> str:
        """Its picture; the arguments are those of `BlockGraph.to_svg`."""
        graphs = self.graphs
        if len(graphs) > 1:
            return side_by_side(graphs, path, **options)
        (graph,) = graphs.values()
        return graph.to_svg(path, **options)

    def to_html(self, path: str | PathLike[str] | None = None, **options: Any) -> str:
        """Its page; the arguments are those of `BlockGraph.to_html`."""
        return page(self.graphs, path, **options)
