"""Several measurements of one model: a table, JSON and pictures of the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from .api import BlockGraph
from .draw import page, side_by_side
from .draw.forms.images import HasPicture
from .draw.words.captions import Captions
from .errors import UserError, did_you_mean
from .measurement import Measurement

_BAR = 12  # the longest, in characters


@dataclass(frozen=True)
class Measurements(HasPicture):
    """What was measured of a model's blocks.

    Args:
        graphs: of its stacks by name; one alone is called "", and the nodes of others are `name.node`.
        by_name: the measurements, that which is drawn unless another is asked for first.
        facts: what is of the whole, for JSON.
        summary: the same in lines for people, below the table.
        notes: node → what is to say of it.
    """

    graphs: Mapping[str, BlockGraph]
    by_name: Mapping[str, Measurement]
    facts: Mapping[str, Any] = field(default_factory=dict)
    summary: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Measurement:
        """Raises UserError where there is no such measurement; the message has those that there are."""
        if name not in self.by_name:
            hint = did_you_mean(name, self.by_name) or f"there are {', '.join(self.by_name)}"
            raise UserError(f"there is no measurement {name!r}; {hint}")
        return self.by_name[name]

    @property
    def first(self) -> str:
        """The name of the measurement that is drawn unless another is asked for."""
        return next(iter(self.by_name))

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each node that was measured, in the order in which they run: its name, what a pattern writes for
        it, and its numbers by the names of the measurements, None where there is none."""
        for name, graph in self.graphs.items():
            captions, prefix = Captions(graph), f"{name}." if name else ""
            for own in graph.order():
                node = prefix + own
                values = {key: each.values.get(node) for key, each in self.by_name.items()}
                if any(value is not None for value in values.values()):
                    drawn = graph.node_type(own) in ("block", "read")
                    row = {"node": node, "block": captions.name(own) if drawn else "", **values}
                    yield row | ({"note": self.notes[node]} if node in self.notes else {})

    def as_json(self) -> dict[str, Any]:
        """All of it, for JSON: what was measured and in which unit, a row for each node, and facts of the whole."""
        told = {name: {"name": m.name, "unit": m.unit, "note": m.note} for name, m in self.by_name.items()}
        return {"measurements": told, "blocks": [*self.rows()], **self.facts}

    def to_text(self, bars: str | None = None) -> str:
        """The table, with bars for one of the measurements; None: the first."""
        shown = self[self.first if bars is None else bars]
        units = {name: f" ({m.written_unit})" if m.written_unit else "" for name, m in self.by_name.items()}
        heads = [name.replace("_", " ") + unit for name, unit in units.items()]
        lines, drawn = [("node", "block", *heads)], [""]
        most = max((abs(value) for value in shown.values.values()), default=0.0)
        for row in self.rows():
            numbers = [(m, row[name]) for name, m in self.by_name.items()]
            lines.append((row["node"], row["block"], *("-" if v is None else m.figures(v) for m, v in numbers)))
            drawn.append(_bar(shown.values.get(row["node"]), most))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        table = [
            "  ".join(
                [*(cell.ljust(w) for cell, w in zip(line[:2], widths[:2], strict=True))]
                + [cell.rjust(w) for cell, w in zip(line[2:], widths[2:], strict=True)]
                + [bar]
            ).rstrip()
            for line, bar in zip(lines, drawn, strict=True)
        ]
        rule = "-" * (sum(widths) + 2 * len(widths) - 2)
        notes = [f"{node}: {note}" for node, note in self.notes.items()]
        return "\n".join([table[0], rule, *table[1:], rule, *notes, *self.summary])

    def to_svg(self, path: str | PathLike[str] | None = None, *, show: str | None = None, **options: Any) -> str:
        """The model with the numbers of a measurement on its blocks.

        Args:
            path: a file to write it to.
            show: the measurement's name; None: the first.
            options: those of `BlockGraph.to_svg`.
        """
        return side_by_side(self.graphs, path, overlay=self[self.first if show is None else show], **options)

    def to_html(self, path: str | PathLike[str] | None = None, *, show: str | None = None, **options: Any) -> str:
        """The same as one HTML page; `options` are those of `BlockGraph.to_html`."""
        return page(self.graphs, path, overlay=self[self.first if show is None else show], **options)

    def __str__(self) -> str:
        return self.to_text()


def _bar(value: float | None, most: float) -> str:
    """As long as the value is of the largest one; of a negative one in dots."""
    if not value or not most:
        return ""
    return ("█" if value > 0 else "·") * max(1, round(_BAR * abs(value) / most))
