"""SVG pictures made small: lines that differ in numbers alone share a shape, and say by how much they differ.

A hundred blocks are a hundred lines of few shapes, each as far below the one before it as that was below its own. What
is left deflates to a fraction of what the picture itself does.
"""

from __future__ import annotations

import re

HOLE = "\x1f"  # in place of a number; XML has no place for this sign
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Packed:
    """Pictures that share their shapes.

    Attributes:
        shapes: lines with HOLE in place of each number.
    """

    def __init__(self) -> None:
        self.shapes: list[str] = []
        self._place: dict[str, int] = {}

    def add(self, svg: str) -> list[list[int]]:
        """Each line as the number of its shape, then what to add to the numbers it had last, in hundredths."""
        last: dict[str, list[int]] = {}
        out = []
        for line in svg.split("\n"):
            numbers: list[int] = []
            shape = _NUMBER.sub(lambda found: _taken(found[0], numbers), line)  # noqa: B023
            before = last.get(shape, [0] * len(numbers))
            out.append([self._index(shape), *(new - old for new, old in zip(numbers, before, strict=True))])
            last[shape] = numbers
        return out

    def _index(self, shape: str) -> int:
        index = self._place.setdefault(shape, len(self.shapes))
        if index == len(self.shapes):
            self.shapes.append(shape)
        return index


def _taken(text: str, numbers: list[int]) -> str:
    """A hole for a number that hundredths write as it is; any other stays."""
    hundredths = round(float(text) * 100)
    if len(text) > 12 or _written(hundredths) != text:
        return text
    numbers.append(hundredths)
    return HOLE


def _written(hundredths: int) -> str:
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".")
