"""Which blocks, reads and positions of two graphs belong together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..registry.content import content
from ..registry.kinds import kind_of
from .align import GAP, align
from .graph import Graph
from .layout import Branching, Chain, chain
from .nodes import without_notes

Pair = tuple[int, int]


class Compared:
    """One of two graphs that are compared, and what is asked of it more than once.

    Args:
        known: the keys of both, so that equal ones are one.
    """

    def __init__(self, graph: Graph, known: dict[Hashable, BlockKey]) -> None:
        self.graph, self.known = graph, known

    @cached_property
    def order(self) -> list[str]:
        return self.graph.order_as_added()

    @cached_property
    def blocks(self) -> dict[str, BlockKey]:
        """Blocks and reads, in order."""
        branches = dict(_branches(chain(self.graph) or ())) if self.graph.nodes("sum") else {}
        out = {}
        for node in self.order:
            attrs = self.graph.nx.nodes[node]
            if attrs["type"] in ("block", "read"):
                key = same(attrs), branches.get(node, ())
                if key not in self.known:
                    kind = attrs["kind"] if attrs["type"] == "block" else f"<{attrs['join']}"
                    self.known[key] = BlockKey(kind, (*own(attrs).items(),), attrs["tie"] is not None, key[1])
                out[node] = self.known[key]
        return out


@dataclass(frozen=True)
class BlockKey:
    """Equal for blocks that say the same of themselves, a tie's label aside, and stand in like branches."""

    kind: str
    own: tuple[tuple[str, Any], ...]
    tied: bool
    branch: tuple[int, ...]


def own(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What a block says of itself, its options and suffixes, or a read; what an option reads, edges say."""
    if attrs["type"] == "read":
        return {"init": attrs["init"], "scale": attrs["scale"]}
    by_edges = {option.name for option in kind_of(attrs["kind"]).reading_options()}
    options = {name: value for name, value in attrs["options"].items() if name not in by_edges}
    return {**options, "shift": attrs["shift"], "scale": attrs["scale"]}


def same(attrs: Mapping[str, Any]) -> Hashable:
    """Equal for blocks and reads that say the same of themselves, a tie's label aside."""
    if attrs["type"] == "read":
        return attrs["join"], attrs["init"], attrs["scale"], attrs["tie"] is None
    return attrs["kind"], content(attrs["options"]), attrs["shift"], attrs["scale"], attrs["tie"] is None


def unlike(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names that do not stand for one value in both; one that is missing is None there."""
    return [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]


def _branches(items: Chain, outer: tuple[int, ...] = ()) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each block with the numbers of the branches around it, from the outermost on."""
    for item in items:
        if isinstance(item, str):
            yield item, outer
        elif isinstance(item, Branching):
            for number, branch in enumerate(item.branches):
                yield from _branches(branch, (*outer, number))


# Blocks ----------------------------------------------------------------------------------------------------------


def matched_blocks(before: Compared, after: Compared) -> list[tuple[str, str]]:
    """Blocks and reads that belong together, in order: of one kind, as many as can be, the more alike the better.

    Where several matchings are as good, what stands in the other's place is beside it, the rest is matched from the
    front on, and what only one graph has is whole layers if that can be. So the 12 layers of a model are the first 12
    of one of 32 layers, and a layer that is put in between is found there.
    """
    sides = before.blocks, after.blocks
    ours, theirs = ([*side.values()] for side in sides)
    nodes, others = ([*side] for side in sides)
    return [(nodes[i], others[j]) for i, j in _by_layers(align(ours, theirs, _price), ours, theirs)]


def _price(one: BlockKey, other: BlockKey) -> int | None:
    """Blocks of one kind are a pair, the more willingly the more they are alike."""
    if one.kind != other.kind:
        return None
    differ = len(unlike(dict(one.own), dict(other.own))) + (one.tied != other.tied)
    return (GAP // 2 + min(differ, GAP // 4) if differ else 0) + (one.branch != other.branch)


def _by_layers(pairs: list[Pair], before: Sequence[BlockKey], after: Sequence[BlockKey]) -> list[Pair]:
    """The same, but that a run that only one graph has begins and ends as its layers do, where equals allow that."""
    out = [*pairs]
    for k, end in enumerate([*pairs, (len(before), len(after))]):
        start = (out[k - 1][0] + 1, out[k - 1][1] + 1) if k else (0, 0)
        sizes = end[0] - start[0], end[1] - start[1]
        if all(sizes) or not any(sizes):
            continue
        side = 0 if sizes[0] else 1
        keys, first, size = (before, after)[side], start[side], sizes[side]
        most = 0
        while (
            most < min(size - 1, k)
            and out[k - 1 - most] == (start[0] - 1 - most, start[1] - 1 - most)
            and keys[first - 1 - most] == keys[first - 1 - most + size]
        ):
            most += 1
        back = max(range(most + 1), key=lambda n: (_fits(keys, first - n, size), -n))
        out[k - back : k] = [(i + size, j) if side == 0 else (i, j + size) for i, j in out[k - back : k]]
    return out


def _fits(keys: Sequence[BlockKey], first: int, size: int) -> int:
    """How much a run is like whole layers: it begins as the stack does, and ends as that does."""
    return (keys[first].kind == keys[0].kind) + (keys[first + size - 1].kind == keys[-1].kind)


# Positions -------------------------------------------------------------------------------------------------------


def matched_positions(before: Graph, after: Graph) -> list[tuple[str, str]]:
    """Positions with the same attributes, and then those left of the same scheme, in order."""
    left = after.nodes("position")
    pairs: dict[str, str] = {}
    for alike in (said_of, _scheme):
        for node in before.nodes("position"):
            found = [other for other in left if alike(after, other) == alike(before, node)]
            if node not in pairs and found:
                pairs[node] = found[0]
                left.remove(found[0])
    return [*pairs.items()]


def said_of(graph: Graph, node: str) -> dict[str, Any]:
    """What a node beside the blocks says of itself."""
    attrs = without_notes(graph.nx.nodes[node])
    return {name: value for name, value in attrs.items() if name not in ("type", "labels")}


def _scheme(graph: Graph, node: str) -> Any:
    return graph.nx.nodes[node].get("scheme")
