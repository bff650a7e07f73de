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


_BUILT_IN = {
    "a": Hue("yellow", "#fce8b2", "#b7791f"),
    "c": Hue("magenta", "#ead6f5", "#8e44ad"),
    "f": Hue("blue", "#d3e3f8", "#2b6cb0"),
}
_OTHERS = (Hue("green", "#d5efd8", "#2f855a"), Hue("cyan", "#cdeeee", "#1f7a7a"), Hue("red", "#f9d6d5", "#c0392b"))


def hue(kind: str) -> Hue:
    """The colour of a kind; those that were registered take turns, in the order they were."""
    if kind in _BUILT_IN:
        return _BUILT_IN[kind]
    own = [name for name in kinds() if name not in _BUILT_IN]
    return _OTHERS[own.index(kind) % len(_OTHERS) if kind in own else 0]
