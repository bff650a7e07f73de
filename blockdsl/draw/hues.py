"""The colours of block kinds in drawings."""

from __future__ import annotations

from typing import NamedTuple

from ..kinds import kinds
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
_NAMES = ("blue", "magenta", "yellow", "cyan", "red", "green")
_HUES = tuple(Hue(name, *light[:2]) for name, (light, _) in zip(_NAMES, HUES, strict=False))


def hue(kind: str) -> Hue:
    """The colour of a kind; those that were registered take turns, in the order they were."""
    names = [*_BUILT_IN, *(name for name in kinds() if name not in _BUILT_IN)]
    return _HUES[names.index(kind) % len(_HUES)]
