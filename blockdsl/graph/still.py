"""A graph that is only read: what is asked of all its nodes again and again is worked out once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

from ..registry.content import content
from .graph import Graph
from .nodes import BlockNode, carried

_Answer = TypeVar("_Answer")


class Still(Graph):
    """A view of a graph, for as long as nobody changes that; it may be at fault.

    Attributes:
        readable: whether it is known to have none of the faults that keep a graph from being read.
    """

    _of: Graph | None = None
    readable = False

    @property
    def pattern(self) -> str:
        return super().pattern if self._of is None else self._of.pattern

    @cached_property
    def _by_type(self) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for node, attrs in self.nx._node.items():
            if isinstance(node_type := attrs.get("type"), str):
                out.setdefault(node_type, []).append(node)
        return out

    @cached_property
    def _sources(self) -> dict[str, dict[str, list[str]]]:
        out: dict[str, dict[str, list[str]]] = {}
        for node, edges in self.nx._pred.items():
            own = out[node] = {}
            for source, attrs in edges.items():
                for what in carried(attrs):
                    if isinstance(what, str):
                        own.setdefault(what, []).append(source)
        return out

    @cached_property
    def _answers(self) -> dict[Hashable, Any]:
        return {}

    def once(self, key: Hashable, work: Callable[[], _Answer]) -> _Answer:
        if key not in self._answers:
            self._answers[key] = work()
        answer: _Answer = self._answers[key]
        return answer

    @cached_property
    def _order(self) -> list[str]:
        return super().order()

    def order(self) -> list[str]:
        return [*self._order]

    def nodes(self, node_type: str) -> list[str]:
        return [*self._by_type.get(node_type, ())]

    @cached_property
    def _distinct(self) -> list[tuple[BlockNode, int]]:
        return super().distinct()

    def distinct(self) -> list[tuple[BlockNode, int]]:
        return self._distinct

    def thinned(self) -> Still:
        """The same with one block alone of those that say the same and read nothing beside the stream.

        Who judges each block by what it says and reads finds as much at fault with it, or as little.
        """
        blocks: dict[Hashable, str] = {}
        for node in self.nodes("block"):
            attrs = self.block(node)
            said: Hashable = node
            if self._sources[node].keys() == {"stream"} and attrs["tie"] is None and "." not in node:
                said = attrs["kind"], content(attrs["options"]), attrs["shift"], attrs["scale"]
            blocks.setdefault(said, node)
        out = Still(self.nx)
        vars(out).update(vars(self) | {"_by_type": {**self._by_type, "block": [*blocks.values()]}, "_answers": {}})
        return out

    def sources(self, node: str, carries: str) -> list[str]:
        return [*self._sources[node].get(carries, ())]


def still(graph: Graph, readable: bool = False) -> Still:
    """The graph as one that is only read; what changes later is not seen. `readable`: it has been judged."""
    if isinstance(graph, Still):
        return graph
    out = Still(graph.nx)
    out._of, out.readable = graph, readable
    return out
