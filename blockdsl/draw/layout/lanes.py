"""Lines beside a column: which lane each has, and how it gets there.

Reads of the stream run at the right of it, all else that blocks read at their left. Each source has a lane, a vertical
line, with arrows to what reads it. Short lines are nearest, so that what is nested is drawn nested and does not cross.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..wiring import End, Wire
from .scene import Edge, Point, Text, text_width

LANE = 9.0  # from one lane to the next
NEAR = 5.0  # more than that from what is there to the first lane, for an arrow to end in
WORDS = "note"  # the role of the text beside a lane
LINE = 13.0  # of it
LEFT, RIGHT = -1, 1

Lane = tuple[int, str, End]


@dataclass(frozen=True)
class Port:
    """Where a wire arrives or, `out`, leaves: points from there outwards, as far as placed.

    Attributes:
        node: what an edge that begins or ends here names.
    """

    wire: Wire
    out: bool
    node: str
    points: tuple[Point, ...]

    @property
    def y(self) -> float:
        return self.points[-1][1]

    @property
    def side(self) -> int:
        return side(self.wire)

    @property
    def lane(self) -> Lane:
        return lane(self.wire)

    def moved(self, dx: float, dy: float = 0.0) -> Port:
        return replace(self, points=tuple((x + dx, y + dy) for x, y in self.points))


@dataclass(frozen=True)
class Bundle:
    """What of the ports of one side is joined.

    Attributes:
        edges: from those that leave to those that arrive.
        texts: words beside them.
        extent: how far all of it extends to that side.
    """

    edges: tuple[Edge, ...]
    texts: tuple[Text, ...]
    extent: float


def side(wire: Wire) -> int:
    return RIGHT if wire.role == "read" else LEFT


def lane(wire: Wire) -> Lane:
    return side(wire), *wire.net


def lanes(wires: Iterable[Wire]) -> list[Lane]:
    """The lanes that wires need, each once, in order."""
    return [*dict.fromkeys(map(lane, wires))]


def bundled(ports: Sequence[Port], at: int, extent: float) -> Bundle:
    """The wires that leave and arrive among these ports at one side, each in a lane where no other is in its way.

    Args:
        extent: how far what is beside the lanes extends.
    """
    if not ports:
        return Bundle((), (), extent)
    leaving = {port.wire: port for port in ports if port.out and port.side == at}
    nets: dict[Lane, list[Port]] = {}
    for port in ports:
        if not port.out and port.wire in leaving:
            nets.setdefault(port.lane, []).append(port)
    spans = {
        net: (min(heights), max(heights))
        for net, own in nets.items()
        for heights in [[y for port in own for y in (port.y, leaving[port.wire].y)]]
    }
    taken: list[tuple[float, float, float]] = []
    edges: list[Edge] = []
    texts: list[Text] = []
    said: dict[frozenset[str], str] = {}
    busy = [port.y for port in ports if port.side == at]
    for net in sorted(spans, key=lambda net: spans[net][1] - spans[net][0]):
        low, high = spans[net]
        beside = [outer for a, b, outer in taken if low <= b and a <= high]
        x = max([extent + NEAR, *beside]) + LANE
        outer = x
        for port in nets[net]:
            out = leaving[port.wire]
            points = (*out.points, (at * x, out.y), (at * x, port.y), *reversed(port.points))
            edges.append(Edge(port.wire.role, out.node, port.node, points, many=port.wire.many))
        words = "; ".join(dict.fromkeys(port.wire.words for port in nets[net] if port.wire.words))
        read = frozenset(port.node for port in nets[net])
        if words and said.get(read) != words:
            said[read] = words
            lines = words.split(", ", 1)
            middle = clear((low + high) / 2, [y for y in busy if low < y < high], LINE * len(lines) / 2 + 3)
            for i, line in enumerate(lines):
                y = middle + LINE * (i + 1 - len(lines) / 2) - 3
                texts.append(Text(at * (x + 6), y, line, WORDS, "start" if at == RIGHT else "end"))
            outer = x + 6 + max(text_width(line, WORDS) for line in lines)
        taken.append((low, high, outer))
    return Bundle(tuple(edges), tuple(texts), max([extent, *(outer for _, _, outer in taken)]))


def clear(wanted: float, busy: Iterable[float], away: float) -> float:
    """The place nearest to the wanted one that is so far away from all lines."""
    lines = [*busy]
    places = [wanted, *(y + way * away for y in lines for way in (-1, 1))]
    free = [place for place in places if all(abs(place - y) >= away - 0.01 for y in lines)]
    return min(free or places, key=lambda place: abs(place - wanted))
