"""The colours of block kinds, alike in pictures, in text for other tools and in a terminal."""

from __future__ import annotations

from typing import NamedTuple

from ..registry.kinds import kinds
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


_IN_A_TERMINAL = ("blue", "magenta", "yellow", "cyan", "red", "green", "cyan", "yellow")  # each of HUES


def place(kind: str) -> int:
    """The kind's place in HUES, which is reused from the start when there are more kinds."""
    return [*kinds()].index(kind) % len(HUES)


def hue(kind: str) -> Hue:
    """The colour of a kind."""
    (fill, line, _), _ = HUES[place(kind)]
    return Hue(_IN_A_TERMINAL[place(kind)], fill, line)
