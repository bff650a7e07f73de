"""Two graphs beside each other: what of them stands in one row, and which rows fold.

Rows are found in order: what belongs together is one, and what only one graph has is beside what only the other has
at that place, or beside nothing. A run of blocks that both have is one box, and rows that are alike are drawn once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from ...graph.layout import Branching, Side, blocks_of, every_node
from ...graph.nodes import carried
from ...language.fold import Folded, Loop, fold
from ..parts import DrawnAlike, DrawnBlock, DrawnLabel, DrawnRepeat, DrawnRow, DrawnSkip, Part, Parts
from ..tree import DrawnStack, Item, ItemTree
from ..wiring import Wire, wiring
from ..words import reads
from ..words.captions import Captions
from ..words.told import Told

if TYPE_CHECKING:
    from ...graph.diff import Difference

LEAST = 4  # blocks of a run that is one box


class Segment(NamedTuple):
    """Rows in which each graph is in one stage.

    Attributes:
        stages: the index of each graph's.
        parts: of each graph; those at one place stand beside each other.
    """

    stages: tuple[int, int]
    parts: tuple[Parts, Parts]


class Beside(NamedTuple):
    """Both graphs, as they are drawn."""

    segments: tuple[Segment, ...]
    wires: tuple[tuple[Wire, ...], tuple[Wire, ...]]

    def stack(self, side: int) -> DrawnStack:
        """One of them."""
        return DrawnStack(tuple((s.stages[side], s.parts[side]) for s in self.segments), self.wires[side])


def beside(diff: Difference, captions: tuple[Captions, Captions], told: tuple[Told, Told], unfold: bool) -> Beside:
    """The rows of two graphs that are chains and branches. `unfold`: every block by itself."""
    apart: tuple[dict[str, int], dict[str, int]] = ({}, {})
    rows = _Rows(diff, captions, told, unfold)
    while True:
        segments = rows.segments(apart)
        wires, clear = [], True
        for side, own in enumerate(captions):
            found, unclear = wiring(own, tuple(part for segment in segments for part in segment.parts[side]))
            wires.append(found)
            for node in unclear:
                apart[side][node] = apart[side].get(node, 0) + 1
                clear = False
        if clear:
            return Beside(segments, (wires[0], wires[1]))


class _Row(NamedTuple):
    """Items of each graph, the stage of each, and whether it is a run of blocks that both have."""

    items: tuple[tuple[Item, ...], tuple[Item, ...]]
    stages: tuple[int, int]
    alike: bool = False


class _Rows:
    def __init__(
        self, diff: Difference, captions: tuple[Captions, Captions], told: tuple[Told, Told], unfold: bool
    ) -> None:
        self.diff, self.captions, self.told, self.unfold = diff, captions, told, unfold
        self.pair = dict(diff.pairs)
        self.busy = tuple({*_busy(own)} for own in captions)

    def segments(self, apart: tuple[dict[str, int], dict[str, int]]) -> tuple[Segment, ...]:
        """`apart`: of each graph, node → how much tells it from others like it."""
        self.numbers = count()
        self.trees = [
            ItemTree(own, own.read_from, apart[side], self.unfold, _keys(self.told[side]))
            for side, own in enumerate(self.captions)
        ]
        lines = [self._line(tree) for tree in self.trees]
        rows = self._rows(lines[0], lines[1])
        rows = rows if self.unfold or not self.diff else self._collapsed(rows)
        segments: list[Segment] = []
        while rows:
            size = next((i for i, row in enumerate(rows) if row.stages != rows[0].stages), len(rows))
            own, rows = rows[:size], rows[size:]
            keys = [self._key(row) for row in own]
            folded: Folded = tuple(range(len(own))) if self.unfold else fold(keys)
            segments.append(Segment(own[0].stages, self._of(folded, own, [0])))
        return tuple(segments)

    def _line(self, tree: ItemTree) -> list[tuple[int, Item]]:
        return [(stage, item) for stage, items in tree.items(tree.captions.items or ()) for item in items]

    # Rows --------------------------------------------------------------------------------------------------------

    def _rows(self, ours: list[tuple[int, Item]], theirs: list[tuple[int, Item]]) -> list[_Row]:
        rows: list[_Row] = []
        i = j = 0
        for a, b in (*self._matched(ours, theirs), (len(ours), len(theirs))):
            rows += self._apart(ours[i:a], theirs[j:b], rows[-1].stages if rows else (0, 0))
            if a < len(ours):
                (stage, item), (other, partner) = ours[a], theirs[b]
                rows.append(_Row(((item,), (partner,)), (stage, other)))
            i, j = a + 1, b + 1
        return rows

    def _apart(self, ours: list[tuple[int, Item]], theirs: list[tuple[int, Item]], at: tuple[int, int]) -> list[_Row]:
        """What has no partner: of each stage in one row."""
        rows: list[_Row] = []
        for stage in sorted({stage for stage, _ in (*ours, *theirs)}):
            items = [tuple(item for own, item in side if own == stage) for side in (ours, theirs)]
            at = tuple(stage if own else before for own, before in zip(items, at, strict=True))  # type: ignore[assignment]
            rows.append(_Row((items[0], items[1]), at))
        return rows

    def _matched(self, ours: list[tuple[int, Item]], theirs: list[tuple[int, Item]]) -> list[tuple[int, int]]:
        """Which of the items belong together, ascending in both."""
        place = {name: j for j, (_, item) in enumerate(theirs) for name in _names(item)}
        pairs = []
        for i, (_, item) in enumerate(ours):
            partners = ((sort, self.pair.get(node, "")) for sort, node in _names(item))
            found = Counter(place[name] for name in partners if name in place)
            if found:
                pairs.append((i, found.most_common(1)[0][0]))
        return _ascending(pairs)

    def _collapsed(self, rows: list[_Row]) -> list[_Row]:
        out: list[_Row] = []
        run: list[_Row] = []
        for row in (*rows, None):
            if row is not None and self._is_alike(row) and (not run or run[0].stages == row.stages):
                run.append(row)
                continue
            if sum(_size(item) for each in run for item in each.items[0]) >= LEAST:
                ours, theirs = (tuple(item for each in run for item in each.items[side]) for side in (0, 1))
                out.append(_Row((ours, theirs), run[0].stages, True))
            else:
                out += run
            run = [row] if row is not None and self._is_alike(row) else []
            out += [row] if row is not None and not run else []
        return out

    def _is_alike(self, row: _Row) -> bool:
        """Whether it is a block, or branches, of both, and nothing but the stream joins it to the others."""
        if not all(row.items):
            return False
        for side, items in enumerate(row.items):
            for item in items:
                if not isinstance(item, str | Branching):
                    return False
                for node in blocks_of((item,)):
                    same = self.told[side].status.get(node) == "same"
                    if not same or node in self.busy[side] or self.captions[side].graph.node_type(node) != "block":
                        return False
                if isinstance(item, Branching) and item.sum in self.busy[side]:
                    return False
        return True

    # Parts -------------------------------------------------------------------------------------------------------

    def _key(self, row: _Row) -> Any:
        sides = zip(self.trees, row.items, strict=True)
        return row.alike, *(tuple(tree.key(item) for item in items) for tree, items in sides)

    def _of(self, folded: Folded, rows: Sequence[_Row], offsets: list[int]) -> tuple[Parts, Parts]:
        out: tuple[list[Part], list[Part]] = ([], [])
        for part in folded:
            if isinstance(part, Loop):
                span = sum(map(_span, part.body))
                inside = [offset + copy * span for offset in offsets for copy in range(part.count)]
                for own, parts in zip(out, self._of(part.body, rows, inside), strict=True):
                    own.append(DrawnRepeat(parts, part.count))
                continue
            copies = [rows[part + offset] for offset in offsets]
            sides = [self._side(copies, side) for side in range(len(out))]
            for i in range(max(map(len, sides))):
                number = next(self.numbers)
                for own, parts in zip(out, sides, strict=True):
                    own.append(DrawnRow(parts[i : i + 1], number=number))
        return tuple(out[0]), tuple(out[1])

    def _side(self, copies: Sequence[_Row], side: int) -> Parts:
        """What of rows that are alike is drawn of one graph."""
        chains = [copy.items[side] for copy in copies]
        parts = self.trees[side].parts(chains) if chains[0] else ()
        if not copies[0].alike:
            return parts
        nodes = tuple(node for chain in chains for item in chain for node in _nodes(item))
        return (DrawnAlike(nodes, parts, len(copies)),)


def glued(before: tuple[Part, Part], after: tuple[Part, Part]) -> bool:
    """Whether two rows stay in one column: a label with what is above it, a skip with what is below."""
    return _all(DrawnLabel, after) or _all(DrawnSkip, before)


def _all(sort: type, row: tuple[Part, Part]) -> bool:
    parts = [part for own in row if isinstance(own, DrawnRow) for part in own.parts]
    return bool(parts) and all(isinstance(part, sort) for part in parts)


def _keys(told: Told) -> Mapping[str, Any]:
    return {node: (status, *told.changes.get(node, ())) for node, status in told.status.items() if status != "same"}


def _busy(captions: Captions) -> Iterator[str]:
    """Nodes that give or take something beside the stream, but for what stands outside the stack."""
    graph = captions.graph
    yield from captions.read_from
    for node in graph.nx:
        if _follows(captions, node):
            continue
        found = [source for _, source in reads.wired(graph, node)] + graph.sources(node, "normed")
        yield from found
        if found or captions.gap(node) or captions.added.get(node):
            yield node


def _follows(captions: Captions, node: str) -> bool:
    """Whether a node reads the stream after what stands before it, and nothing else."""
    edges, at = captions.graph.nx.pred[node], captions.before.get(node)
    return len(edges) == 1 and at in edges and carried(edges[at]) == ("stream",)


def _names(item: Item) -> Iterable[tuple[str, str]]:
    """What an item is called by: as a label, as a skip, or by each node in it."""
    if isinstance(item, DrawnLabel):
        return [("^", item.node)]
    if isinstance(item, DrawnSkip):
        return [("<", item.node)]
    return [("", node) for node in _nodes(item)]


def _nodes(item: Item) -> Iterator[str]:
    if isinstance(item, DrawnBlock):
        yield from item.nodes
    else:
        yield from every_node((item,))


def _size(item: Item) -> int:
    return len([*blocks_of((item,))]) if isinstance(item, str | Branching | Side) else 0


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most pairs of them that ascend in both; the first of each ascend."""
    ends: list[int] = []  # of the ways of each length, the least end
    last: list[int] = []  # and where that is
    before: list[int] = []
    for index, (_, j) in enumerate(pairs):
        length = bisect_left(ends, j)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [j]
        last[length : length + 1] = [index]
    out = []
    at = last[-1] if last else -1
    while at >= 0:
        out.append(pairs[at])
        at = before[at]
    return out[::-1]


def _span(part: int | Loop) -> int:
    return 1 if isinstance(part, int) else part.count * sum(map(_span, part.body))
