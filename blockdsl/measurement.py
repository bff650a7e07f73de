"""A measurement: a number for each block, whatever measured it, with its name, its unit and how numbers are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

from .errors import UserError

_LETTERS = ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"))
_PREFIXES = {"s": ((0, ""), (-3, "m"), (-6, "µ")), "B": (*_LETTERS, (0, "")), "FLOP/s": (*_LETTERS, (0, ""))}
"""Units that have prefixes → the powers of ten that numbers in them are written with, the largest first."""


@dataclass(frozen=True)
class Measurement:
    """A number for each block, such as the time that it takes.

    Args:
        name: what was measured, in a few words, as "forward time".
        unit: of the numbers: "s" for seconds, "B" for bytes, "FLOP/s", or any words. These three are written with a
            prefix, one for all numbers, as in ms.
        values: node → number, also of the input and the output; of an encoder-decoder nodes are `encoder.a0`.
        note: how it was measured, for the legend.
        digits: significant figures that numbers are written with.

    Raises:
        UserError: a value is not a finite number, or there are no nodes to the values.
    """

    name: str
    unit: str
    values: Mapping[str, float]
    note: str = ""
    digits: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise UserError(
                f"{self.name}: values are a number for each node, {{'a0': 1.5}}, not {type(self.values).__name__}"
            )
        values = {}
        for node, value in self.values.items():
            if not isinstance(node, str):
                raise UserError(f"{self.name}: nodes are called by their names, as 'a0', not {node!r}")
            try:
                values[node] = float(value)
            except (TypeError, ValueError):
                raise UserError(f"{self.name} of {node} must be a number, not {value!r}") from None
            if not isfinite(values[node]):
                raise UserError(f"{self.name} of {node} is {values[node]}: a measurement is of finite numbers")
        object.__setattr__(self, "values", values)

    @cached_property
    def _prefix(self) -> tuple[int, str]:
        """The power of ten that all values are written with, that of the largest, and its letter."""
        most = max(map(abs, self.values.values()), default=0.0)
        powers = _PREFIXES.get(self.unit, ()) if most else ()
        return next((each for each in powers if most >= 0.9995 * 10 ** each[0]), powers[-1] if powers else (0, ""))

    @property
    def written_unit(self) -> str:
        """The unit with its prefix: "ms"."""
        return self._prefix[1] + self.unit

    def figures(self, value: float) -> str:
        """A value without its unit: "1.24"."""
        return short(value / 10 ** self._prefix[0], self.digits)

    def said(self, value: float) -> str:
        """A value with its unit: "1.24 ms"."""
        return f"{self.figures(value)} {self.written_unit}".strip()

    def mean(self, nodes: Sequence[str]) -> float | None:
        """Of nodes that are drawn as one; None where none was measured."""
        found = [self.values[node] for node in nodes if node in self.values]
        return sum(found) / len(found) if found else None

    def of(self, nodes: Sequence[str]) -> str:
        """Nodes that are drawn as one: "1.24 ms", "1.24 ms each" or "1.1 to 1.4 ms, mean 1.24"."""
        found = [self.values[node] for node in nodes if node in self.values]
        if not found:
            return ""
        least, most = self.figures(min(found)), self.figures(max(found))
        few = f", {len(found):,} of {len(nodes):,} measured" if len(found) < len(nodes) else ""
        if least == most:
            return self.said(found[0]) + (" each" if len(nodes) > 1 else "") + few
        return f"{least} to {self.said(max(found))}, mean {self.figures(sum(found) / len(found))}{few}"

    def legend(self) -> str:
        """What it is, for a line below a picture."""
        return f"{self.name} · {self.note}" if self.note else self.name


def short(value: float, digits: int = 3) -> str:
    """A number with three figures: 1.05 M."""
    for power, letter in _LETTERS:
        if abs(value) >= 0.9995 * 10**power:  # 999,885,952 is 1 G
            return f"{value / 10**power:.{digits}g} {letter}"
    return f"{value:.{digits}g}"


def billions(parameters: float) -> str:
    """The same of parameters, as they are told everywhere: 8.03 B."""
    return short(parameters).replace("G", "B")
