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


_BUILT_IN = ("a", "c", "f")
_IN_A_TERMINAL = ("blue", "magenta", "yellow", "cyan", "red", "green", "cyan", "yellow")  # each of HUES


def place(kind: str) -> int:
    """The kind's place in HUES; those that were registered take turns, in the order they were."""
    names = [*_BUILT_IN, *(name for name in kinds() if name not in _BUILT_IN)]
    return names.index(kind) % len(HUES)


def hue(kind: str) -> Hue:
    """The colour of a kind."""
    (fill, line, _), _ = HUES[place(kind)]
    return Hue(_IN_A_TERMINAL[place(kind)], fill, line)
