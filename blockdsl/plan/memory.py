"""What a stage keeps while it trains: parameters exactly, and the numbers that its forward pass saves. No torch.

Owns counting, in numbers; bytes by precision and the shares of ranks are in `ranks`.

What is saved follows from each kind's `saved`, its norms, and the streams that norms read. It was held against what
torch saves on a CPU; the tests say how close it is, by kind. Left out, and small beside it: rotations, masks, what
token shifts, layer scales, gates of the residual, several residual streams and dropout of whole branches save.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..graph.costs import node_costs
from ..registry.kinds import Sizes, kind_of
from ..registry.norms import final_norm, norms_of

if TYPE_CHECKING:
    from ..graph.graph import Graph
    from .stages import PipelineStage

Checkpointing = Literal["none", "block", "stage"]
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "block", "stage")
"""What the backward pass computes again: nothing, each block, or each of the pattern's stages."""


@dataclass(frozen=True)
class Saved:
    """Numbers that the backward pass of a stage needs of one micro-batch.

    Attributes:
        held: saved by the forward pass, until the backward pass.
        working: at most held at once, beside these, by a part that is computed again.
        unknown: titles of kinds that do not say what they save; nothing of theirs is counted.
    """

    held: int
    working: int
    unknown: tuple[str, ...]


def parameters(graph: Graph, part: PipelineStage, last: bool) -> int:
    """Of one stage, with its own copy of what other stages have too, as a tied embedding."""
    counts = {node: cost.parameters for node, cost in node_costs(graph, Sizes(1, 1, 1))}
    owner = {node: first for first, nodes in graph.tied().items() for node in nodes}
    own = dict.fromkeys(owner.get(node, node) for node in part.nodes)
    ends = [*([graph.start] if part.index == 0 else []), *([graph.end] if last else [])]
    total = sum(counts.get(node, 0) for node in (*own, *part.beside, *ends))
    if last and part.index > 0 and graph.nx.nodes[graph.end]["tied"]:
        total += graph.nx.nodes[graph.start]["num_tokens"] * graph.emb_dim
    return total


def saved(
    graph: Graph, part: PipelineStage, last: bool, sizes: Sizes, checkpointing: Checkpointing, logits: bool = False
) -> Saved:
    """What one micro-batch of these sizes keeps in a stage.

    Args:
        logits: the loss holds all logits, and not by parts, as `xt_blocks` computes it where there are many.
    """
    start = graph.nx.nodes[graph.start]
    beside = start["num_memory_tokens"] + start["num_register_tokens"] + start["class_token"]
    sizes = sizes._replace(seq=sizes.seq + beside)
    tokens, streams = sizes.batch * sizes.seq, graph.residual_streams
    own = {node: _of_block(graph, node, sizes) for node in part.nodes if graph.node_type(node) == "block"}
    unknown = tuple(dict.fromkeys(title for _, title in own.values() if title))
    numbers = {node: count for node, (count, _) in own.items()}
    read = _streams_of(graph, part.nodes) if checkpointing == "none" else _inputs_of(graph, part.nodes, checkpointing)
    held = len(read) * tokens * graph.dim * streams
    if any(graph.node_type(source) == "context" for node in part.nodes for source in graph.sources(node, "context")):
        held += sizes.batch * sizes.context * graph.dim_context
    working = 0
    if checkpointing == "none":
        held += sum(numbers.values())
    elif checkpointing == "block":
        working = max(numbers.values(), default=0) + tokens * graph.dim * streams
    else:
        by_stage = [[n for n in part.nodes if _stage_of(graph, n) == at] for at in _stages_of(graph, part.nodes)]
        working = max(
            sum(numbers.get(n, 0) for n in nodes) + len(_streams_of(graph, nodes)) * tokens * graph.dim * streams
            for nodes in by_stage
        )
    return Saved(round(held + (_of_head(graph, sizes, logits) if last else 0)), round(working), unknown)


def _of_block(graph: Graph, node: str, sizes: Sizes) -> tuple[float, str]:
    """Numbers that a block saves but for the stream that it reads; or the title of its kind, which does not say."""
    attrs = graph.block(node)
    kind = kind_of(attrs["kind"])
    options = kind.completed(graph.dim, attrs["options"])
    positions = [graph.nx.nodes[source]["scheme"] for source in graph.sources(node, "position")]
    inputs = {"rotary" for scheme in positions if scheme == "rotary"} | {"bias" for s in positions if s != "rotary"}
    norms = norms_of(vars(options))
    tokens = sizes.batch * sizes.seq
    # a norm's statistics; those after the layer save their input too, which nothing else does
    around = sum(2 if "layernorm" in norm.name else 1 for norm in norms if norm is not None) * tokens
    around += sum(tokens * graph.dim for norm in (norms.output, norms.sum) if norm is not None)
    if kind.saved is None:
        return around, kind.title
    return around + kind.saved(options, sizes, inputs), ""


def _of_head(graph: Graph, sizes: Sizes, logits: bool) -> float:
    """The final norm's input and result, and what the loss reads of the logits."""
    attrs: dict[str, Any] = graph.nx.nodes[graph.end]
    tokens, norm = sizes.batch * sizes.seq, final_norm(attrs)
    kept = 0 if norm is None else tokens * (graph.dim + (2 if "layernorm" in norm.name else 1))
    if attrs["logits_dim"] is not None:
        kept += tokens * (graph.dim + (attrs["logits_dim"] if logits else 0))
    return kept


def _streams_of(graph: Graph, nodes: Iterable[str]) -> set[str]:
    """The nodes whose streams these blocks' norms read, each saved once however many read it."""
    read = set()
    for node in nodes:
        if graph.node_type(node) == "block" and norms_of(graph.block(node)["options"]).stream is not None:
            read |= {*graph.sources(node, "stream")}
    return read


def _inputs_of(graph: Graph, nodes: Sequence[str], checkpointing: Checkpointing) -> set[str]:
    """The nodes whose streams are kept to compute from: those that a recomputed part reads and has not made."""
    if checkpointing == "block":
        return {source for node in nodes for source in (*graph.sources(node, "stream"), *graph.sources(node, "read"))}
    return {
        source
        for node in nodes
        for source in (*graph.sources(node, "stream"), *graph.sources(node, "base"), *graph.sources(node, "read"))
        if source == graph.start or _stage_of(graph, source) != _stage_of(graph, node)
    }


def _stage_of(graph: Graph, node: str) -> int:
    stage: int = graph.nx.nodes[node]["stage"]
    return stage


def _stages_of(graph: Graph, nodes: Iterable[str]) -> list[int]:
    return list(dict.fromkeys(_stage_of(graph, node) for node in nodes))
