"""What is read from further up, between what is drawn: where copies are folded, one wire stands for the reads of all.

A fold can be drawn where a rule in words says which copy reads which; `wiring` names the nodes where none does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from .parts import DrawnAlike, DrawnBlock, DrawnBranches, DrawnLabel, DrawnRepeat, DrawnSkip, Parts
from .words import reads
from .words.captions import Captions

End = str | DrawnBlock


@dataclass(frozen=True)
class Wire:
    """What a block or a read has beside the stream.

    Attributes:
        role: what its edges carry; of streams that are added to the stream, "read".
        source: what is drawn, or the node of the context or of a position.
        target: what is drawn.
        words: which of the source's copies each copy of the target reads, where that is not plain.
        many: whether it stands for several reads that run side by side.
    """

    role: str
    source: End
    target: DrawnBlock
    words: str = ""
    many: bool = False

    @property
    def net(self) -> tuple[str, End]:
        """Wires of one source run together."""
        return self.role, self.source


class _Copy(NamedTuple):
    """One of the copies that something drawn stands for."""

    part: DrawnBlock
    number: int


Loops = tuple[tuple[int, int], ...]  # of the repeats around a part: which, and how many times


def wiring(captions: Captions, parts: Parts) -> tuple[tuple[Wire, ...], list[str]]:
    """The wires of all parts; and the nodes that must be told apart for that, in which case the wires are not all."""
    if not any(captions.beside.values()) and not any(captions.added.values()):
        return (), []
    return _Wiring(captions, parts).wires()


class _Wiring:
    def __init__(self, captions: Captions, parts: Parts) -> None:
        self.graph = captions.graph
        self.captions = captions
        self.loops = dict(_loops(parts, (), [0]))
        self.streams: dict[tuple[str, str], _Copy] = {}  # node and label → where its stream is read
        self.blocks: dict[str, _Copy] = {}
        for part in self.loops:
            copies = {node: _Copy(part, i) for i, node in enumerate(part.nodes)}
            if isinstance(part, DrawnLabel):
                self.streams |= {(node, part.name): copy for node, copy in copies.items()}
            elif not isinstance(part, DrawnSkip):
                self.blocks |= copies

    @cached_property
    def place(self) -> dict[str, int]:
        return {node: i for i, node in enumerate(self.graph.order())}

    def wires(self) -> tuple[tuple[Wire, ...], list[str]]:
        out: dict[Wire, None] = {}
        unclear: dict[str, None] = {}
        between: dict[tuple[str, DrawnBlock, DrawnBlock], list[tuple[int, int]]] = {}
        beside = self.captions.beside
        for part in self.loops:
            if type(part) in (DrawnBlock, DrawnAlike):
                nodes = part.nodes if isinstance(part, DrawnAlike) else part.nodes[:1]
                read = [each for node in nodes for each in beside[node] if self.graph.node_type(each[1]) == each[0]]
                for outside in ("position", "condition", "context"):
                    out |= {Wire(role, source, part): None for role, source in read if role == outside}
            for i, node in enumerate(part.nodes):
                if not beside[node] and not isinstance(part, DrawnSkip):
                    continue
                for role, copy in self._reads(part, node):
                    between.setdefault((role, copy.part, part), []).append((copy.number, i))
        for (role, source, target), copies in between.items():
            rule = self._rule(source, target, copies)
            if role == "scores" and not self.graph.labels(source.node):
                rule = "", False  # which are added is in the blocks' words, and so alike in all copies
            if rule is None:
                unclear |= dict.fromkeys((*target.nodes, *source.nodes))
            else:
                out[Wire(role, source, target, *rule)] = None
        return tuple(out), [*unclear]

    def _reads(self, part: DrawnBlock, node: str) -> Iterator[tuple[str, _Copy]]:
        name = self.captions.names.of
        if isinstance(part, DrawnSkip):
            for source in self.captions.added[node]:
                yield "read", self.streams[source, name(node, "stream", source)]
        elif not isinstance(part, DrawnLabel):
            for what, source in reads.wired(self.graph, node):
                of_stream = reads.of_stream(what)
                yield what, self.streams[source, name(node, what, source)] if of_stream else self.blocks[source]

    def _rule(self, source: DrawnBlock, target: DrawnBlock, copies: list[tuple[int, int]]) -> tuple[str, bool] | None:
        """Which copies of the source those of the target read, in words, and whether these are many side by side.

        Args:
            copies: (the source's copy, the target's).
        """
        found = {*copies}
        theirs, ours = self.loops[source], self.loops[target]
        common = [a[1] for a, b in zip(theirs, ours, strict=False) if a == b]
        n, m = len(source.nodes) // prod(common), len(target.nodes) // prod(common)  # copies in each of the common
        outer = range(prod(common))

        def is_rule(of: Mapping[int, int]) -> bool:
            """Whether in each common copy the target's copies read these of the source's."""
            return found == {(c * n + s, c * m + r) for c in outer for r, s in of.items()}

        read = {r for _, r in copies}
        k = max(r % m for r in read) + 1  # those of the first k copies read it
        if is_rule(dict.fromkeys(range(k), 0)) and n == 1:
            return "", False
        if n == m == 1 and len(found) <= len(target.nodes):
            for depth in range(len(common) + 1):
                inside = prod(common[depth:])
                for back in {r - s for s, r in copies if r > s}:
                    told = {(r - back, r) for r in range(len(target.nodes)) if r % inside >= back}
                    if found == told:
                        return ("" if back == 1 else f"{back} copies before"), False
            if _first(found, common):
                return "", False
        if 1 < m == k <= n and is_rule({r: n - 1 - r for r in range(m)}):
            return f"{m} skips, last in, first out", True
        if 1 < m == k == n and is_rule({r: r for r in range(m)}):
            return f"{m} skips, in order", True
        if is_rule(dict.fromkeys(range(k), n - 1)):
            return "the last", False
        if is_rule(dict.fromkeys(range(k), 0)):
            return "the first", False
        before = {
            (s, r)
            for r, reader in enumerate(target.nodes)
            for s, node in enumerate(source.nodes)
            if self.place[node] < self.place[reader]
        }
        if found == before:
            return ("all before" if len(found) < len(source.nodes) * len(target.nodes) else f"all {n}"), True
        return None


def _first(found: set[tuple[int, int]], common: list[int]) -> bool:
    """Whether only the first copies of some repeat read, each what is in the same copy."""
    return any(
        found == {(r, r) for r in range(prod(common)) if r % prod(common[i:]) < prod(common[i + 1 :])}
        for i in range(len(common))
    )


def _loops(parts: Parts, around: Loops, count: list[int]) -> Iterator[tuple[DrawnBlock, Loops]]:
    """Each leaf and the repeats around it."""
    for part in parts:
        if isinstance(part, DrawnRepeat):
            count[0] += 1
            yield from _loops(part.parts, (*around, (count[0], part.times)), count)
        elif isinstance(part, DrawnBranches):
            for column in part.columns:
                yield from _loops(column, around, count)
        else:
            yield part, around
