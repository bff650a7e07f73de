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

    The result of two sequences swapped is the same, swapped.

    Args:
        cost: two elements that are not equal → what pairing them costs, or None where they are no pair.
    """
    if [*map(repr, after)] < [*map(repr, before)]:  # ties are broken alike whichever comes first
        return [(i, j) for j, i in align(after, before, lambda a, b: cost(b, a))]
    start, end = 0, 0
    shortest = min(len(before), len(after))
    while start < shortest and before[start] == after[start]:
        start += 1
    while end < shortest - start and before[-1 - end] == after[-1 - end]:
        end += 1
    rows, columns = before[start : len(before) - end], after[start : len(after) - end]
    inner = [(i + start, j + start) for i, j in _cheapest(rows, columns, cost)]
    ends = [(len(before) - k, len(after) - k) for k in range(end, 0, -1)]
    return [(i, i) for i in range(start)] + inner + ends


def _cheapest(rows: Sequence[Any], columns: Sequence[Any], cost: Cost) -> list[tuple[int, int]]:
    if not rows or not columns:
        return []
    price = _priced(rows, columns, cost)
    width = len(columns)
    band = width if len(rows) * width <= _CELLS else abs(len(rows) - width) + _BAND
    spans = [
        (max(0, i * width // len(rows) - band), min(width, i * width // len(rows) + band)) for i in range(len(rows) + 1)
    ]
    first, last = spans[0]
    best = {j: j * GAP for j in range(first, last + 1)}  # cheapest way to the corner above-left of (row, column)
    steps: list[dict[int, str]] = []
    for i in range(len(rows)):
        first, last = spans[i + 1]
        now: dict[int, int] = {}
        step: dict[int, str] = {}
        for j in range(first, last + 1):
            choices = []
            if j and j - 1 in best and (pair := price(i, j - 1)) is not None:
                choices.append((best[j - 1] + pair, "pair"))
            if j in best:
                choices.append((best[j] + GAP, "row"))
            if j - 1 in now:
                choices.append((now[j - 1] + GAP, "column"))
            now[j], step[j] = min(choices, key=lambda choice: choice[0])
        best = now
        steps.append(step)
    return _walked(steps, width)


def _priced(rows: Sequence[Any], columns: Sequence[Any], cost: Cost) -> Callable[[int, int], int | None]:
    """Row and column → what pairing them costs; each two kinds of elements are asked about once."""
    codes: dict[Any, int] = {}
    ours, theirs = ([codes.setdefault(item, len(codes)) for item in items] for items in (rows, columns))
    known: dict[tuple[int, int], int | None] = {}

    def price(i: int, j: int) -> int | None:
        key = ours[i], theirs[j]
        if key not in known:
            known[key] = 0 if key[0] == key[1] else cost(rows[i], columns[j])
        return known[key]

    return price


def _walked(steps: list[dict[int, str]], width: int) -> list[tuple[int, int]]:
    pairs = []
    i, j = len(steps), width
    while i and j:
        step = steps[i - 1][j]
        i, j = i - (step != "column"), j - (step != "row")
        if step == "pair":
            pairs.append((i, j))
    return pairs[::-1]
