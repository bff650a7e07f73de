"""What the forward pass of a stage saves for its backward pass. No torch.

Owns counting, in numbers of one row; bytes, micro-batches and the shares of ranks are `plan`'s.

What is saved follows from each kind's `saved`, its norms, and the streams that norms read. It was held against what
torch saves on a CPU; the tests say how close it is, by kind. Left out, and small beside it: rotations, masks, what
token shifts, several residual streams and dropout of whole branches save.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..registry.kinds import Sizes, kind_of
from ..registry.norms import final_norm, norms_of

if TYPE_CHECKING:
    from ..graph.graph import Graph
    from .stages import PipelineStage

Checkpointing = Literal["none", "block", "stage"]
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "block", "stage")
"""What the backward pass computes again: nothing, each block, or each of the pattern's stages."""


@dataclass(frozen=True)
class Activations:
    """Numbers that the backward pass of a stage needs of one row.

    Attributes:
        streams: of streams, saved by the forward pass until the backward pass.
        held: the same of all else.
        working_streams, working: at most held at once, beside these, by a part that is computed again.
        unknown: titles of kinds that do not say what they save; nothing of theirs is counted.
    """

    streams: int
    held: int
    working_streams: int
    working: int
    unknown: tuple[str, ...]

    def bytes(self, in_flight: float, stream: int, item: int) -> float:
        """Of so many rows at once, where a number of a stream has `stream` bytes, and one within blocks `item`."""
        held = stream * self.streams + item * self.held
        return in_flight * held + stream * self.working_streams + item * self.working


class StageMemory:
    """What the stages of one graph keep, per row of so many tokens.

    Args:
        graph: the whole model's, or one rank's share of it under tp.
        tokens: of a row, on one rank.
        context: tokens of the context.
    """

    def __init__(self, graph: Graph, tokens: int, context: int) -> None:
        self.graph = graph
        start = graph.nx.nodes[graph.start]
        beside = start["num_memory_tokens"] + start["num_register_tokens"] + start["class_token"]
        self.sizes = Sizes(1, tokens + beside, context)
        self.stream = self.sizes.seq * graph.dim * graph.residual_streams
        known: dict[Any, tuple[float, str]] = {}  # blocks that are alike save alike
        self.blocks = {node: self._of_block(node, known) for node in graph.nodes("block")}

    def saved(self, part: PipelineStage, last: bool, checkpointing: Checkpointing, logits: bool = False) -> Activations:
        """What a row keeps in a stage.

        Args:
            last: it has the head.
            logits: the loss holds all logits, and not by parts, as `xt_blocks` computes it where there are many.
        """
        graph, nodes = self.graph, part.nodes
        unknown = tuple(dict.fromkeys(title for node in nodes if (title := self.blocks.get(node, (0, ""))[1])))
        held, working = self._within(nodes), (0, 0.0)
        if checkpointing == "block":
            working = max((self._within([node]) for node in nodes), key=sum, default=(0, 0.0))
        elif checkpointing == "stage":
            by_stage = ([node for node in nodes if _stage_of(graph, node) == at] for at in _all_of(graph, nodes))
            working = max(map(self._within, by_stage), key=sum)
        if checkpointing != "none":
            held = len(_inputs_of(graph, nodes, by_block=checkpointing == "block")), 0.0
        streams, inside = held[0] * self.stream, held[1]
        if any(graph.node_type(source) == "context" for node in nodes for source in graph.sources(node, "context")):
            streams += self.sizes.context * graph.dim_context
        if last:
            streams, inside = streams + self._of_norm(), inside + self._of_logits(logits)
        return Activations(streams, round(inside), working[0] * self.stream, round(working[1]), unknown)

    def _within(self, nodes: Sequence[str]) -> tuple[int, float]:
        """Of steps that are not computed again: how many streams their norms read, and what their modules save."""
        read = set()
        for node in nodes:
            if node in self.blocks and norms_of(self.graph.block(node)["options"]).stream is not None:
                read |= {*self.graph.sources(node, "stream")}
        return len(read), sum(self.blocks[node][0] for node in nodes if node in self.blocks)

    def _of_block(self, node: str, known: dict[Any, tuple[float, str]]) -> tuple[float, str]:
        """Numbers that a block saves beside the stream that it reads; and its kind's title if that does not say."""
        attrs = self.graph.block(node)
        positions = {self.graph.nx.nodes[source]["scheme"] for source in self.graph.sources(node, "position")}
        key = (attrs["kind"], *attrs["options"].items(), *sorted(positions))
        if key not in known:
            kind = kind_of(attrs["kind"])
            options = self.graph.completed(node)
            inputs = {"rotary" if scheme == "rotary" else "bias" for scheme in positions}
            norms = norms_of(vars(options))
            # a norm's statistics; those after the layer save their input too, which nothing else does
            around = sum(2 if "layernorm" in norm.name else 1 for norm in norms if norm is not None)
            around += sum(self.graph.dim for norm in (norms.output, norms.sum) if norm is not None)
            around += options.dim_in - self.graph.dim  # what it reads beside the stream, concatenated
            around += self.graph.dim * _further_streams(attrs["options"])
            own = 0.0 if kind.saved is None else kind.saved(options, self.sizes, inputs)
            known[key] = around * self.sizes.seq + own, kind.title if kind.saved is None else ""
        return known[key]

    def _of_norm(self) -> int:
        """The final norm's input and statistics."""
        norm = final_norm(self.graph.nx.nodes[self.graph.end])
        return 0 if norm is None else self.sizes.seq * (self.graph.dim + (2 if "layernorm" in norm.name else 1))

    def _of_logits(self, logits: bool) -> int:
        """What the head reads, and what the loss reads of the logits."""
        count = self.graph.nx.nodes[self.graph.end]["logits_dim"]
        return 0 if count is None else self.sizes.seq * (self.graph.dim + (int(count) if logits else 0))


def _further_streams(options: Mapping[str, Any]) -> int:
    """Numbers that a block saves for each of the stream beside its layer: of what scales, gates or drops its output."""
    scaled = options.get("layer_scale") is not None or options.get("use_adaptive_layerscale")
    adaptive = options.get("use_adaptive_layernorm") or options.get("use_adaptive_rmsnorm")
    dropped, gated = options.get("sublayer_dropout", 0) > 0, options.get("gate_residual")
    return bool(scaled) + bool(adaptive) + bool(dropped) + 7 * bool(gated)


def _inputs_of(graph: Graph, nodes: Sequence[str], by_block: bool) -> set[str]:
    """The nodes whose streams are kept to compute from: what a part that is computed again reads and has not made."""
    return {
        source
        for node in nodes
        for carries in ("stream", "base", "read")
        for source in graph.sources(node, carries)
        if by_block or source == graph.start or _stage_of(graph, source) != _stage_of(graph, node)
    }


def _stage_of(graph: Graph, node: str) -> int:
    stage: int = graph.nx.nodes[node]["stage"]
    return stage


def _all_of(graph: Graph, nodes: Iterable[str]) -> list[int]:
    return list(dict.fromkeys(_stage_of(graph, node) for node in nodes))
