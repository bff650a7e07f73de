"""What has an SVG picture has it as PNG and PDF too, and a notebook shows it."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

from .. import save_drawing


class HasPicture:
    """A value with a picture, `to_svg`."""

    to_svg: Callable[..., str]

    def to_png(
        self, path: str | PathLike[str] | None = None, *, scale: float = 2.0, theme: str = "light", **options: Any
    ) -> bytes:
        """The SVG picture as PNG; `theme` and `options` are those of `to_svg`.

        Args:
            path: a file to write it to.
            scale: pixels of the image for a pixel of the picture.

        Raises:
            UserError: resvg-py is not installed, or an option has a value that it cannot have.
        """
        from .png import png

        return save_drawing(png(self.to_svg(theme=theme, **options), scale), path, ".png")

    def to_pdf(self, path: str | PathLike[str] | None = None, *, theme: str = "light", **options: Any) -> bytes:
        """The SVG picture as PDF with its fonts, for a paper; `theme` and `options` are those of `to_svg`.

        Args:
            path: a file to write it to.

        Raises:
            UserError: CairoSVG is not installed, or an option has a value that it cannot have.
        """
        from .pdf import pdf

        return save_drawing(pdf(self.to_svg(theme=theme, **options)), path, ".pdf")

    def _repr_svg_(self) -> str:
        return self.to_svg()
