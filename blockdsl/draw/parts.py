"""What is drawn of a graph: blocks, reads, branches, and repeats that stand for all their copies.

Where two graphs stand beside each other, rows say which parts do, and a run that both have is one box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class DrawnBlock:
    """A block, and all blocks that its box stands for: one of each copy of the repeats around it."""

    nodes: tuple[str, ...]

    @property
    def node(self) -> str:
        return self.nodes[0]

    @property
    def is_node(self) -> bool:
        """Whether it stands for nodes, and not for what is before or after them."""
        return not isinstance(self, DrawnLabel | DrawnSkip) or isinstance(self, DrawnSum)


@dataclass(frozen=True)
class DrawnRead(DrawnBlock):
    """A read, on the stream."""


@dataclass(frozen=True)
class DrawnLabel(DrawnBlock):
    """Where something further down reads the stream, by this name: right after these nodes."""

    name: str = ""


@dataclass(frozen=True)
class DrawnSkip(DrawnBlock):
    """Where streams of further up are added: right before these nodes, which read their sum, or after these sums."""


@dataclass(frozen=True)
class DrawnSum(DrawnSkip):
    """A sum by itself, without branches."""


@dataclass(frozen=True)
class DrawnAlike(DrawnBlock):
    """A run of blocks that another graph has too, in one box.

    Attributes:
        inside: what the run is.
        copies: how many of it the box stands for.
    """

    inside: Parts = ()
    copies: int = 1


@dataclass(frozen=True)
class DrawnBranches:
    """Branches side by side that meet in a sum."""

    columns: tuple[Parts, ...]
    nodes: tuple[str, ...]

    @property
    def node(self) -> str:
        return self.nodes[0]


@dataclass(frozen=True)
class DrawnSide(DrawnBranches):
    """A way of the stream beside the main one, which goes on where it was."""


@dataclass(frozen=True)
class DrawnRepeat:
    """Parts that run `times` times, drawn once."""

    parts: Parts
    times: int


@dataclass(frozen=True)
class DrawnRow(DrawnRepeat):
    """Parts, or nothing, that run once and stand beside those of the row of the same number in another column."""

    times: int = 1
    number: int = 0


Part = DrawnBlock | DrawnBranches | DrawnRepeat
Parts = tuple["Part", ...]


def leaves(parts: Parts) -> Iterator[DrawnBlock]:
    """Blocks, reads, labels and skips of parts, in order."""
    for part in parts:
        if isinstance(part, DrawnBlock):
            yield part
        elif isinstance(part, DrawnRepeat):
            yield from leaves(part.parts)
        else:
            for column in part.columns:
                yield from leaves(column)


def drawn_blocks(parts: Parts) -> Iterator[DrawnBlock]:
    """The blocks of parts, in order."""
    return (part for part in leaves(parts) if type(part) is DrawnBlock)
