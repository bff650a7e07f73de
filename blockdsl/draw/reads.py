"""What a drawing says of labels and of what reads them: names, words, formulas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..graph.nodes import carried

if TYPE_CHECKING:
    from ..graph.graph import Graph

HOW = {
    "add": "added",
    "gain": "added with a learned gain",
    "gate": "added with a learned gate, a number a token",
    "cat": "in the stream's place, a linear layer over both",
    "soft": "in the stream's place, a weighted sum by a learned softmax",
}
FORMULAS = {"add": "u", "gain": "g · u", "gate": "σ(w·x + b) · u", "cat": "W [x; u]", "soft": "Σ softmax(w) · u"}
REPLACE = ("cat", "soft")
"""How a read puts something in the stream's place, where others add to it."""

_WHAT = {"kv": "keys and values", "values": "values", "scores": "scores"}
_PLAIN = {"stream", "base", "position", "normed", "condition"}
_NAMED = 3  # sources that a line names


def wired(graph: Graph, node: str) -> Iterator[tuple[str, str]]:
    """What a node reads by its label, or as one would: (what the edge carries, source)."""
    for source, attrs in graph.nx.pred[node].items():
        for what in carried(attrs):
            if what not in _PLAIN and graph.node_type(source) != "context":
                yield what, source


def of_stream(what: str) -> bool:
    """Whether such an edge brings the stream, and not what a block keeps beside it."""
    return what in ("stream", "read", "context")


def skips(graph: Graph, node: str, at: str) -> list[str]:
    """The nodes whose streams are added to that of `at`, which a node follows."""
    return [source for source in graph.sources(node, "stream") if source != at]


def labels_of(graph: Graph, node: str) -> tuple[str, ...]:
    """The labels of a node."""
    return tuple(graph.nx.nodes[node].get("labels", ()))


def called(graph: Graph, sources: Iterable[str]) -> str:
    """By which names sources are read: labels, or nodes that have none. What all have in common is said once."""
    each = [labels_of(graph, source) or (source,) for source in sources]
    common = [name for name in each[0] if all(name in own for own in each)] if each else []
    return ", ".join(common or dict.fromkeys(own[0] for own in each))


def alike(graph: Graph, node: str) -> tuple[Any, ...]:
    """Equal for reads that are drawn alike, whatever it is that they read."""
    attrs = graph.nx.nodes[node]
    each = [labels_of(graph, source) for source in graph.sources(node, "read")]
    common = [name for name in each[0] if all(name in own for own in each)] if each else []
    return "<", *common, attrs["how"], attrs.get("init"), attrs["scale"], attrs["tie"]


def read_name(graph: Graph, node: str) -> str:
    """A read as a pattern writes it, `<u(gain, init=0.5)/2@t`, but for which of a label's nodes it takes."""
    attrs = graph.nx.nodes[node]
    said = [] if attrs["how"] == "add" else [attrs["how"]]
    said += [] if attrs.get("init") is None else [f"init={attrs['init']:g}"]
    text = f"<{called(graph, graph.sources(node, 'read'))}" + (f"({', '.join(said)})" if said else "")
    text += f"/{1 / attrs['scale']:g}" if attrs["scale"] != 1 else ""
    return text + (f"@{attrs['tie']}" if attrs["tie"] else "")


def read_words(graph: Graph, node: str) -> str:
    """`reads u: the stream after f1, added with a learned gain`."""
    sources = graph.sources(node, "read")
    return f"reads {called(graph, sources)}: {place_of(graph, sources)}, {HOW[graph.nx.nodes[node]['how']]}"


def skip_words(graph: Graph, sources: list[str]) -> str:
    """`the stream after f1, added`."""
    return f"{place_of(graph, sources)}, added"


def place_of(graph: Graph, sources: list[str]) -> str:
    """Where the stream is that these nodes give."""
    named = ["the input" if source == graph.start else f"after {source}" for source in sources]
    if len(named) > _NAMED:
        named = [named[0], f"… {named[-1]} ({len(named)} of them)"]
    return f"the stream {', '.join(named)}".replace("the stream the input", "the input")


def taken_words(graph: Graph, node: str, named: bool = True) -> list[str]:
    """What a block takes from others by their label; not `named`: without the names of nodes that have no label."""
    found: dict[str, list[str]] = {}
    for what, source in wired(graph, node):
        if what != "scores" or labels_of(graph, source):
            found.setdefault(what, []).append(source)
    words = []
    for what, sources in found.items():
        title = "the stream" if what == "context" else _WHAT.get(what, what)
        whose = called(graph, sources) if named or all(labels_of(graph, source) for source in sources) else ""
        verb = {"context": "attends to", "scores": "adds the"}.get(what, "takes the")
        joint = "at" if what == "context" else "of"
        words.append(f"{verb} {title}" + (f" {joint} {whose}" if whose else ""))
    return words
