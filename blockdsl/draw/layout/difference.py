"""The picture of a difference: both graphs beside each other, what belongs together at one height.

Graphs that are no chains and branches have no rows that could stand beside each other; they are drawn as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..color.colors import became
from ..parts import DrawnRow, Parts
from ..words.alt import MOST
from ..words.changes import ARROW, above, everywhere, streams, told
from ..words.diff import ARROW as ASCII_ARROW
from ..words.diff import ChangeLines
from ..words.told import STATUSES, Told
from .beside import Beside, Segment, beside, glued
from .columns import count, runs_of
from .legend import add_legend
from .picture import HALVES, HEAD_APART, Picture, across, counted_columns, head_scale, pictures, renamed, write_lines
from .placed import ColumnPart
from .scene import Scene, Text

if TYPE_CHECKING:
    from ...graph.diff import Difference

BELOW = 40.0  # from one pair of graphs to the next
SIDES = ("before", "after")


def difference(
    diff: Difference,
    *,
    unfold: bool = False,
    detail: str = "block",
    seq_len: int = 1024,
    columns: int | None = None,
) -> Scene:
    """The scene of a difference; the arguments are those of `BlockGraph.to_svg`. A node is called `before.node`."""
    whole = Scene("")
    statuses: dict[str, None] = {}
    lines: list[str] = []
    halves = {name: _Pair(own, name, unfold, detail, seq_len, columns) for name, own in streams(diff).items()}
    scale = head_scale(max(pair.scene.extent.width for pair in halves.values()))
    for name, pair in halves.items():
        pair.head(scale)
        top = whole.extent.bottom + BELOW if whole.boxes else 0.0
        whole.add(pair.scene, -pair.scene.extent.x, top - pair.scene.extent.y)
        statuses |= dict.fromkeys(pair.statuses)
        whole.title += (" · " if whole.title else "") + (f"{name}: " if name else "") + ", ".join(pair.words[0][0])
        lines += ([name] if name else []) + [*ChangeLines(pair.diff, pair.captions).changes()] if pair.diff else []
    said = (" ".join(line.replace(ASCII_ARROW, ARROW).split()) for line in lines)
    whole.alt = f"{whole.title}. {'; '.join(said)}"[:MOST]
    add_legend(whole, (), [status for status in STATUSES if status in statuses])
    return whole


class _Pair:
    """The scene of two graphs beside each other, and what became of their nodes."""

    def __init__(
        self, diff: Difference, name: str, unfold: bool, detail: str, seq_len: int, columns: int | None
    ) -> None:
        self.diff, self.name = diff, name
        common = everywhere(diff)
        said = told(diff, common)
        self.statuses = {status for own in said for status in own.status.values()}
        sides = zip((diff.before, diff.after), (diff.after, diff.before), said, strict=True)
        self.sides = [
            Picture(graph, detail, became(own), seq_len, beside=other, told=own) for graph, other, own in sides
        ]
        captions = self.captions = self.sides[0].captions, self.sides[1].captions
        self.words = above(diff, [side.details for side in self.sides], common)
        if captions[0].items is None or captions[1].items is None:
            self.scene = self._as_they_are(said, detail, seq_len, columns)
        else:
            self._place(beside(diff, captions, said, unfold), counted_columns(columns))
            self.scene = self._joined()

    def head(self, scale: float) -> None:
        """Write above it how much is alike, and what of the stacks as a whole is not."""
        write_lines(self.scene, [*([([self.name], "heading")] if self.name else []), *self.words], scale)

    def _as_they_are(self, said: tuple[Told, Told], detail: str, seq_len: int, columns: int | None) -> Scene:
        graphs = dict(zip(SIDES, (self.diff.before, self.diff.after), strict=True))
        both = dict(zip(SIDES, said, strict=True))
        return pictures(graphs, detail=detail, told=both, seq_len=seq_len, columns=columns, joined=False, legend=False)

    # Places ----------------------------------------------------------------------------------------------------------

    def _place(self, rows: Beside, columns: int | None) -> None:
        for side, picture in enumerate(self.sides):
            picture.column.begin(rows.stack(side))
        wide = max(picture.faces.width for picture in self.sides)
        heights = self._heights(rows)
        for picture in self.sides:
            picture.faces.width = wide
            picture.column.heights = dict(heights)
        units = _units(rows)
        high = [max(p.column.height(unit.parts[k]) for k, p in enumerate(self.sides)) for unit in units]
        columns = columns or count(sum(high), lambda: 2 * wide + 3 * HALVES)
        runs = [units[run.start : run.stop] for run in runs_of(high, columns)] if units else [[]]
        pieces: list[list[ColumnPart]] = []
        spaced = [self._spaced(run, runs[i - 1][-1].stages if i else None) for i, run in enumerate(runs)]
        for side, picture in enumerate(self.sides):
            own = [[(unit.stages[side], unit.parts[side]) for unit in run] for run in spaced]
            pieces.append(picture.column.strips(own, 0.0))
        for both in zip(*pieces, strict=True):
            for piece in both:
                piece.y = max(each.y for each in both)
        for picture, own_pieces in zip(self.sides, pieces, strict=True):
            picture.begin(own_pieces)
        top = min(picture.top for picture in self.sides)
        for picture in self.sides:
            picture.top = top
        for picture, places in zip(self.sides, across(self.sides), strict=True):
            picture.place(places)

    def _heights(self, rows: Beside) -> dict[int, float]:
        """Of each row, what the side that needs more of it takes."""
        heights: dict[int, float] = {}
        for segment in rows.segments:
            for picture, parts in zip(self.sides, segment.parts, strict=True):
                for row in _rows(parts):
                    heights[row.number] = max(heights.get(row.number, 0.0), picture.column.height(row.parts))
        return heights

    def _spaced(self, run: Sequence[Segment], before: tuple[int, int] | None) -> list[Segment]:
        """A column's rows, with space on one side for what the other has at the start of a stage and at its end."""
        out: list[Segment] = []
        for i, unit in enumerate(run):
            needs = []
            for side, picture in enumerate(self.sides):
                old, new = out[-1].stages[side] if out else None, unit.stages[side]
                goes_on = not i and before is not None and before[side] == new
                foot = picture.column.foot if i else 0.0
                needs.append(0.0 if old == new else foot + picture.column.heading(new, goes_on))
            spaces = []
            for picture, need in zip(self.sides, needs, strict=True):
                number = -1 - len(picture.column.heights)
                picture.column.heights[number] = max(needs) - need
                spaces.append((DrawnRow((), number=number),) if need < max(needs) else ())
            parts = (*spaces[0], *unit.parts[0]), (*spaces[1], *unit.parts[1])
            out.append(Segment(unit.stages, parts))
        return out

    def _joined(self) -> Scene:
        whole = Scene("")
        headings = []
        top = min(picture.scene.extent.y for picture in self.sides) - HEAD_APART
        for name, picture in zip(SIDES, self.sides, strict=True):
            own = f"{self.name} {name}".strip()
            whole.add(renamed(picture.scene, own), picture.at)
            headings.append(Text(picture.at + picture.middle, top, name, "heading", "middle"))
        whole.labels += headings
        return whole


def _units(rows: Beside) -> list[Segment]:
    """What stays together in a column: rows with the labels below them and the skips above."""
    out: list[Segment] = []
    for segment in rows.segments:
        both = [*zip(*segment.parts, strict=True)]
        starts = [0, *(i + 1 for i, (one, other) in enumerate(pairwise(both)) if not glued(one, other)), len(both)]
        for start, end in pairwise(starts):
            parts: list[Parts] = [own[start:end] for own in segment.parts]
            out.append(Segment(segment.stages, (parts[0], parts[1])))
    return out


def _rows(parts: Parts) -> list[DrawnRow]:
    found: list[Any] = []
    for part in parts:
        found += [part] if isinstance(part, DrawnRow) else _rows(part.parts)  # type: ignore[union-attr]
    return found
