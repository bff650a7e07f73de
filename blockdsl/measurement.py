"""A measurement: a number for each block, whatever measured it, with its name, its unit and how numbers are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from .errors import UserError

_LETTERS = ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"))
_PREFIXES = {
    "s": ((0, ""), (-3, "m"), (-6, "µ")),
    "B": ((12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, "")),
    "FLOP/s": ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, "")),
}
"""Units of the SI → the powers that numbers in them are written with, the largest first."""


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
        UserError: a value is not a finite number.
    """

    name: str
    unit: str
    values: Mapping[str, float]
    note: str = ""
    digits: int = 3
    _power: int = field(init=False, repr=False, compare=False, default=0)
    _prefix: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        values = {}
        for node, value in self.values.items():
            try:
                values[node] = float(value)
            except (TypeError, ValueError):
                raise UserError(f"{self.name} of {node} must be a number, not {value!r}") from None
            if not isfinite(values[node]):
                raise UserError(f"{self.name} of {node} is {values[node]}: a measurement is of finite numbers")
        object.__setattr__(self, "values", values)
        powers = _PREFIXES.get(self.unit, ((0, ""),))
        most = max(map(abs, values.values()), default=0.0)
        power, prefix = next(((p, letter) for p, letter in powers if most >= 0.9995 * 10**p), powers[-1])
        object.__setattr__(self, "_power", power if most else 0)
        object.__setattr__(self, "_prefix", prefix if most else "")

    @property
    def written_unit(self) -> str:
        """The unit with its prefix: "ms"."""
        return self._prefix + self.unit

    def figures(self, value: float) -> str:
        """A value without its unit: "1.24"."""
        return short(value / 10**self._power, self.digits)

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
