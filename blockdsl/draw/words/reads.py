"""What a drawing says of labels and of what reads them: names, words, formulas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from ...errors import PatternError
from ...graph.given import GIVEN
from ...graph.nodes import carried
from ...language.expand import BlockSpec, ReadSpec
from ...language.labels import LabelSpec
from ...language.pattern import parse
from ...registry.kinds import CONCAT, kinds
from ...registry.options import by_name, spell
from ...registry.reads import JOINS

if TYPE_CHECKING:
    from ...graph.graph import Graph

_STREAM = {"stream", "base"}
_PLAIN = {*_STREAM, "position", "normed", "condition"}
_NAMED = 3  # sources that a line names


def read_beside(graph: Graph, node: str) -> tuple[tuple[str, str], ...]:
    """What a node reads beside the stream: (what the edge carries, source)."""
    edges = graph.nx._pred[node]  # not through the views of `pred`: every node is asked
    if len(edges) == 1 and carried(*edges.values()) == ("stream",):  # as of most
        return ()
    return tuple((what, source) for source in edges for what in carried(edges[source]) if what not in _STREAM)


def unnamed(graph: Graph, read: Iterable[tuple[str, str]]) -> bool:
    """Whether none of what is read is told by the label or the name of its source."""
    return all(
        what in ("position", "condition") or (what == "context" and graph.node_type(source) == "context")
        for what, source in read
    )


def wired(graph: Graph, node: str) -> Iterator[tuple[str, str]]:
    """What a node reads by its label, or as one would: (what the edge carries, source)."""
    for source, attrs in graph.nx.pred[node].items():
        for what in carried(attrs):
            if what not in _PLAIN and graph.node_type(source) != "context":
                yield what, source


def of_stream(what: str) -> bool:
    """Whether such an edge brings the stream, and not what a block has beside it."""
    return what != "scores" and not any(what in kind.gives for kind in kinds().values())


class Names:
    """The labels by which nodes read others: where a place has several labels, the one that the text reads it by."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        several = any(len(graph.labels(node)) > 1 for node in graph.nx)
        self.said = _said(graph) if several else {}

    def of(self, node: str, what: str, source: str) -> str:
        """The label; empty: the source has none."""
        names = self.graph.labels(source)
        said = self.said.get((node, what), "")
        return said if said in names else names[0] if names else ""

    def called(self, node: str, what: str, sources: Iterable[str]) -> str:
        """The names of sources, which are their own where they have no label."""
        return ", ".join(dict.fromkeys(self.of(node, what, source) or source for source in sources))

    def alike(self, node: str) -> tuple[Any, ...]:
        """Equal for reads that are drawn alike, whatever it is that they read."""
        attrs = self.graph.nx.nodes[node]
        names = {self.of(node, "read", source) for source in self.graph.sources(node, "read")}
        return "<", *sorted(names), attrs["join"], attrs["init"], attrs["scale"], attrs["tie"]

    def read(self, node: str) -> str:
        """A read as a pattern writes it, `<u(gain, init=0.5)/2@t`, but for which of a label's places it reads."""
        attrs = self.graph.nx.nodes[node]
        said = [] if attrs["join"] == "add" else [attrs["join"]]
        said += [] if attrs["init"] == JOINS[attrs["join"]].init else [f"init={spell(attrs['init'])}"]
        text = f"<{self.called(node, 'read', self.graph.sources(node, 'read'))}"
        text += f"({', '.join(said)})" if said else ""
        text += f"/{1 / attrs['scale']:g}" if attrs["scale"] != 1 else ""
        return text + (f"@{attrs['tie']}" if attrs["tie"] else "")

    def read_words(self, node: str) -> str:
        """`reads u: the stream after f1, added with a learned gain`."""
        sources = self.graph.sources(node, "read")
        return (
            f"reads {self.called(node, 'read', sources)}: {place_of(self.graph, sources)}, "
            f"{join_words(self.graph, node)}"
        )

    def taken(self, node: str, named: bool = True) -> list[str]:
        """What a block takes from others, in words; not `named`: without the names of nodes that have no label."""
        found: dict[str, list[str]] = {}
        for what, source in wired(self.graph, node):
            if what != "scores" or self.graph.labels(source):
                found.setdefault(what, []).append(source)
        words = []
        for what, sources in found.items():
            verb = {
                "context": "attends to the stream at",
                CONCAT: "reads beside it the stream at",
                "scores": "adds the scores of",
            }
            said = verb.get(what, f"takes the {GIVEN.get(what, what)} of")
            known = named or all(map(self.graph.labels, sources))
            words.append(f"{said} {self.called(node, what, sources) if known else '...'}")
        return words


def _said(graph: Graph) -> dict[tuple[str, str], str]:
    """Node and what it reads → the label that the text of its graph has there, if the text can be read."""
    try:
        specs = [*parse(graph.nx.graph["pattern"]).expansion.flat()]
    except PatternError:
        return {}
    names = {spec.index: spec.name for spec in specs if isinstance(spec, LabelSpec)}
    said: dict[tuple[str, str], str] = {}
    blocks, reads = count(), count()
    for spec in specs:
        if isinstance(spec, ReadSpec):
            said[f"read{next(reads)}", "read"] = spec.label
        elif isinstance(spec, BlockSpec):
            node = f"{spec.kind}{next(blocks)}"
            options = by_name(kinds()[spec.kind].options) if spec.kind in kinds() else {}
            said |= {(node, options[name].reads): names[i] for name, i in spec.reads.items() if name in options}
    return said


def join_words(graph: Graph, node: str) -> str:
    """`added with a learned gain`."""
    return JOINS[graph.nx.nodes[node]["join"]].words


def skip_words(graph: Graph, node: str, sources: list[str]) -> str:
    """`the stream after f1, added`; by a sum with a base, what that has gained since then."""
    if not sources:
        return "adds nothing"
    return f"{'the gain of ' if graph.sources(node, 'base') else ''}{place_of(graph, sources)}, added"


def added_words(graph: Graph, node: str) -> str:
    """How a node takes streams beside that of what it follows: a sum with a base, what they have gained since that."""
    return "its gain added" if graph.sources(node, "base") else "added"


def place_of(graph: Graph, sources: list[str]) -> str:
    """Where these nodes' streams are: `the input and the stream after f1, f3`."""
    after = [source for source in sources if source != graph.start]
    named = after if len(after) <= _NAMED else [after[0], f"… {after[-1]} ({len(after)} of them)"]
    said = ["the input"] if graph.start in sources else []
    return " and ".join(said + ([f"the stream after {', '.join(named)}"] if after else []))
