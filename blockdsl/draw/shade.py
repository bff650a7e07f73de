"""Colours of blocks that come from elsewhere than their graph. No networkx, which the command line loads late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Shade:
    """Colours from elsewhere: what a run measured, or how a graph differs from another.

    Args:
        values: node → a number, from light for the least to dark for the most; or one of `colors.STATUSES`. A block
            without one is grey.
        meaning: of the numbers, for the legend.
    """

    values: Mapping[str, float | str]
    meaning: str = ""
