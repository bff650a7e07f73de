"""The execution plan of a stack: its graph as a list of steps.

Each step names the nodes it reads, so a forward pass is a walk over the graph and state is keyed by node.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blockdsl.graph.state import Kept, kept, restarts
from blockdsl.registry.kinds import kinds

from ..blocks.block import Use

if TYPE_CHECKING:
    from blockdsl import BlockGraph


@dataclass(frozen=True)
class Step:
    """One node of the plan.

    Attributes:
        node: its name in the graph.
        reads: the nodes whose streams are summed.
        block: the key of its module, the owner's where blocks are tied; None: a sum.
        base: for a sum, where its branches start.
        fork: for a node inside a branch, where the branch starts; its added stream counts from there.
        inputs: those its kind declares.
        gets: the inputs that have a value here; the others are None.
        counted: for a sum, the branches whose gain is summed by their blocks; of others it is a difference.
        rotary, biases, scores_from: the nodes it reads these from.
        reads_condition: its norms or its layer scale read the condition.
        normed_from: where a pass has the stream as another block has normed it; None: the block norms it.
        keep_scores: a later block reads its scores.
        stage: its index; None after the last one.
        checkpoint: for a block, what is recomputed in the backward pass: "block", "stage" or nothing.
        carries: for a block with state of constant size, all its state; it is carried from segment to segment.
        done: nodes whose values no later step reads.
    """

    node: str
    reads: tuple[str, ...]
    block: str | None = None
    base: str | None = None
    fork: str | None = None
    use: Use = field(default_factory=Use)
    inputs: tuple[str, ...] = ()
    gets: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    rotary: str | None = None
    biases: tuple[str, ...] = ()
    scores_from: str | None = None
    reads_condition: bool = False
    normed_from: str | None = None
    keep_scores: bool = False
    stage: int | None = None
    checkpoint: str | None = None
    carries: Kept | None = None
    done: tuple[str, ...] = ()

    @property
    def self_attends(self) -> bool:
        """Whether its layer attends to the tokens themselves."""
        return "attend" in self.inputs and "context" not in self.inputs


def plan(graph: BlockGraph) -> list[Step]:
    """The graph's blocks and sums in topological order."""
    owner = {node: first for first, nodes in graph.tied().items() for node in nodes}
    forks = _forks(graph)
    scoring, norming = (
        {source for node in graph.nodes("block") for source in graph.sources(node, carries)}
        for carries in ("scores", "normed")
    )
    states = kept(graph)
    steps = [
        _step(graph, node, owner, forks, node in scoring, node in norming, states.get(node, Kept()))
        for node in graph.order()
        if graph.node_type(node) in ("block", "sum")
    ]
    ends = tuple(graph.sources(graph.end, "stream"))
    if len(ends) > 1 or not steps:
        steps.append(Step(graph.end, ends))
    return _with_lifetimes(steps, graph.start)


def _step(
    graph: BlockGraph, node: str, owner: dict[str, str], forks: dict[str, str], keep: bool, share: bool, state: Kept
) -> Step:
    attrs = graph.nx.nodes[node]
    reads = tuple(graph.sources(node, "stream"))
    if attrs["type"] == "sum":
        base = graph.sources(node, "base")
        counted = tuple(end for end in reads if base and forks.get(end) == base[0])
        start = base[0] if base else None
        return Step(node, reads, base=start, fork=forks.get(node), counted=counted, stage=attrs["stage"])
    positions, scores = graph.sources(node, "position"), graph.sources(node, "scores")
    normed = graph.sources(node, "normed")
    rotary = [position for position in positions if graph.nx.nodes[position]["scheme"] == "rotary"]
    inputs = kinds()[attrs["kind"]].inputs
    found = {"rotary": rotary, "bias": len(positions) > len(rotary), "scores": scores, "memory": False}
    return Step(
        node,
        reads,
        block=owner[node],
        fork=forks.get(node),
        use=Use(
            attrs["shift"],
            float(attrs["scale"] * attrs["options"]["branch_scale"]),
            graph.causal,
            share,
            restarts(graph, node),
        ),
        inputs=inputs,
        gets=tuple(name for name in inputs if found.get(name, True)),
        rotary=rotary[0] if rotary else None,
        biases=tuple(position for position in positions if position not in rotary),
        scores_from=scores[0] if scores else None,
        reads_condition=bool(graph.sources(node, "condition")),
        normed_from=normed_by(normed[0]) if normed else None,
        keep_scores=keep,
        stage=attrs["stage"],
        checkpoint=attrs["options"]["checkpoint"],
        carries=state if any(piece.per == "row" for piece in state.pieces.values()) else None,
    )


def normed_by(node: str) -> str:
    """The key of what a block has normed for others, beside streams by node."""
    return f"{node}.normed"


def _forks(graph: BlockGraph) -> dict[str, str]:
    """Nodes inside a branch → where the innermost branch around them starts; simple chains only.

    The gain of any other branch is its end minus the base.
    """
    out: dict[str, str] = {}
    for meet in graph.nodes("sum"):  # inner sums were added before those around them
        for base in graph.sources(meet, "base"):
            for end in graph.sources(meet, "stream"):
                branch = _simple_branch(graph, end, base)
                if all(out.get(node, base) == base for node in branch):
                    out |= dict.fromkeys(branch, base)
    return out


def _simple_branch(graph: BlockGraph, end: str, base: str) -> list[str]:
    """The nodes from `end` back to `base`; none when it is more than a chain of blocks and of sums with a base."""
    out: list[str] = []
    while end != base:
        out.append(end)
        is_sum = graph.node_type(end) == "sum"
        before = graph.sources(end, "base" if is_sum else "stream")
        if len(before) != 1:
            return []
        (end,) = before
    return out


def _with_lifetimes(steps: list[Step], start: str) -> list[Step]:
    last: dict[str, int] = {start: 0}
    for i, step in enumerate(steps):
        for node in (*step.reads, step.base, step.scores_from, step.normed_from, step.node):
            if node is not None:
                last[node] = max(last.get(node, 0), i)
    done: list[list[str]] = [[] for _ in steps]
    for node, i in last.items():
        if node != steps[-1].node:
            done[i].append(node)
    return [replace(step, done=tuple(nodes)) for step, nodes in zip(steps, done, strict=True)]
