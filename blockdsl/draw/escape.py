"""Colours in a terminal, by its escape codes (ECMA-48), and whether to use them."""

from __future__ import annotations

import os
from typing import TextIO

_CODES = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "grey": 90} | {
    **{"bright red": 91, "bright green": 92, "bright yellow": 93, "bright blue": 94, "bright magenta": 95},
    "bright cyan": 96,
}


def wanted(stream: TextIO) -> bool:
    """Whether what is written to `stream` is seen in colour: by a terminal whose user has not set NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, color: str) -> str:
    """`text` in this colour, and what follows in the terminal's own."""
    return f"\x1b[{_CODES[color]}m{text}\x1b[0m"
