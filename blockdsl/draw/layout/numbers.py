"""Which block is which in a stack of several columns: numbers at some, as the names of nodes have them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from string import digits

from .face import STUB
from .placed import ColumnPart
from .scene import Box, Frame, Text

EVERY = 10  # blocks, beside the first and the last of each column
ROLE = "number"
LONGEST = 4  # digits of a number: more have no place


def number(pieces: Sequence[ColumnPart]) -> None:
    """Number blocks, between the lines to and from the rail, and repeats after their count.

    A box that stands for several blocks has no number, but the repeat around it has all of them.
    """
    for piece in pieces:
        blocks = [(box, _numbers(box)) for box in piece.scene.boxes if box.look.type == "block"]
        for i, (box, own) in enumerate(blocks):
            if len(own) == len(box.nodes) == 1 and (i in (0, len(blocks) - 1) or own[0] % EVERY == 0):
                piece.scene.labels.append(_beside(box, own[0]))
        if piece.scene.frames:
            _number_repeats(piece, sorted(((box.y, own) for box, own in blocks)))


def _number_repeats(piece: ColumnPart, blocks: Sequence[tuple[float, list[int]]]) -> None:
    """The numbers of what outer repeats stand for, where none is missing between the first and the last."""
    heights, bottom = [y for y, _ in blocks], float("-inf")
    for i, frame in enumerate(piece.scene.frames):
        if frame.role != "repeat" or frame.rect.y < bottom:
            continue
        bottom = frame.rect.bottom
        inside = blocks[bisect_left(heights, frame.rect.y) : bisect_right(heights, bottom)]
        own = sorted(number for _, numbers in inside for number in numbers)
        if own and len(own) == own[-1] - own[0] + 1:
            piece.scene.frames[i] = _ranged(frame, f"{own[0]}–{own[-1]}")


def _numbers(box: Box) -> list[int]:
    found = (node[len(node.rstrip(digits)) :] for node in box.nodes)
    return [int(number) for number in found if 0 < len(number) <= LONGEST]


def _beside(box: Box, own: int) -> Text:
    """Between what enters a box at its right and what leaves it; above it where that is at its middle."""
    rect = box.rect
    assert rect is not None
    if box.look.join is None:
        return Text(rect.right - 1, rect.y - 3, str(own), ROLE, "end")
    return Text(rect.right + STUB / 2, rect.middle + 3, str(own), ROLE, "middle")


def _ranged(frame: Frame, numbers: str) -> Frame:
    (times,) = frame.labels
    return frame._replace(labels=(times, Text(times.extent[1] + 6, times.y - 0.5, numbers, ROLE)))
