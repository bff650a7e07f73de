"""An SVG picture as PDF, by CairoSVG: an extra."""

from __future__ import annotations

from ...errors import UserError
from ..color.palette import CODE, FAMILY
from .png import MONOSPACE, SANS


def pdf(svg: str) -> bytes:
    """The picture as PDF, with the fonts in it: text can be searched and copied.

    CairoSVG takes the first font of a list and has no other for it, so each list becomes the font that text was
    measured in.

    Raises:
        UserError: CairoSVG or the cairo library is not installed.
    """
    try:
        import cairosvg
    except (ImportError, OSError):  # OSError: the package is there, and the library that it loads is not
        raise UserError("PDF needs CairoSVG and the cairo library: python -m pip install 'xt-blocks[pdf]'") from None
    named = svg.replace(FAMILY, f"'{SANS}'").replace(CODE, f"'{MONOSPACE}'")
    return bytes(cairosvg.svg2pdf(bytestring=named.encode()))
