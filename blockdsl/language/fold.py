"""Finding the repetitions in a sequence: twelve alternating blocks are `(a f)*6`.

Used to write a list of layers as the shortest text and to draw a repeat once. The result says where each
repeat is and how often it runs; what the elements are does not matter, only which are equal.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import eq

# Up to this length every period and count is tried and the result is the shortest there is. In longer sequences
# units are at most this long (but for one that fills the whole sequence), which keeps the work linear.
_EXACT = 200
_LONGEST_UNIT = 48

_LINE = 20  # what an element takes where the whole is no text, beside 2 for a count and 2 for a group


@dataclass(frozen=True)
class Loop:
    """`body` run `count` times; an element of a body is an index into the sequence or a Loop itself."""

    body: tuple[int | Loop, ...]
    count: int


Folded = tuple[int | Loop, ...]


def fold(items: Sequence[Hashable], width: Callable[[int], int] | None = None) -> Folded:
    """The sequence with its repeats folded, as short as it can be.

    Args:
        items: the sequence; equal elements may be folded into one.
        width: index of an element → how long its text is, where the whole is written as text; None: each element takes
            a line, and how often a unit repeats takes none.

    Returns:
        Indices into `items` (of each repeat's first copy) and Loops, in order.
    """
    codes: dict[Hashable, int] = {}
    sequence = tuple(codes.setdefault(item, len(codes)) for item in items)
    first: dict[int, int] = {}
    for index, code in enumerate(sequence):
        first.setdefault(code, index)
    widths = {code: _LINE if width is None else width(index) for code, index in first.items()}
    return _placed(_Folder(widths, counted=width is not None).fold(sequence)[1], 0)[0]


def shortest(layers: Sequence[str]) -> str:
    """Layers as the shortest text with repeats: ['a', 'f', 'a', 'f'] is '(a f)*2'."""
    return _written(fold(layers, lambda index: len(layers[index])), layers)


def _written(folded: Folded, layers: Sequence[str]) -> str:
    parts = []
    for part in folded:
        if isinstance(part, int):
            parts.append(layers[part])
        elif len(part.body) == 1 and isinstance(part.body[0], int):
            parts.append(f"{layers[part.body[0]]}*{part.count}")
        else:
            parts.append(f"({_written(part.body, layers)})*{part.count}")
    return " ".join(parts)


def _placed(folded: Folded, start: int) -> tuple[Folded, int]:
    """Codes replaced by the index of the element they stand for; also where the next element is."""
    out: list[int | Loop] = []
    for part in folded:
        if isinstance(part, Loop):
            body, end = _placed(part.body, start)
            out.append(Loop(body, part.count))
            start += (end - start) * part.count
        else:
            out.append(start)
            start += 1
    return tuple(out), start


class _Folder:
    """Shortest folding by dynamic programming from the right, memoised for each unit met."""

    def __init__(self, widths: dict[int, int], counted: bool) -> None:
        self.widths, self.counted = widths, counted
        self.known: dict[tuple[int, ...], tuple[int, Folded]] = {}

    def fold(self, seq: tuple[int, ...]) -> tuple[int, Folded]:
        """The text's length and the folding (with codes in place of indices)."""
        if seq not in self.known:
            period = _period(seq)
            if period < len(seq):
                self.known[seq] = self._loop(self.fold(seq[:period]), len(seq) // period)
            else:
                self.known[seq] = self._cheapest(seq)
        return self.known[seq]

    def _loop(self, unit: tuple[int, Folded], count: int) -> tuple[int, Folded]:
        return self._cost(unit, count), (Loop(unit[1], count),)

    def _cost(self, unit: tuple[int, Folded], count: int) -> int:
        """Of a unit that repeats so often."""
        cost, body = unit
        bare = len(body) == 1 and isinstance(body[0], int)
        return cost + (len(f"*{count}") if self.counted else 2) + (0 if bare else 2)

    def _cheapest(self, seq: tuple[int, ...]) -> tuple[int, Folded]:
        n = len(seq)
        repeats = _repeats(seq, n // 2 if n <= _EXACT else _LONGEST_UNIT)
        best = [0] * (n + 1)  # what the rest from there costs
        first: list[tuple[int, tuple[int, Folded], int]] = []
        """Of each rest, the shortest one first: where its first part ends, the unit of that, and how often it runs."""
        for i in range(n - 1, -1, -1):
            alone: tuple[int, Folded] = self.widths[seq[i]], (seq[i],)
            least, choice = alone[0] + (i + 1 < n) + best[i + 1], (i + 1, alone, 1)
            for period, most in repeats[i]:
                unit = self.fold(seq[i : i + period])
                for count in range(2, most + 1) if n <= _EXACT else {2, most - 1, most} - {1}:
                    end = i + period * count
                    cost = self._cost(unit, count) + (end < n) + best[end]
                    if cost < least:
                        least, choice = cost, (end, unit, count)
            best[i] = least
            first.append(choice)
        parts: list[int | Loop] = []
        at = 0
        while at < n:
            at, unit, count = first[n - 1 - at]
            parts += unit[1] if count == 1 else self._loop(unit, count)[1]
        return best[0], tuple(parts)


def _period(seq: tuple[int, ...]) -> int:
    """The length of the shortest unit whose repetition is the whole sequence (Knuth, Morris, Pratt)."""
    border = [0] * len(seq)
    for i in range(1, len(seq)):
        k = border[i - 1]
        while k and seq[i] != seq[k]:
            k = border[k - 1]
        border[i] = k + 1 if seq[i] == seq[k] else 0
    period = len(seq) - border[-1] if seq else 0
    return period if period and len(seq) % period == 0 else len(seq)


def _repeats(seq: tuple[int, ...], longest: int) -> list[list[tuple[int, int]]]:
    """For each start, the units that repeat there: (length, how often), units of units left out."""
    n = len(seq)
    found: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    noted: dict[int, list[tuple[int, int]]] = {}  # period → from where to where a unit so long repeats, ascending
    for period in range(1, min(longest, n // 2) + 1):
        alike = bytes(map(eq, seq, seq[period:]))  # whether an element equals the one a period later
        for run in _runs(period).finditer(alike):
            start, end = run.span()
            if any(period % p == 0 and _holds(inside, start, end + period) for p, inside in noted.items()):
                continue  # a unit of units there
            whole = True
            for i in range(end - period, start - 1, -1):
                if any(period % p == 0 and p * c >= period * 2 for p, c in found[i]):
                    whole = False
                else:
                    found[i].append((period, (end - i) // period + 1))
            if whole:
                noted.setdefault(period, []).append((start, end + period))
    return found


def _holds(ranges: list[tuple[int, int]], start: int, end: int) -> bool:
    """Whether one of these, which ascend, holds all of that range."""
    before = bisect_right(ranges, start, key=lambda own: own[0])
    return before > 0 and ranges[before - 1][1] >= end


@cache
def _runs(length: int) -> re.Pattern[bytes]:
    """So many true bytes or more."""
    return re.compile(b"\x01{%d,}" % length)
