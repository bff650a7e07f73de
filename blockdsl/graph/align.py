"""Matching two sequences in order at the least cost (Needleman and Wunsch, doi:10.1016/0022-2836(70)90057-4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Cost = Callable[[Any, Any], "int | None"]

GAP = 100  # what an element without a partner costs; a pair of unlike elements costs less than two of these
_CELLS = 250_000  # a larger table is searched along its diagonal only, which keeps the work linear
_BAND = 64


def align(before: Sequence[Any], after: Sequence[Any], cost: Cost) -> list[tuple[int, int]]:
    """The pairs of elements that belong together, as indices into both, ascending in both.

    Of ways that cost the same it is one with the fewest runs without a partner, and of those the earliest: elements are
    paired from the front on, and what the longer sequence has more of stands after them. So an element in another's
    place is beside it, and of two stacks of 12 and of 32 layers the first 12 belong together. The result of two
    sequences swapped is the same, swapped.

    Args:
        cost: two elements that are not equal → what pairing them costs, or None where they are no pair. Elements can be
            keys of a dict.
    """
    start, end = 0, 0
    shortest = min(len(before), len(after))
    while start < shortest and before[start] == after[start]:
        start += 1
    while end < shortest - start and before[-1 - end] == after[-1 - end]:
        end += 1
    rows, columns = before[start : len(before) - end], after[start : len(after) - end]
    inner = [(i + start, j + start) for i, j in _cheapest(rows, columns, cost)]
    ends = [(len(before) - k, len(after) - k) for k in range(end, 0, -1)]
    return _earlier([(i, i) for i in range(start)] + inner + ends, before, after)


def _earlier(pairs: list[tuple[int, int]], before: Sequence[Any], after: Sequence[Any]) -> list[tuple[int, int]]:
    """The same, with runs that have no partner after equals of theirs: ends were matched without a look ahead."""
    out: list[tuple[int, int]] = []
    i = j = 0
    for one, other in pairs:
        moves = (i == one) != (j == other) and before[i] == before[one] and after[j] == after[other]
        i, j = (i, j) if moves else (one, other)
        out.append((i, j))
        i, j = i + 1, j + 1
    return out


def _cheapest(rows: Sequence[Any], columns: Sequence[Any], cost: Cost) -> list[tuple[int, int]]:
    if not rows or not columns:
        return []
    price = _priced(rows, columns, cost)
    paired, alone = _tables(len(rows), len(columns), price)
    pairs = []
    i = j = 0
    table = paired
    while i < len(rows) and j < len(columns):
        here, pair = table[i][j], price(i, j)
        if pair is not None and here == pair + paired[i + 1].get(j + 1, _NO_WAY):
            pairs.append((i, j))
            i, j, table = i + 1, j + 1, paired
            continue
        row, column = alone[i + 1].get(j, _NO_WAY), alone[i].get(j + 1, _NO_WAY)
        first = row < column
        if row == column:  # decided alike whichever sequence comes first
            first = (len(rows) - i, repr(rows[i])) > (len(columns) - j, repr(columns[j]))
        i, j, table = (i + 1, j, alone) if first else (i, j + 1, alone)
    return pairs


_NO_WAY = 1 << 90
_WHOLE = 1 << 32  # the table's units in a cost: what runs without a partner add decides only where costs are the same

Table = list[dict[int, int]]


def _tables(height: int, width: int, price: Callable[[int, int], int | None]) -> tuple[Table, Table]:
    """What rows and columns from each on cost, after a pair and after an element that has no partner."""
    far = height * width if height * width <= _CELLS else (_BAND + abs(height - width)) * max(height, width)
    tables: tuple[Table, Table] = ([], [])
    paired: dict[int, int] = {}
    alone: dict[int, int] = {}
    for i in range(height, -1, -1):
        below, across, paired, alone = alone, paired, {}, {}
        for j in range(min(width, (i * width + far) // height), max(0, -((far - i * width) // height)) - 1, -1):
            more = i < height or j < width
            gap = min(below.get(j, _NO_WAY), alone.get(j + 1, _NO_WAY)) + GAP * _WHOLE if more else 0
            pair = price(i, j) if i < height and j < width else None
            best = _NO_WAY if pair is None else across.get(j + 1, _NO_WAY) + pair
            alone[j] = min(best, gap)
            paired[j] = min(best, gap + more)
        tables[0].append(paired)
        tables[1].append(alone)
    return tables[0][::-1], tables[1][::-1]


def _priced(rows: Sequence[Any], columns: Sequence[Any], cost: Cost) -> Callable[[int, int], int | None]:
    """Row and column → what pairing them costs, in units of the table; each two elements are asked about once."""
    codes: dict[Any, int] = {}
    ours, theirs = ([codes.setdefault(item, len(codes)) for item in items] for items in (rows, columns))
    known: dict[tuple[int, int], int | None] = {}

    def price(i: int, j: int) -> int | None:
        key = ours[i], theirs[j]
        if key not in known:
            paid = 0 if key[0] == key[1] else cost(rows[i], columns[j])
            known[key] = None if paid is None else paid * _WHOLE
        return known[key]

    return price
