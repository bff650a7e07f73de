"""From a graph to the parts that are drawn.

Copies fold where they are alike and where one line says what all of them read: see `wiring`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..graph.layout import Branching, Chain, Side, node_of, split_stages
from ..language.fold import Folded, Loop, fold
from .parts import (
    DrawnBlock,
    DrawnBranches,
    DrawnLabel,
    DrawnRead,
    DrawnRepeat,
    DrawnSide,
    DrawnSkip,
    DrawnSum,
    Part,
    Parts,
    leaves,
)
from .wiring import Wire, wiring
from .words import reads
from .words.captions import Captions

Named = Mapping[str, Collection[str]]
Item = str | Branching | Side | DrawnLabel | DrawnSkip


@dataclass(frozen=True)
class DrawnStack:
    """
    Attributes:
        stages: the index of each, and its parts.
        wires: what reads what, beside the stream.
    """

    stages: tuple[tuple[int, Parts], ...]
    wires: tuple[Wire, ...]

    @property
    def parts(self) -> Parts:
        return tuple(part for _, parts in self.stages for part in parts)


def tree(captions: Captions, items: Chain, unfold: bool) -> DrawnStack:
    """The parts of a chain and its wires; with `unfold`, each block by itself.

    A label that nothing reads is drawn where that lets copies fold.
    """
    read = _drawn(captions, items, unfold, captions.read_from)
    if unfold or captions.read_from == {node: names for node, names in captions.labelled.items() if names}:
        return read
    return min(read, _drawn(captions, items, unfold, captions.labelled), key=lambda drawn: len([*leaves(drawn.parts)]))


def _drawn(captions: Captions, items: Chain, unfold: bool, labelled: Named) -> DrawnStack:
    apart: dict[str, int] = {}  # node → how much of what it reads tells it from others
    while True:
        stages = ItemTree(captions, labelled, apart, unfold).stages(items)
        wires, unclear = wiring(captions, tuple(part for _, parts in stages for part in parts))
        if not unclear:
            return DrawnStack(stages, wires)
        for node in unclear:
            apart[node] = apart.get(node, 0) + 1


class ItemTree:
    """Items of a chain, and the parts that are drawn for them.

    Args:
        labelled: nodes → the names of the labels after them.
        apart: node → how much tells it from others like it; see `_apart`.
        unfold: each item by itself.
        told: node → what is said of it beside its own words.
    """

    def __init__(
        self,
        captions: Captions,
        labelled: Named,
        apart: Mapping[str, int],
        unfold: bool = False,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        self.captions, self.graph, self.unfold = captions, captions.graph, unfold
        self.labelled, self.apart, self.told = labelled, apart, told or {}
        self._keys: dict[str, Any] = {}  # of nodes, met before
        self._said: dict[Hashable, int] = {}  # of blocks that are alike, which of these
        self._words_said: dict[tuple[str, ...], int] = {}

    def stages(self, items: Chain) -> tuple[tuple[int, Parts], ...]:
        return tuple((stage, self.parts([own])) for stage, own in self.items(items))

    def items(self, items: Chain) -> list[tuple[int, list[Item]]]:
        """A chain by stages, with labels after what is read and skips before what reads them."""
        cut = split_stages(self.graph, items) or [(0, ())]
        out = []
        for i, (stage, part) in enumerate(cut):
            own = self._with_labels(part)
            own = [*self._after(self.graph.start), *own] if i == 0 else own
            if i == len(cut) - 1 and self.captions.added[self.graph.end]:
                own.append(DrawnSkip((self.graph.end,)))
            out.append((stage, own))
        return out

    def _with_labels(self, chain: Chain) -> list[Item]:
        """A chain with labels after what is read, and skips before what reads them or after what is added."""
        out: list[Item] = []
        for item in chain:
            if isinstance(item, Side):
                out.append(item)
                continue
            node = node_of(item)
            skips = [DrawnSkip((node,))] if self.captions.added[node] else []
            if isinstance(item, Branching):
                out += [item, *skips]
            else:
                out += [DrawnSum((node,))] if self.graph.node_type(node) == "sum" else [*skips, item]
            out += self._after(node)
        return out

    def _after(self, node: str) -> list[DrawnLabel]:
        names = self.labelled.get(node, ())
        written = [name for name in self.graph.labels(node) if name in names]
        return [DrawnLabel((node,), name) for name in (*written, *([""] if "" in names else []))]

    def parts(self, chains: Sequence[Sequence[Item]]) -> Parts:
        """Chains that are alike, as one."""
        if self.unfold:
            folded: Folded = tuple(range(len(chains[0])))
        else:
            keys = [self.key(item) for item in chains[0]]
            folded = fold(keys)
        return self._of(folded, chains, [0])

    def _of(self, folded: Folded, chains: Sequence[Sequence[Item]], offsets: list[int]) -> Parts:
        out: list[Part] = []
        for part in folded:
            if isinstance(part, Loop):
                span = sum(map(_span, part.body))
                inside = [offset + copy * span for offset in offsets for copy in range(part.count)]
                out.append(DrawnRepeat(self._of(part.body, chains, inside), part.count))
            else:
                out.append(self._item([chain[part + offset] for chain in chains for offset in offsets]))
        return tuple(out)

    def _item(self, copies: list[Item]) -> DrawnBlock | DrawnBranches:
        first = copies[0]
        if isinstance(first, DrawnBlock):
            return replace(first, nodes=tuple(copy.node for copy in copies if isinstance(copy, DrawnBlock)))
        if isinstance(first, str):
            drawn = DrawnRead if self.graph.node_type(first) == "read" else DrawnBlock
            return drawn(tuple(copy for copy in copies if isinstance(copy, str)))
        sides = [copy for copy in copies if isinstance(copy, Side)]
        if sides:
            inside = [self._with_labels(side.chain) for side in sides]
            return DrawnSide((self.parts(inside),), tuple(_end(side.chain) for side in sides))
        splits = [copy for copy in copies if isinstance(copy, Branching)]
        columns = tuple(
            self.parts([self._with_labels(split.branches[i]) for split in splits])
            for i in range(len(splits[0].branches))
        )
        return DrawnBranches(columns, tuple(split.sum for split in splits))

    def key(self, item: Item) -> Any:
        """Equal for items that are drawn alike."""
        if not isinstance(item, str):
            return self._key(item)
        if item not in self._keys:
            self._keys[item] = self._key(item)
        return self._keys[item]

    def _key(self, item: Item) -> Any:
        words = self._words(item)
        if isinstance(item, str) or (isinstance(item, DrawnBlock) and item.is_node):
            words = (*self.captions.place(_of(item)), *words)
        told = None if isinstance(item, Branching | Side) else self.told.get(_of(item))
        return words if told is None else (words, told)

    def _words(self, item: Item) -> Any:
        if isinstance(item, DrawnLabel):
            return "^", item.name
        if isinstance(item, DrawnSkip):
            return type(item).__name__, reads.added_words(self.graph, item.node), *self._apart(item.node)
        if isinstance(item, str) and self.graph.node_type(item) == "read":
            return *self.captions.names.alike(item), *self._apart(item)
        if isinstance(item, str):
            key = self.captions.alike(item)
            if key not in self._said:
                sources = self.graph.sources(item, "position")
                words = self.captions.name(item), *self.captions.notes(item, named=False), *sources
                self._said[key] = self._words_said.setdefault(words, len(self._words_said))
            return self._said[key], *self.captions.own(item), *self._apart(item)
        if isinstance(item, Side):
            return "side", *(self.key(inner) for inner in self._with_labels(item.chain))
        return tuple(tuple(self.key(inner) for inner in self._with_labels(branch)) for branch in item.branches)

    def _apart(self, node: str) -> tuple[Any, ...]:
        """What tells a node from others like it: nothing, then what it reads, then its name."""
        level = self.apart.get(node, 0)
        return () if not level else tuple(reads.wired(self.graph, node)) if level == 1 else (node,)


def _end(chain: Chain) -> str:
    return node_of(next(item for item in reversed(chain) if not isinstance(item, Side)))


def _of(item: str | DrawnBlock) -> str:
    return item if isinstance(item, str) else item.node


def _span(part: int | Loop) -> int:
    """How many items a part of a folded chain covers."""
    return 1 if isinstance(part, int) else part.count * sum(map(_span, part.body))
