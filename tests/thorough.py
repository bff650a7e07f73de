"""Tables that grow with the square of what there is: a run tries a part of their rows, `pytest -m thorough` the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def part_of(rows: Iterable[Any], every: int, first: int = 0) -> list[Any]:
    """The rows as parameters of a test: one in `every` is always tried, from the `first` on, the others if asked for."""
    return [
        row
        if number % every == first
        else pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.thorough)
        for number, row in enumerate(rows)
    ]
