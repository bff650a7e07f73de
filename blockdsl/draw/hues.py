"""The colours of block kinds in drawings."""

from __future__ import annotations

from typing import NamedTuple

from ..kinds import kinds


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
_HUES = (
    Hue("blue", "#e4eefb", "#4a84c4"),
    Hue("magenta", "#ebe5f8", "#8067bb"),
    Hue("yellow", "#fcedd6", "#c98a2b"),
    Hue("cyan", "#dcf2ec", "#3c9684"),
    Hue("red", "#fbe4e9", "#c4607a"),
    Hue("green", "#ecf3d7", "#84972f"),
)


def hue(kind: str) -> Hue:
    """The colour of a kind; those that were registered take turns, in the order they were."""
    names = [*_BUILT_IN, *(name for name in kinds() if name not in _BUILT_IN)]
    return _HUES[names.index(kind) % len(_HUES)]
