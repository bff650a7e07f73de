"""What drawings call a block: as a pattern writes it, and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..fold import Folded, fold
from ..kinds import kind_of
from ..options import spell
from ..positions import SCHEMES
from .layout import Chain, Split, chain

if TYPE_CHECKING:
    from ..graph import BlockGraph


class Names:
    """The names of a graph's blocks.

    Attributes:
        items: the graph as chains and branches, or None where it is no such thing.
    """

    def __init__(self, graph: BlockGraph) -> None:
        self.graph = graph
        self.items = chain(graph)
        self._usual = _usual(graph)
        self._rank: dict[str, int] = {}  # each block's place among those of its kind, as drawn
        seen: Counter[str] = Counter()
        for node in graph.nodes("block") if self.items is None else blocks_of(self.items):
            kind = graph.nx.nodes[node]["block"]
            self._rank[node] = seen[kind]
            seen[kind] += 1

    def name(self, node: str) -> str:
        """The block as a pattern writes it, with the options in which an edit set it apart from most of its kind."""
        attrs = self.graph.nx.nodes[node]
        usual = self._usual[attrs["block"]].items()
        shown = [(k, v) for k, v in attrs["options"].items() if k in attrs["given"] or (k, v) not in usual]
        flags = [name if value is True else f"{name}={spell(value)}" for name, value in shown]
        text = attrs["block"] + (f"({', '.join(flags)})" if flags else "")
        text += f">>{attrs['shift']}" if attrs["shift"] else ""
        if attrs["scale"] != 1:
            text += f"/{1 / attrs['scale']:g}"
        return text + (f"@{attrs['tie']}" if attrs["tie"] else "")

    def notes(self, node: str) -> list[str]:
        """The block in words, and what it reads beside the stream."""
        attrs = self.graph.nx.nodes[node]
        notes = [kind_of(attrs["block"]).title]
        notes += [self.position(position) for position in self.graph.sources(node, "position")]
        notes += ["reads the context" for _ in self.graph.sources(node, "context")]
        notes += [f"adds the scores {self._scores(source, node)}" for source in self.graph.sources(node, "scores")]
        return notes

    def position(self, node: str) -> str:
        """A position in words."""
        attrs = self.graph.nx.nodes[node]
        return SCHEMES[attrs["scheme"]].note(attrs) if attrs["scheme"] in SCHEMES else attrs["scheme"]

    def key(self, item: str | Split) -> Any:
        """Equal for items that are drawn alike."""
        if isinstance(item, str):
            return self.name(item), " · ".join(self.notes(item))
        return tuple(tuple(self.key(inner) for inner in branch) for branch in item.branches)

    def fold(self, items: Chain) -> Folded:
        """A chain with its repeats folded."""
        keys = [self.key(item) for item in items]
        return fold(keys, lambda index: len(str(keys[index])))

    def _scores(self, source: str, node: str) -> str:
        """Whose scores; counted back in a drawing that names no nodes, so that repeats are alike."""
        kind = self.graph.nx.nodes[source]["block"]
        back = self._rank[node] - self._rank[source]
        if self.items is None or back < 1 or kind != self.graph.nx.nodes[node]["block"]:
            return f"of {source}"
        return "before" if back == 1 else f"of the '{kind}' {back} back"


def blocks_of(items: Chain) -> Iterator[str]:
    """The blocks of a chain, those of branches one branch after another."""
    for item in items:
        if isinstance(item, str):
            yield item
        else:
            for branch in item.branches:
                yield from blocks_of(branch)


def _usual(graph: BlockGraph) -> dict[str, dict[str, Any]]:
    """For each kind, the options that more than half of the blocks whose text does not set them have."""
    values: dict[str, dict[str, Counter[Any]]] = {}
    for node in graph.nodes("block"):
        attrs = graph.nx.nodes[node]
        of_kind = values.setdefault(attrs["block"], {})
        for name, value in attrs["options"].items():
            if name not in attrs["given"]:
                of_kind.setdefault(name, Counter())[value] += 1
    return {
        kind: {
            name: value
            for name, counter in of_kind.items()
            for value, count in counter.most_common(1)
            if 2 * count > counter.total()
        }
        for kind, of_kind in values.items()
    }
