"""A long stack in several columns: where it is cut, and what goes from one column to another.

The stream goes from the foot of a column to the head of the next. A line that would cross columns is cut instead: its
two ends have the same name, that of the label where there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil, floor, log2, sqrt
from typing import NamedTuple

from ..parts import DrawnLabel, DrawnSkip, Parts
from ..wiring import Wire
from .lanes import LEFT, LINE, RIGHT, Lane, Port, lane
from .placed import ColumnPart
from .scene import Edge, Text, text_width

LONGEST = 1600.0  # a stack is in one column up to here
APART = 42.0  # one column from the next; the stream runs between them
FOOT = 12.0  # from the end of a column to where the stream leaves it
STEM = 16.0  # of a line that is cut
STEPS = 32  # at least, in which a column's height goes


def count(high: float, wide: Callable[[], float]) -> int:
    """How many columns: one, or so many that the picture is about as wide as high; `wide`: how wide one is."""
    return 1 if high <= LONGEST else max(2, round(sqrt(high / (wide() + APART))))


def units(parts: Parts) -> Iterator[Parts]:
    """What stays together in a column: each part, with the labels after it and the skips before it."""
    own: Parts = ()
    for part in parts:
        if own and not isinstance(part, DrawnLabel) and not all(isinstance(p, DrawnSkip) for p in own):
            yield own
            own = ()
        own = (*own, part)
    if own:
        yield own


def runs_of(heights: Sequence[float], columns: int) -> list[range]:
    """Consecutive runs, at most so many, of which the highest is about as low as can be.

    How high they may be goes in steps, so that a block more at the end leaves most cuts where they are.
    """

    def filled(limit: float) -> list[range]:
        runs, start, high = [], 0, 0.0
        for i, height in enumerate(heights):
            if i > start and high + height > limit:
                runs.append(range(start, i))
                start, high = i, 0.0
            high += height
        return [*runs, range(start, len(heights))]

    low, high = max(heights), sum(heights)
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if len(filled(middle)) <= columns else (middle, high)
    step = 2.0 ** floor(log2(high / STEPS))
    runs, stepped = filled(high), filled(step * ceil(high / step))
    return stepped if len(stepped) == len(runs) else runs


def stream(before: ColumnPart, after: ColumnPart, way: float, top: float, foot: float) -> None:
    """Lead the stream from the foot of a column to the head of the next.

    Args:
        way: the x where it goes up between them.
        top, foot: the y where it turns into the next, and where it leaves.
    """
    points = (
        *before.lead, (before.x, before.rail), (before.x, foot), (way, foot), (way, top), (after.x, top)
    )  # fmt: skip
    head, edges = (after.x, after.start), after.scene.edges
    for i, edge in enumerate(edges):
        if edge.points[0] == head:
            edges[i] = edge.through((*points, *edge.points[1:]))._replace(heads=(2, 4))
            return
    after.lead = points


def link(pieces: Sequence[ColumnPart], wires: Iterable[Wire], named: Callable[[Wire], str]) -> None:
    """Cut the lines between columns: both ends get a stem with a name, but where the label says it at the source.

    Args:
        wires: of the whole stack.
        named: a wire → the label at its source; empty: there is none.
    """
    leaving = {port.wire: (piece, port) for piece in pieces for port in piece.ports if port.out}
    cuts = [(piece, port) for piece in pieces for port in piece.ports if not port.out and port.wire in leaving]
    names = _names([port for _, port in cuts], wires, named)
    ends: dict[int, list[_End]] = {id(piece): [] for piece in pieces}
    done: set[Lane] = set()
    for piece, port in cuts:
        home, out = leaving[port.wire]
        name, plain = names[port.lane]
        words = f"{name}: {port.wire.words}" if port.wire.words else name
        edge = Edge(port.wire.role, out.node, port.node, (), cut=True)
        ends[id(piece)].append(_End(port, words, edge))
        if not plain and port.lane not in done:
            done.add(port.lane)
            ends[id(home)].append(_End(out, name, edge))
    for piece in pieces:
        piece.ports = [port for port in piece.ports if isinstance(port.wire.source, str)]
        for at in (LEFT, RIGHT):
            _stems(piece, at, [end for end in ends[id(piece)] if end.port.side == at])


def _names(ports: Sequence[Port], wires: Iterable[Wire], named: Callable[[Wire], str]) -> dict[Lane, tuple[str, bool]]:
    """The name of each lane of these ports, and whether it is one that no other has and its source shows."""
    often = Counter({lane(wire): named(wire) for wire in wires}.values())
    seen: Counter[str] = Counter()
    names = {}
    for port in {port.lane: port for port in ports}.values():
        label = named(port.wire)
        seen[label] += 1
        plain = bool(label) and often[label] == 1
        number = seen[label]
        name = f"^{label}" if plain else f"^{label} {number}" if label else _letters(number)
        names[port.lane] = name, plain
    return names


def _letters(number: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    text = ""
    while number:
        number, letter = divmod(number - 1, 26)
        text = chr(65 + letter) + text
    return text


class _End(NamedTuple):
    """One end of a line that is cut: where, its name, and the edge without its points."""

    port: Port
    name: str
    edge: Edge


def _stems(piece: ColumnPart, at: int, ends: Sequence[_End]) -> None:
    """The ends of cut lines at one side of a column, outside of all there is; those that are close share a text."""
    inner = piece.extent(at)
    x = at * (inner + STEM)
    groups: list[list[_End]] = []
    for end in sorted(ends, key=lambda end: end.port.y):
        outwards = (*end.port.points, (x, end.port.y))
        piece.scene.edges.append(end.edge.through(outwards if end.port.out else outwards[::-1]))
        if not groups or end.port.y - groups[-1][-1].port.y > LINE:
            groups.append([])
        groups[-1].append(end)
    for group in groups:
        words = ", ".join(dict.fromkeys(end.name for end in group))
        y = (group[0].port.y + group[-1].port.y) / 2
        piece.scene.labels.append(Text(x + 4 * at, y + 4, words, "name", "start" if at == RIGHT else "end"))
        piece.widen(at, inner + STEM + 4 + text_width(words, "name"))
