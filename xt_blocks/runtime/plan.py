"""The execution plan of a stack: its graph as a list of steps.

Each step names the nodes it reads, so a forward pass is a walk over the graph and state is keyed by node.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        block: the key of its module, the owner's where blocks are tied; None: a sum or a read.
        join: for a read, the key of its module.
        earlier: for a read, the nodes whose streams join that of `reads`.
        base: for a sum, where its branches start.
        fork: for a node inside a branch, where the branch starts; its added stream counts from there.
        inputs: those its kind declares.
        gets: the inputs that a pass has a value of; those neither here nor in `takes` are None.
        counted: for a sum, the branches whose gain is summed by their blocks; of others it is a difference.
        rotary, biases: the nodes it reads these from.
        takes: inputs that come from earlier nodes → where a pass has them.
        sums: those of them that are a sum of several residual streams.
        value_embed: the number of the table of value embeddings that it reads.
        own_context: where segment memories keep its context, if that is the stream at an earlier node.
        keep_scores: a later block reads its scores.
        gives: what else later blocks read of it beside its stream.
        injected: where a pass has what is added to the stream as its branch reads it.
        reads_condition: its norms or its layer scale read the condition.
        normed_from: where a pass has the stream as another block has normed it; None: the block norms it.
        stage: its index; None after the last one.
        checkpoint: for a block, what is recomputed in the backward pass: "block", "stage" or nothing.
        carries: for a block with state of constant size, all its state; it is carried from segment to segment.
        done: nodes whose values no later step reads.
    """

    node: str
    reads: tuple[str, ...]
    block: str | None = None
    join: str | None = None
    earlier: tuple[str, ...] = ()
    base: str | None = None
    fork: str | None = None
    use: Use = field(default_factory=Use)
    inputs: tuple[str, ...] = ()
    gets: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    rotary: str | None = None
    biases: tuple[str, ...] = ()
    takes: Mapping[str, str] = field(default_factory=dict)
    sums: tuple[str, ...] = ()
    value_embed: int | None = None
    own_context: str | None = None
    keep_scores: bool = False
    gives: tuple[str, ...] = ()
    injected: str | None = None
    reads_condition: bool = False
    normed_from: str | None = None
    stage: int | None = None
    checkpoint: str | None = None
    carries: Kept | None = None
    done: tuple[str, ...] = ()

    @property
    def self_attends(self) -> bool:
        """Whether its layer attends to the tokens themselves."""
        return "attend" in self.inputs and "context" not in self.inputs


def plan(graph: BlockGraph) -> list[Step]:
    """The graph's blocks, sums and reads in topological order."""
    owner = {node: first for first, nodes in graph.tied().items() for node in nodes}
    forks, states = _forks(graph), kept(graph)
    taken = {node: _taken(graph, node) for node in graph.nodes("block")}
    gives: dict[str, dict[str, None]] = {}
    for source, what in (place for places in taken.values() for place in places.values()):
        gives.setdefault(source, {})[what] = None
    norming = {source for node in taken for source in graph.sources(node, "normed")}
    steps = []
    for node in graph.order():
        step = Step(node, tuple(graph.sources(node, "stream")), fork=forks.get(node))
        if graph.node_type(node) == "sum":
            steps.append(_sum(step, graph, forks))
        elif graph.node_type(node) == "read":
            steps.append(_read(step, graph, owner[node]))
        elif graph.node_type(node) == "block":
            given = gives.get(node, {})
            further = tuple(what for what in given if what not in ("", "scores"))
            step = replace(step, block=owner[node], keep_scores="scores" in given, gives=further)
            steps.append(_block(step, graph, taken[node], node in norming, states.get(node, Kept())))
    ends = tuple(graph.sources(graph.end, "stream"))
    if len(ends) > 1 or not steps:
        steps.append(Step(graph.end, ends))
    return _with_lifetimes(steps, graph.start)


def _sum(step: Step, graph: BlockGraph, forks: Mapping[str, str]) -> Step:
    base = next(iter(graph.sources(step.node, "base")), None)
    counted = tuple(end for end in step.reads if base is not None and forks.get(end) == base)
    return replace(step, base=base, counted=counted, stage=graph.nx.nodes[step.node]["stage"])


def _read(step: Step, graph: BlockGraph, owner: str) -> Step:
    attrs, earlier = graph.nx.nodes[step.node], tuple(graph.sources(step.node, "read"))
    return replace(step, join=owner, earlier=earlier, use=Use(scale=float(attrs["scale"])), stage=attrs["stage"])


def _block(step: Step, graph: BlockGraph, taken: Mapping[str, tuple[str, str]], shares_norm: bool, state: Kept) -> Step:
    attrs, (kind, pieces) = graph.block(step.node), graph.state(step.node)
    positions, normed = graph.sources(step.node, "position"), graph.sources(step.node, "normed")
    rotary = [position for position in positions if graph.nx.nodes[position]["scheme"] == "rotary"]
    per_token = [piece for piece in (pieces or {}).values() if piece.per == "token"]
    reads_all = bool(per_token) and all(piece.of for piece in per_token)  # and needs no earlier tokens of its own
    unused = {"memory": reads_all, "value_embed": attrs["options"].get("value_embed") is None}
    inputs = tuple(name for name in kind.inputs if not unused.get(name))
    inputs += tuple(name for name in taken if name not in inputs)
    inputs += ("use",) if kind.by_use(attrs["options"]) else ()
    found = {
        "rotary": rotary,
        "context_rotary": rotary,
        "bias": len(positions) > len(rotary),
        "scores": False,
        "memory": False,
    }
    scale = float(attrs["scale"] * attrs["options"]["branch_scale"])
    return replace(
        step,
        use=Use(
            attrs["shift"],
            scale,
            graph.causal,
            shares_norm,
            graph.uses(step.node).index(step.node),
            restarts(graph, step.node),
        ),
        inputs=inputs,
        gets=tuple(name for name in inputs if name not in taken and found.get(name, True)),
        rotary=rotary[0] if rotary else None,
        biases=tuple(position for position in positions if position not in rotary),
        takes={name: given_by(source, what) if what else source for name, (source, what) in taken.items()},
        sums=tuple(name for name, (_, what) in taken.items() if not what and graph.residual_streams > 1),
        value_embed=attrs["options"]["value_embed"] if "value_embed" in inputs else None,
        own_context=given_by(taken["context"][0], "stream") if "context" in taken else None,
        injected=given_by(graph.start, "injected") if attrs["options"]["reinject_input"] else None,
        reads_condition=bool(graph.sources(step.node, "condition")),
        normed_from=given_by(normed[0], "normed") if normed else None,
        stage=attrs["stage"],
        checkpoint=attrs["options"]["checkpoint"],
        carries=state if any(piece.per == "row" for piece in state.pieces.values()) else None,
    )


def _taken(graph: BlockGraph, node: str) -> dict[str, tuple[str, str]]:
    """A block's inputs that come from earlier nodes → the node, and what it gives; empty: its stream."""
    attrs, known = graph.block(node), kinds()
    kind, given = known[attrs["kind"]], {what for each in known.values() for what in each.gives}
    named = {option.reads: option.name for option in kind.options if option.reads and attrs["options"][option.name]}
    if "scores" in kind.inputs:
        named["scores"] = "scores"
    return {
        name: (source, what if what in given else "")
        for what, name in named.items()
        for source in graph.sources(node, what)
    }


def given_by(node: str, what: str) -> str:
    """The key, beside streams by node, of what a block has made for others."""
    return f"{node}.{what}"


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
        for node in (
            *step.reads,
            *step.earlier,
            step.base,
            *step.takes.values(),
            step.injected,
            step.normed_from,
            step.node,
        ):
            if node is not None:
                last[node] = max(last.get(node, 0), i)
    done: list[list[str]] = [[] for _ in steps]
    for node, i in last.items():
        if node != steps[-1].node:
            done[i].append(node)
    return [replace(step, done=tuple(nodes)) for step, nodes in zip(steps, done, strict=True)]
