"""How the stream runs: from the input to the output without a gap or a circle, through sums, reads, ties and stages."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from ...registry.kinds import kinds
from ...registry.reads import JOINS
from ..given import misread
from ..graph import Graph
from ..nodes import EDGES, carried
from .finding import Finding, connect, disconnect, set_attribute, set_option, take_out


def acyclic(graph: Graph) -> Iterator[Finding]:
    place = {node: i for i, node in enumerate(graph.nx)}
    before = graph.nx._pred
    ahead = (place[source] < place[target] or not before[source] for source, target in graph.nx.edges)
    if all(ahead) or nx.is_directed_acyclic_graph(graph.nx):
        return
    edges = [edge[:2] for edge in nx.find_cycle(graph.nx)]
    way = " → ".join([*(source for source, _ in edges), edges[0][0]])
    for source, target in edges:
        carries = carried(graph.nx.edges[source, target])
        if {*carries} & {"read", *(option.reads for kind in kinds().values() for option in kind.reading_options())}:
            problem = f"reads {source}, which comes after it ({way}); only an earlier place can be read"
            mend = f"g.nx.remove_edge({source!r}, {target!r})"
            yield Finding(f"{target}: {problem}", mend)
            return
    back = next((edge for edge in edges if place[edge[0]] >= place[edge[1]]), edges[-1])
    yield Finding(f"{edges[0][0]}: is part of a cycle: {way}", f"g.nx.remove_edge({back[0]!r}, {back[1]!r})")


def broken_streams(graph: Graph) -> Iterator[Finding]:
    """Dead ends. Without one, and without a cycle, every node is on a way from the input to the output."""
    edges = graph.nx.edges(data=True)
    stream = [(source, target) for source, target, attrs in edges if {"stream", "base"} & {*carried(attrs)}]
    reading = {target for _, target in stream}
    read = {source for source, _ in stream} | {s for s, _, attrs in edges if {"read", "context"} & {*carried(attrs)}}
    nodes = [node for node in graph.nx if graph.node_type(node) in ("input", "block", "sum", "read", "output")]
    ends = [node for node in nodes if node not in read and node != graph.end]
    for node in graph.nodes("block") + graph.nodes("sum") + graph.nodes("read") + [graph.end]:
        if node not in reading:
            yield Finding(f"{node}: reads no stream", _to(graph, node, nodes, ends))
        if node in ends:
            gaps = [other for other in nodes if other not in reading]
            yield Finding(f"{node}: nothing reads its output", _from(graph, node, nodes, gaps))


def _to(graph: Graph, node: str, nodes: list[str], ends: list[str]) -> str:
    """The edge from the last place before a node, most likely one that nothing reads."""
    later = nx.descendants(graph.nx, node) | {node, graph.end}
    before = nodes if node == graph.end else nodes[: nodes.index(node)]
    for places in (ends, before, [graph.start]):
        if found := [place for place in places if place in {*before} - later]:
            return connect(graph, found[-1], node)
    return ""


def _from(graph: Graph, node: str, nodes: list[str], gaps: list[str]) -> str:
    """The edge to the next place after a node, most likely one that reads nothing; what is past all others goes out."""
    earlier = nx.ancestors(graph.nx, node) | {node, graph.start}
    after = nodes[nodes.index(node) + 1 :]
    for places in (gaps, after, [graph.end]):
        if found := [place for place in places if place in {*after, graph.end} - earlier]:
            return connect(graph, node, found[0])
    return ""


def wrong_reads(graph: Graph) -> Iterator[Finding]:
    """Reads, and options that take a label."""
    for node in graph.nodes("read"):
        attrs = graph.nx.nodes[node]
        if "." in node:
            mend = f"g.nx = nx.relabel_nodes(g.nx, {{{node!r}: {node.replace('.', '_')!r}}})"
            yield Finding(f"{node}: a read's name has no '.', since it is its module's name too", mend)
        if not graph.sources(node, "read"):
            yield Finding(f"{node}: reads no earlier value", connect(graph, graph.start, node, "read"))
        if (attrs["init"] is None) != ((usual := JOINS[attrs["join"]].init) is None):
            problem = f"init of a read by {attrs['join']} {'is none' if usual is None else 'is a number'}"
            yield Finding(f"{node}: {problem}, not {attrs['init']!r}", set_attribute(node, "init", usual))
        if not attrs["scale"] > 0:
            problem = f"scale must be a number above 0, not {attrs['scale']!r}"
            yield Finding(f"{node}: {problem}", set_attribute(node, "scale", 1.0))
    reading = {name: kind.reading_options() for name, kind in kinds().items()}
    for node in graph.nodes("block"):
        attrs = graph.block(node)
        for option in reading[attrs["kind"]]:
            sources, on = graph.sources(node, option.reads), attrs["options"][option.name]
            if on and len(sources) != 1:
                problem = f"its option {option.name} is on, and {len(sources) or 'no'} nodes hand it {option.reads}"
                extra = disconnect(graph, sources[-1], node, option.reads) if sources else ""
                yield Finding(f"{node}: {problem}", extra or set_option(node, option.name, False))
            elif sources and not on and option.reads not in EDGES:
                problem = f"reads {option.reads} of {sources[0]}, but its option {option.name} is false"
                yield Finding(f"{node}: {problem}", set_option(node, option.name, True))
            for source in sources if on else ():
                if problem := misread(graph, source, node, option.reads) or "":
                    yield Finding(
                        f"{node}: {option.name} reads {problem}", disconnect(graph, source, node, option.reads)
                    )


def sums(graph: Graph) -> Iterator[Finding]:
    start = graph.start
    for node in graph.nodes("sum"):
        bases = graph.sources(node, "base")
        if len(bases) > 1:
            problem = f"has more than one base: {', '.join(bases)}"
            yield Finding(f"{node}: {problem}", disconnect(graph, bases[-1], node, "base"))
        if not graph.sources(node, "stream"):
            yield Finding(f"{node}: no branch meets here", f"g.remove({node!r})")
        for base in bases[:1]:
            for branch in graph.sources(node, "stream"):
                if base != start and start in (seen := _upstream(graph, branch, base)):
                    problem = f"the branch {branch} does not start at its base {base} but at {start}"
                    yield Finding(f"{node}: {problem}", _entering(graph, seen, base))


def _entering(graph: Graph, seen: set[str], base: str) -> str:
    """The edge by which the stream enters a branch from elsewhere than its base."""
    own = nx.descendants(graph.nx, base) & seen
    edges = [(s, t) for t in graph.nx if t in own for s in graph.sources(t, "stream") if s in seen - own - {base}]
    return disconnect(graph, *edges[0], "stream") if edges else ""


def _upstream(graph: Graph, node: str, base: str) -> set[str]:
    """The nodes that the stream into `node` comes through, back to `base` and not past it.

    Branches inside are left out: their own sum is judged by itself.
    """
    waiting, seen = [node], {base}
    while waiting:
        at = waiting.pop()
        if at not in seen:
            seen.add(at)
            waiting += graph.sources(at, "base") or graph.sources(at, "stream")
    return seen


def without_readers(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes("context") + graph.nodes("condition") + graph.nodes("position"):
        if not graph.nx.succ[node]:
            yield Finding(f"{node}: nothing reads it", take_out(node))


def ties(graph: Graph) -> Iterator[Finding]:
    for owner, nodes in graph.tied().items():
        first = graph.nx.nodes[owner]
        for node in nodes[1:]:
            attrs = graph.nx.nodes[node]
            problem = ""
            if attrs["type"] != first["type"]:
                problem = "and one of them is a read"
            elif attrs["type"] == "read":
                counts = [len(graph.sources(each, "read")) for each in (owner, node)]
                differ = [name for name in ("join", "init") if attrs[name] != first[name]]
                if counts[0] != counts[1] and JOINS[attrs["join"]].shapes(1, 1):
                    differ.append("how many values it reads")
                problem = f"which differs in {' and '.join(differ)}" if differ else ""
            elif attrs["kind"] != first["kind"]:
                problem = "which is another kind of block"
            elif attrs["options"] != first["options"]:
                differ = [key for key in attrs["options"] if attrs["options"][key] != first["options"].get(key)]
                problem = f"which differs in {' and '.join(sorted(differ))}"
            if problem:
                yield Finding(f"{node}: is tied to {owner}, {problem}", set_attribute(node, "tie", None))


def wrong_stages(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes("block") + graph.nodes("sum") + graph.nodes("read"):
        stage = graph.nx.nodes[node]["stage"]
        for source in graph.sources(node, "stream"):
            before = graph.nx.nodes[source].get("stage", 0)
            if before > stage:
                problem = f"is in stage {stage}, before its source {source} in stage {before}"
                yield Finding(f"{node}: {problem}", set_attribute(node, "stage", before))
