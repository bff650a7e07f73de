"""Pipeline stages: which nodes of a graph each has, what crosses the cuts between them, what several of them share.

    parts = stages(graph, 4)                  # by the pattern's `|`, or balanced by FLOPs
    crossings(graph, parts)[0]                # what the first stage, or one before it, makes and a later one reads
    shared(graph, parts)                      # ties and a tied embedding: their gradients are summed over the stages

Owns the cuts. Which rank runs which stage and when is the schedule's, what is sent in bytes `traffic`'s. Rotary
positions and biases are made where they are read; masks, and a context or condition from outside, every stage is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import networkx as nx

from ..errors import GraphError, UserError
from ..graph.costs import node_costs, sizes, stage_title
from ..graph.nodes import carried
from ..registry.kinds import kinds
from ..registry.positions import SCHEMES

if TYPE_CHECKING:
    from ..graph.graph import Graph

G = TypeVar("G", bound="Graph")

STEPS = ("block", "sum", "read")
"""Types of nodes that a stage has; the input is the first stage's and the output the last one's."""


@dataclass(frozen=True)
class PipelineStage:
    """Consecutive steps of a stack.

    Attributes:
        index: its place, from 0.
        nodes: its blocks, sums and reads, in the graph's order.
        beside: positions and the condition that they or the input or output read: each stage makes its own.
        titles: the pattern's stages of which it has nodes, as `2: encoder`.
        flops: forward FLOPs of one row, with the embedding in the first stage and the head in the last.
    """

    index: int
    nodes: tuple[str, ...]
    beside: tuple[str, ...]
    titles: tuple[str, ...]
    flops: int


@dataclass(frozen=True)
class Crossing:
    """A value that is made on one side of a cut and read on the other.

    Attributes:
        node: makes it.
        carries: "stream"; or what a block gives beside it, "scores", "normed", "kv", "values"; or "injected", what the
            input gives to branches under `reinject_input`.
        readers: the nodes after the cut that read it.
    """

    node: str
    carries: str
    readers: tuple[str, ...]

    @property
    def key(self) -> str:
        """One name for each value: the node's own for its stream, `a0.scores` for what it gives beside."""
        return self.node if self.carries == "stream" else f"{self.node}.{self.carries}"


def stages(
    graph: Graph, n: int, seq_len: int | None = None, loads: Mapping[str, int] | None = None
) -> tuple[PipelineStage, ...]:
    """The stack in `n` stages of like FLOPs.

    Where the pattern has at least `n` stages, all cuts are at its `|`; else they are between any two blocks, but for
    parallel branches.

    Args:
        graph: under tp that of one rank, `local.tensor_part`, whose embedding and head are whole.
        seq_len: tokens a row that FLOPs are counted for; by default max_seq_len, or 1024.
        loads: these FLOPs by node, where they have been counted.

    Raises:
        UserError: there are fewer blocks than stages, or an encoder and a decoder.
        GraphError: a block reads one of a later stage, or a stage ends within branches; an edited graph may say so.
    """
    loads = _loads(graph, seq_len) if loads is None else loads
    if n == 1:
        return (_stage(graph, 0, 1, tuple(_steps(graph)), loads),)
    if graph.encoder is not None:
        raise UserError(f"pp={n}: an encoder with its decoder is not cut into pipeline stages")
    units = _written(graph) if len(graph.stages) >= n else _units(graph)
    if len(units) < n:
        blocks = len(graph.nodes("block"))
        places = f"the stack has {blocks} block{'' if blocks == 1 else 's'}"
        if len(units) < blocks:
            places += f", which can be cut into {len(units)} parts, as parallel branches stay together"
        raise UserError(f"pp={n}: a pipeline needs a block for each of its {n} stages; {places}")
    ends = balanced([sum(loads.get(node, 0) for node in unit) for unit in _with_ends(graph, units)], n)
    parts = [units[start:end] for start, end in zip((0, *ends), ends, strict=False)]
    return tuple(_stage(graph, i, n, tuple(n for unit in part for n in unit), loads) for i, part in enumerate(parts))


def crossings(graph: Graph, parts: Sequence[PipelineStage]) -> tuple[tuple[Crossing, ...], ...]:
    """What crosses each cut, the first between stages 0 and 1: all that is made before it and read after it.

    A value that a far stage reads crosses every cut on the way. Gradients cross the other way.
    """
    place = {graph.start: 0} | {node: part.index for part in parts for node in part.nodes}
    place[graph.end] = len(parts) - 1
    readers: dict[tuple[str, str], list[str]] = {}
    for target in place:
        for value in _reads(graph, target):
            readers.setdefault(value, []).append(target)
    made = {node: i for i, node in enumerate(place)}
    values = sorted(readers, key=lambda value: (made[value[0]], value[1]))
    return tuple(
        tuple(
            Crossing(node, carries, later)
            for node, carries in values
            if place[node] <= cut and (later := tuple(r for r in readers[node, carries] if place[r] > cut))
        )
        for cut in range(len(parts) - 1)
    )


def shared(graph: Graph, parts: Sequence[PipelineStage]) -> dict[str, tuple[int, ...]]:
    """Nodes whose parameters several stages have → these stages, that of the owner first.

    Tied blocks and reads by their owner; the input, where the head is tied to its embedding; positions and a condition
    with parameters that several stages read; and tables of values, which are no nodes, as "value_embed=0".
    """
    place = {node: part.index for part in parts for node in part.nodes}
    out = {owner: tuple(dict.fromkeys(place[node] for node in nodes)) for owner, nodes in graph.tied().items()}
    for node in (*graph.nodes("position"), *graph.nodes("condition")):
        if has_parameters(graph, node):
            out[node] = tuple(part.index for part in parts if node in part.beside)
    for number, nodes in graph.value_readers.items():
        out[table_name(number)] = tuple(dict.fromkeys(place[node] for node in nodes))
    if graph.nx.nodes[graph.end]["tied"]:
        out[graph.start] = tuple(dict.fromkeys((0, len(parts) - 1)))
    return {node: where for node, where in out.items() if len(where) > 1}


def table_name(number: int) -> str:
    """What `shared` calls a table of `value_embed`."""
    return f"value_embed={number}"


def restaged(graph: G, parts: Sequence[PipelineStage], names: Sequence[str | None]) -> G:
    """A copy whose stages are these, under these names: its text has `|` at the cuts, and drawings show them."""
    out = graph.copy()
    out.nx.graph["stages"] = list(names)
    for part in parts:
        for node in part.nodes:
            out.nx.nodes[node]["stage"] = part.index
    return out


def balanced(loads: Sequence[int], n: int) -> list[int]:
    """Where each of `n` runs of consecutive loads ends: the largest sum is as small as can be, then the sum of squares.

    Args:
        loads: at least `n`.
    """
    sums = [0]
    for load in loads:
        sums.append(sums[-1] + load)
    low, high = max(max(loads), -(-sums[-1] // n)), sums[-1]
    while low < high:
        bound = (low + high) // 2
        low, high = (low, bound) if _fewest(loads, bound) <= n else (bound + 1, high)
    # least sum of squares of k runs up to each end, and where the last of them starts, all within the bound
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for k in range(1, n + 1):
        row: dict[int, tuple[float, int]] = {}
        for end in range(k, len(loads) - (n - k) + 1):
            start = end - 1
            while start >= k - 1 and sums[end] - sums[start] <= low:
                if start in best[-1]:
                    square = best[-1][start][0] + float(sums[end] - sums[start]) ** 2
                    if end not in row or square < row[end][0]:
                        row[end] = (square, start)
                start -= 1
        best.append(row)
    ends = [len(loads)]
    for row in reversed(best[1:]):
        ends.append(row[ends[-1]][1])
    return ends[-2::-1]


def _fewest(loads: Sequence[int], bound: int) -> int:
    """Into how many runs at least the loads fit, none above the bound."""
    runs, held = 1, 0
    for load in loads:
        runs, held = (runs, held + load) if held + load <= bound else (runs + 1, load)
    return runs


def _steps(graph: Graph) -> list[str]:
    return [node for node in graph.order() if graph.node_type(node) in STEPS]


def _written(graph: Graph) -> list[tuple[str, ...]]:
    """The steps of each of the pattern's stages."""
    units: list[list[str]] = [[] for _ in graph.stages]
    for node in _steps(graph):
        at = graph.nx.nodes[node]["stage"]
        units[at].append(node)
        for source, _ in _reads(graph, node):
            if source != graph.start and (theirs := graph.nx.nodes[source]["stage"]) > at:
                raise GraphError(f"{node} of stage {at + 1} reads {source} of stage {theirs + 1}, which comes after it")
        for base in graph.sources(node, "base"):
            inside = nx.descendants(graph.nx, base) & nx.ancestors(graph.nx, node)
            if early := [each for each in inside if graph.nx.nodes[each]["stage"] != at]:
                raise GraphError(
                    f"{node} of stage {at + 1} joins {min(early)} of an earlier stage; branches are not cut"
                )
    return [tuple(unit) for unit in units if unit]


def _units(graph: Graph) -> list[tuple[str, ...]]:
    """The steps in runs that no cut parts: each has a block, and a sum is in one with its branches."""
    steps = _steps(graph)
    at = {node: i for i, node in enumerate(steps)} | {graph.start: -1}
    within = set()  # indices of steps after which a branch is open
    for node in graph.nodes("sum"):
        for base in graph.sources(node, "base"):
            within |= {*range(at[base] + 1, at[node])}
    units: list[list[str]] = [[]]
    for i, node in enumerate(steps):
        has_block = any(graph.node_type(each) == "block" for each in units[-1])
        if has_block and i - 1 not in within and graph.node_type(node) != "sum":
            units.append([])
        units[-1].append(node)
    if len(units) > 1 and not any(graph.node_type(node) == "block" for node in units[-1]):
        last = units.pop()
        units[-1] += last
    return [tuple(unit) for unit in units]


def _with_ends(graph: Graph, units: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The units, with the input in the first and the output in the last."""
    for i, unit in enumerate(units):
        yield ((graph.start,) if i == 0 else ()) + unit + ((graph.end,) if i == len(units) - 1 else ())


def _loads(graph: Graph, seq_len: int | None) -> dict[str, int]:
    """Forward FLOPs of each node of one row; those of positions and of a condition are little, and left out."""
    tokens = seq_len or graph.nx.nodes[graph.start]["max_seq_len"] or 1024
    return {node: cost.flops for node, cost in node_costs(graph, sizes(int(tokens), 1))}


def _stage(graph: Graph, index: int, n: int, nodes: tuple[str, ...], loads: Mapping[str, int]) -> PipelineStage:
    ends = ((graph.start,) if index == 0 else ()) + ((graph.end,) if index == n - 1 else ())
    beside = dict.fromkeys(
        source
        for node in (*ends, *nodes)
        for source in graph.nx.pred[node]
        if graph.node_type(source) in ("position", "condition")
    )
    titles = dict.fromkeys(stage_title(graph, graph.nx.nodes[node]["stage"]) for node in nodes)
    return PipelineStage(
        index, nodes, tuple(beside), tuple(titles), sum(loads.get(node, 0) for node in (*ends, *nodes))
    )


def _reads(graph: Graph, node: str) -> Iterator[tuple[str, str]]:
    """The values that a step or the output reads of earlier ones: the node, and what it carries."""
    given = {"scores", "normed", *(what for kind in kinds().values() for what in kind.gives)}
    for source, attrs in graph.nx.pred[node].items():
        if graph.node_type(source) in ("input", *STEPS):
            yield from ((source, what if what in given else "stream") for what in carried(attrs))
    if graph.node_type(node) == "block" and graph.block(node)["options"]["reinject_input"]:
        yield graph.start, "injected"


def has_parameters(graph: Graph, node: str) -> bool:
    """Whether a position or a condition has some."""
    attrs = graph.nx.nodes[node]
    if attrs["type"] == "condition":
        return attrs["expansion"] is not None
    scheme = SCHEMES.get(attrs["scheme"])
    return scheme is None or bool(scheme.shapes(scheme.complete(attrs)))
