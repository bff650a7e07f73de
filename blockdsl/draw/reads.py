"""What a drawing says of labels and of what reads them: names, words, formulas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..graph.given import GIVEN
from ..graph.nodes import carried
from ..registry.kinds import kinds
from ..registry.options import spell
from ..registry.reads import JOINS

if TYPE_CHECKING:
    from ..graph.graph import Graph

_PLAIN = {"stream", "base", "position", "normed", "condition"}
_NAMED = 3  # sources that a line names


def wired(graph: Graph, node: str) -> Iterator[tuple[str, str]]:
    """What a node reads by its label, or as one would: (what the edge carries, source)."""
    for source, attrs in graph.nx.pred[node].items():
        for what in carried(attrs):
            if what not in _PLAIN and graph.node_type(source) != "context":
                yield what, source


def of_stream(what: str) -> bool:
    """Whether such an edge brings the stream, and not what a block has beside it."""
    return what != "scores" and not any(what in kind.gives for kind in kinds().values())


def skips(graph: Graph, node: str, at: str) -> list[str]:
    """The nodes whose streams are added to that of `at`, which a node follows."""
    return [source for source in graph.sources(node, "stream") if source != at]


def called(graph: Graph, sources: Iterable[str]) -> str:
    """By which names sources are read: labels, or nodes that have none. What all have in common is said once."""
    each = [graph.labels(source) or (source,) for source in sources]
    common = [name for name in each[0] if all(name in own for own in each)] if each else []
    return ", ".join(common or dict.fromkeys(own[0] for own in each))


def alike(graph: Graph, node: str) -> tuple[Any, ...]:
    """Equal for reads that are drawn alike, whatever it is that they read."""
    attrs = graph.nx.nodes[node]
    each = [graph.labels(source) for source in graph.sources(node, "read")]
    common = [name for name in each[0] if all(name in own for own in each)] if each else []
    return "<", *common, attrs["join"], attrs["init"], attrs["scale"], attrs["tie"]


def read_name(graph: Graph, node: str) -> str:
    """A read as a pattern writes it, `<u(gain, init=0.5)/2@t`, but for which of a label's nodes it takes."""
    attrs = graph.nx.nodes[node]
    said = [] if attrs["join"] == "add" else [attrs["join"]]
    said += [] if attrs["init"] == JOINS[attrs["join"]].init else [f"init={spell(attrs['init'])}"]
    text = f"<{called(graph, graph.sources(node, 'read'))}" + (f"({', '.join(said)})" if said else "")
    text += f"/{1 / attrs['scale']:g}" if attrs["scale"] != 1 else ""
    return text + (f"@{attrs['tie']}" if attrs["tie"] else "")


def read_words(graph: Graph, node: str) -> str:
    """`reads u: the stream after f1, added with a learned gain`."""
    sources = graph.sources(node, "read")
    return f"reads {called(graph, sources)}: {place_of(graph, sources)}, {join_words(graph, node)}"


def join_words(graph: Graph, node: str) -> str:
    """`added with a learned gain`."""
    return JOINS[graph.nx.nodes[node]["join"]].words


def skip_words(graph: Graph, sources: list[str]) -> str:
    """`the stream after f1, added`."""
    return f"{place_of(graph, sources)}, added"


def place_of(graph: Graph, sources: list[str]) -> str:
    """Where these nodes' streams are: `the input and the stream after f1, f3`."""
    after = [source for source in sources if source != graph.start]
    named = after if len(after) <= _NAMED else [after[0], f"… {after[-1]} ({len(after)} of them)"]
    said = ["the input"] if graph.start in sources else []
    return " and ".join(said + ([f"the stream after {', '.join(named)}"] if after else []))


def taken_words(graph: Graph, node: str, named: bool = True) -> list[str]:
    """What a block takes from others by their label; not `named`: without the names of nodes that have no label."""
    found: dict[str, list[str]] = {}
    for what, source in wired(graph, node):
        if what != "scores" or graph.labels(source):
            found.setdefault(what, []).append(source)
    words = []
    for what, sources in found.items():
        title = "the stream" if what == "context" else GIVEN.get(what, what)
        whose = called(graph, sources) if named or all(graph.labels(source) for source in sources) else ""
        verb = {"context": "attends to", "scores": "adds the"}.get(what, "takes the")
        joint = "at" if what == "context" else "of"
        words.append(f"{verb} {title}" + (f" {joint} {whose}" if whose else ""))
    return words
