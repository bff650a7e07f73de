"""A graph as it is drawn: blocks, branches, and repeats that stand for all their copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..graph.layout import Chain, Split
from ..language.fold import Folded, Loop, fold
from .labels import Labels


@dataclass(frozen=True)
class DrawnBlock:
    """A block, and all blocks that its box stands for: one of each copy of the repeats around it."""

    nodes: tuple[str, ...]

    @property
    def node(self) -> str:
        return self.nodes[0]


@dataclass(frozen=True)
class DrawnBranches:
    """Branches side by side that meet in a sum."""

    columns: tuple[Parts, ...]
    nodes: tuple[str, ...]

    @property
    def node(self) -> str:
        return self.nodes[0]


@dataclass(frozen=True)
class DrawnRepeat:
    """Parts that run `times` times, drawn once."""

    parts: Parts
    times: int


Part = DrawnBlock | DrawnBranches | DrawnRepeat
Parts = tuple["Part", ...]


def tree(labels: Labels, items: Chain, unfold: bool) -> Parts:
    """The parts of a chain; with `unfold`, each block by itself."""
    return _Tree(labels, unfold).parts([items])


def drawn_blocks(parts: Parts) -> Iterator[DrawnBlock]:
    """The blocks of parts, in order."""
    for part in parts:
        if isinstance(part, DrawnBlock):
            yield part
        elif isinstance(part, DrawnRepeat):
            yield from drawn_blocks(part.parts)
        else:
            for column in part.columns:
                yield from drawn_blocks(column)


class _Tree:
    def __init__(self, labels: Labels, unfold: bool) -> None:
        self.labels, self.unfold = labels, unfold

    def parts(self, chains: Sequence[Chain]) -> Parts:
        """Chains that are alike, as one."""
        if self.unfold:
            folded: Folded = tuple(range(len(chains[0])))
        else:
            keys = [self._key(item) for item in chains[0]]
            folded = fold(keys, lambda index: len(str(keys[index])))
        return self._of(folded, chains, [0])

    def _of(self, folded: Folded, chains: Sequence[Chain], offsets: list[int]) -> Parts:
        out: list[Part] = []
        for part in folded:
            if isinstance(part, Loop):
                span = sum(map(_span, part.body))
                inside = [offset + copy * span for offset in offsets for copy in range(part.count)]
                out.append(DrawnRepeat(self._of(part.body, chains, inside), part.count))
            else:
                out.append(self._item([chain[part + offset] for chain in chains for offset in offsets]))
        return tuple(out)

    def _item(self, copies: list[str | Split]) -> DrawnBlock | DrawnBranches:
        first = copies[0]
        if isinstance(first, str):
            return DrawnBlock(tuple(copy for copy in copies if isinstance(copy, str)))
        splits = [copy for copy in copies if isinstance(copy, Split)]
        columns = tuple(self.parts([split.branches[i] for split in splits]) for i in range(len(first.branches)))
        return DrawnBranches(columns, tuple(split.sum for split in splits))

    def _key(self, item: str | Split) -> Any:
        """Equal for items that are drawn alike."""
        if isinstance(item, str):
            sources = self.labels.graph.sources(item, "position")
            return self.labels.name(item), *self.labels.notes(item), *sources
        return tuple(tuple(self._key(inner) for inner in branch) for branch in item.branches)


def _span(part: int | Loop) -> int:
    """How many items a part of a folded chain covers."""
    return 1 if isinstance(part, int) else part.count * sum(map(_span, part.body))
