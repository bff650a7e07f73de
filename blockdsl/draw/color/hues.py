"""The colours of block kinds, alike in pictures, in text for other tools and in a terminal."""

from __future__ import annotations

from typing import NamedTuple

from ...registry.kinds import kinds
from .palette import HUES


class Hue(NamedTuple):
    """A colour.

    Attributes:
        name: in a terminal.
        fill, line: of a box, as hexadecimal RGB. Black text on the fill can be read.
    """

    name: str
    fill: str
    line: str


# Each of HUES in a terminal.
_IN_A_TERMINAL = (
    *("blue", "magenta", "yellow", "red", "green", "cyan"),
    *("bright yellow", "bright red", "bright green", "bright cyan", "bright magenta", "bright blue"),
)


def place(kind: str) -> int:
    """The kind's place in HUES; where there are more kinds, they are reused from the end, so attention's last."""
    index, count = [*kinds()].index(kind), len(HUES)
    return index if index < count else (2 * count - 2 - index) % count


def hue(kind: str) -> Hue:
    """The colour of a kind."""
    (fill, line, _), _ = HUES[place(kind)]
    return Hue(_IN_A_TERMINAL[place(kind)], fill, line)
