"""Looped depth: a tied unit that is repeated more or fewer times, `(a f)@core*8` as if it were `(a f)@core*16`.

The parameters stay, since those of the unit are one set (Universal Transformer, arXiv:1807.03819; Geiping et al.,
arXiv:2502.05171). A new repeat is a copy of the last: it reads of that one what that one read of the one before it,
and what is read from outside stays. What comes after the loop reads the new last repeat.

A repeat reaches from the end of one unit to the end of the next, so that what stands before the unit in a repeat, as in
`(<e(cat)@mix (a f)@core)*8`, is a part of it. All of it has to be tied. Of a single repeat that is the unit alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

from ..errors import PatternError, UserError, did_you_mean, listing
from ..language.loops import with_count
from ..language.pattern import parse
from ..registry.options import whole
from . import written
from .graph import Graph
from .nodes import carried, without_notes

G = TypeVar("G", bound=Graph)

_ANOTHER_TEXT = "compile the text with another count, which says what each repeat reads"


def loop_labels(graph: Graph) -> list[str]:
    """The labels of ties, as a text has them after `@`."""
    return list(dict.fromkeys(label for node in graph.nx if (label := _label(graph, node)) is not None))


def looped(graph: G, counts: Mapping[str, int]) -> G:
    """A copy of a graph in which tied units are repeated so often, by their labels.

    Raises:
        UserError: no unit has this label, or its repeats differ in more than their place; the message says how.
    """
    graph = graph.copy()
    for label, number in counts.items():
        count, repeats = whole(label, number, 1), _repeats(graph, label)
        if count == len(repeats):
            continue
        text, edited = graph.nx.graph["pattern"], written.is_edited(graph.nx)
        with suppress(PatternError):  # of a kind that was unregistered, say
            text = str(with_count(parse(text), label, count))
        change = _more if len(repeats) < count else _fewer
        graph = change(graph, label, repeats, count)
        if not edited and text != graph.nx.graph["pattern"]:  # else the label is in a definition
            written.write(graph.nx, text)
    return graph


def _label(graph: Graph, node: str) -> str | None:
    tie = graph.nx.nodes[node].get("tie")
    return None if tie is None else tie.partition(".")[0]


def _repeats(graph: Graph, label: str) -> list[list[str]]:
    """The nodes of each repeat, in order."""
    nodes = [node for node in graph.nx if graph.node_type(node) in ("block", "sum", "read")]
    tied = [node for node in nodes if _label(graph, node) == label]
    if not tied:
        hint = did_you_mean(label, loop_labels(graph)) or listing("ties", loop_labels(graph) or ["none"])
        raise UserError(f"no blocks are tied as '{label}', as in (a f)@{label}*8; {hint}")
    ties = [graph.nx.nodes[node]["tie"] for node in tied]
    size = len({*ties})
    if ties != ties[:size] * (len(ties) // size):
        raise UserError(f"the blocks tied as '{label}' are not repeats of one unit: {', '.join(tied)}")
    ends = [_end(graph, nodes, tied[at : at + size]) for at in range(0, len(tied), size)]
    repeats = [nodes[start + 1 : end + 1] for start, end in pairwise(ends)]
    first = nodes[nodes.index(tied[0]) : ends[0] + 1]
    if repeats:
        like = nodes[max(0, ends[0] + 1 - len(repeats[-1])) : ends[0] + 1]
        first = like if _alike(graph, like, repeats[-1]) else first
    for node in (node for repeat in [*repeats, first] for node in repeat):
        if graph.node_type(node) != "sum" and graph.nx.nodes[node]["tie"] is None:
            raise UserError(
                f"{node} stands within the repeats of '{label}' and is not tied: write it inside, or with @"
            )
    for repeat in repeats:
        if not _alike(graph, repeat, repeats[-1]):
            raise UserError(f"the repeats of '{label}' differ: {', '.join(repeat)}; {', '.join(repeats[-1])}")
    return [first, *repeats]


def _end(graph: Graph, nodes: Sequence[str], unit: Sequence[str]) -> int:
    """The place of the last node of a unit, or of the sum of branches that all end in it."""
    at, inside = nodes.index(unit[-1]), {*nodes[nodes.index(unit[0]) : nodes.index(unit[-1]) + 1]}
    while at + 1 < len(nodes) and graph.node_type(nodes[at + 1]) == "sum":
        if not {*graph.sources(nodes[at + 1], "stream")} <= inside:
            break
        at += 1
        inside.add(nodes[at])
    return at


def _alike(graph: Graph, one: Sequence[str], other: Sequence[str]) -> bool:
    return [_said(graph, node) for node in one] == [_said(graph, node) for node in other]


def _said(graph: Graph, node: str) -> dict[str, Any]:
    return {name: value for name, value in without_notes(graph.nx.nodes[node]).items() if name != "labels"}


def _more(graph: G, label: str, repeats: list[list[str]], count: int) -> G:
    """With copies of the last repeat after it, each of which reads of the one before it what that read of its own."""
    last, before = repeats[-1], repeats[-2] if len(repeats) > 1 else []
    copies = _fresh(graph, last, count - len(repeats))
    counterpart = dict(zip(reversed(before), reversed(last), strict=False)) | dict(zip(last, copies[0], strict=True))
    entering = {*graph.sources(last[0], "stream"), *graph.sources(last[0], "base")} - {*last, *before}
    earlier = {node: i + 1 for i, repeat in enumerate(repeats[:-2]) for node in repeat}

    def new_source(source: str, carries: str, target: str) -> str:
        if source in earlier:
            problem = (
                f"{target} reads repeat {earlier[source]} of '{label}', and a repeat more would read the one before it"
            )
            raise UserError(f"{problem} alone: {_ANOTHER_TEXT}")
        if not before and source in entering and carries in ("stream", "base"):
            return last[-1]
        if not before and carries == "scores" and source not in counterpart:
            return _latest(graph, last, target)
        return counterpart.get(source, source)

    edges: dict[str, list[tuple[str, str]]] = {}
    for node, copy in zip(last, copies[0], strict=True):
        into = _into(graph, node)
        edges[copy] = [(new_source(source, what, node), what) for source, what in into]
        if not before and _adds_scores(graph, node) and "scores" not in {what for _, what in into}:
            edges[copy].append((_latest(graph, last, node), "scores"))  # the first had none to add
    for previous, own in pairwise(copies):
        names = dict(zip((*last, *copies[0]), (*previous, *own), strict=True))
        for node, copy in zip(copies[0], own, strict=True):
            edges[copy] = [(names.get(source, source), what) for source, what in edges[node]]
    _check_after(graph, label, repeats)
    inside, newest = {node for repeat in repeats for node in repeat}, dict(zip(last, copies[-1], strict=True))
    for node in graph.nx:
        into = _into(graph, node)
        edges[node] = into if node in inside else [(newest.get(source, source), what) for source, what in into]
    nodes = [*graph.nx]
    at = nodes.index(last[-1]) + 1
    originals = dict(zip(nodes, nodes, strict=True))
    originals |= {copy: node for own in copies for node, copy in zip(last, own, strict=True)}
    return _made(graph, [*nodes[:at], *(copy for own in copies for copy in own), *nodes[at:]], originals, edges)


def _fewer(graph: G, label: str, repeats: list[list[str]], count: int) -> G:
    _check_after(graph, label, repeats)
    names = dict(zip(reversed(repeats[-1]), reversed(repeats[count - 1]), strict=False))
    gone = {node for repeat in repeats[count:] for node in repeat}
    order = [node for node in graph.nx if node not in gone]
    edges = {node: [(names.get(source, source), what) for source, what in _into(graph, node)] for node in order}
    for node, into in edges.items():
        if missing := [source for source, _ in into if source in gone]:
            raise UserError(f"{node} reads {missing[0]}, of which the first repeat of '{label}' has no counterpart")
    return _made(graph, order, {node: node for node in order}, edges)


def _check_after(graph: Graph, label: str, repeats: list[list[str]]) -> None:
    """What comes after a loop reads its last repeat alone."""
    numbers = {node: i for i, repeat in enumerate(repeats) for node in repeat}
    for source, number in numbers.items():
        for target in graph.nx.succ[source]:
            if target not in numbers and number < len(repeats) - 1:
                problem = f"{target} reads repeat {number + 1} of '{label}', and what comes after a loop reads its last"
                raise UserError(f"{problem} alone: {_ANOTHER_TEXT}")


def _into(graph: Graph, node: str) -> list[tuple[str, str]]:
    """The edges into a node, as what each source hands to it."""
    return [(source, what) for source, attrs in graph.nx.pred[node].items() for what in carried(attrs)]


def _adds_scores(graph: Graph, node: str) -> bool:
    return bool(graph.nx.nodes[node].get("options", {}).get("residual_attn"))


def _latest(graph: Graph, nodes: Sequence[str], like: str) -> str:
    """The last of these nodes of the same kind as another."""
    return next(node for node in reversed(nodes) if graph.nx.nodes[node].get("kind") == graph.nx.nodes[like]["kind"])


def _fresh(graph: Graph, nodes: Iterable[str], times: int) -> list[list[str]]:
    """New names for so many copies of these nodes: a7 for a1, where the blocks' numbers reach 6."""
    numbers = Counter(map(graph.node_type, graph.nx))

    def name_of(node: str) -> str:
        stem, node_type = node.rstrip("0123456789"), graph.node_type(node)
        while (name := f"{stem}{numbers[node_type]}") in graph.nx:
            numbers[node_type] += 1
        numbers[node_type] += 1
        return name

    return [[name_of(node) for node in nodes] for _ in range(times)]


def _made(
    graph: G, order: Sequence[str], originals: Mapping[str, str], edges: Mapping[str, list[tuple[str, str]]]
) -> G:
    """A graph of these nodes, each like its original, in this order, with these edges into each."""
    new = graph.copy()
    new.nx.clear()
    new.nx.graph.update(graph.nx.graph)
    for node in order:
        attrs = graph.nx.nodes[originals[node]]
        new.nx.add_node(node, **{name: dict(v) if isinstance(v, dict) else v for name, v in attrs.items()})
    for target in order:
        carries: dict[str, tuple[str, ...]] = {}
        for source, what in edges[target]:
            carries[source] = (*carries.get(source, ()), what)
        new.nx.add_edges_from((source, target, {"carries": what}) for source, what in carries.items())
    return new
