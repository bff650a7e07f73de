"""An SVG picture as PNG, by resvg: an extra."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ...errors import UserError
from ...registry.options import real

SANS, MONOSPACE = "DejaVu Sans", "DejaVu Sans Mono"


def png(svg: str, scale: float = 2.0) -> bytes:
    """The picture as an image.

    The font is the one that text was measured in. matplotlib brings it along, so it is there on a machine without any.

    Raises:
        UserError: resvg-py is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise UserError("PNG needs resvg-py: python -m pip install 'xt-blocks[png]'") from None
    return resvg_py.svg_to_bytes(
        svg_string=svg,
        zoom=real("scale", scale, above=0),
        font_dirs=_fonts(),
        sans_serif_family=SANS,
        monospace_family=MONOSPACE,
    )


def _fonts() -> list[str]:
    matplotlib = find_spec("matplotlib")
    if matplotlib is None or matplotlib.origin is None:
        return []
    return [str(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf")]
