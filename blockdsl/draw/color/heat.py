"""A measurement as colours: a class for each box, from light for the least to dark for the most, and its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...errors import UserError, nearest
from ...measurement import Measurement
from .palette import HEATS

GREY = "grey-0"
_MOST_NAMED = 12  # nodes of a box whose numbers are all in its tooltip


@dataclass(frozen=True)
class Heat:
    """A measurement of one graph of a picture.

    Attributes:
        measurement: of all graphs of the picture, so that a colour is the same number everywhere.
        prefix: of the graph's nodes in it, as "encoder.".
    """

    measurement: Measurement
    prefix: str = ""

    def _named(self, nodes: Sequence[str]) -> list[str]:
        return [self.prefix + node for node in nodes]

    def look(self, nodes: Sequence[str]) -> str:
        """The class of the colour of nodes that are drawn as one: that of their mean."""
        mean = self.measurement.mean(self._named(nodes))
        return GREY if mean is None else f"heat-{self._level(mean)}"

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The least value and the most; 0 where there is none."""
        values = self.measurement.values.values()
        return min(values, default=0.0), max(values, default=0.0)

    def _level(self, value: float) -> int:
        least, most = self.ends
        return min(len(HEATS) - 1, int((value - least) / (most - least) * len(HEATS))) if most > least else 0

    def said(self, nodes: Sequence[str]) -> str:
        """The number on their box; of several, of which it is the range and the mean."""
        return self.measurement.of(self._named(nodes))

    def in_words(self) -> str:
        """What it is, its least and its most: a legend where there are no colours."""
        own, (least, most) = self.measurement, self.ends
        if not own.values:
            return f"{own.legend()}: nothing was measured"
        return f"{own.legend()}: " + (
            f"least {own.said(least)}, most {own.said(most)}" if least < most else f"all {own.said(most)}"
        )

    def tip(self, nodes: Sequence[str]) -> list[str]:
        """The lines of a tooltip: what was measured, and each node's number."""
        own = self.measurement
        if not (line := self.line(*nodes)):
            return []
        measured = [node for node in nodes if self.prefix + node in own.values]
        each = ", ".join(f"{node} {own.figures(own.values[self.prefix + node])}" for node in measured[:_MOST_NAMED])
        more = f", … {len(measured) - _MOST_NAMED:,} more" if len(measured) > _MOST_NAMED else ""
        return [line, *([each + more] if len(nodes) > 1 else [])]

    def line(self, *nodes: str) -> str:
        """`time: 1.24 ms`; nothing where none was measured."""
        said = self.said(nodes)
        return f"{self.measurement.name}: {said}" if said else ""


def check_nodes(measurement: Measurement, nodes: Iterable[str]) -> None:
    """Raise UserError unless all that was measured is in the graphs."""
    known = {*nodes}
    if other := [node for node in measurement.values if node not in known]:
        near = nearest(other[0], known)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"{measurement.name} of {other[0]}: the graph has no such node{hint}")
