"""What the forward pass of a stage saves for its backward pass. No torch.

Owns counting, in numbers of one row; bytes, micro-batches and the shares of ranks are `plan`'s.

What is saved follows from each kind's `saved`, its norms, and the streams that norms read. It was held against what
torch saves; the tests say how close it is, by option. Left out, and small beside it: rotations, masks, and what is
saved once a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..graph.costs import learned_tokens, row_length
from ..graph.nodes import carried
from ..registry.kinds import Sizes, kind_of
from ..registry.norms import norms_of, widths
from ..registry.reads import JOINS
from ..registry.residual_streams import mixing_saved
from .around import beside_saved, entering_saved, head_saved, leaving_saved
from .stages import stages

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

    def beside(self, other: Activations) -> Activations:
        """Those of two parts that are kept at once, of which one at a time is computed again."""
        working = max(self, other, key=lambda each: each.working_streams + each.working)
        return Activations(
            self.streams + other.streams,
            self.held + other.held,
            working.working_streams,
            working.working,
            tuple(dict.fromkeys(self.unknown + other.unknown)),
        )

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
        self.graph, self.tokens = graph, tokens
        encoder = graph.encoder
        self.sizes = Sizes(
            1, tokens + learned_tokens(graph), context if encoder is None else row_length(encoder, context)
        )
        self.encoder = None if encoder is None else StageMemory(encoder, self.sizes.context, 0)
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
        streams, inside = held[0] * self.stream, held[1] + beside_saved(graph, part.beside, self.tokens)
        if any(graph.node_type(source) == "context" for node in nodes for source in graph.sources(node, "context")):
            streams += self.sizes.context * graph.dim_context
        if part.index == 0:
            streams += entering_saved(graph, self.tokens)
        if last:
            streams += leaving_saved(graph, self.sizes.seq)
            inside += head_saved(graph, self.sizes.seq, logits)
        own = Activations(streams, round(inside), working[0] * self.stream, round(working[1]), unknown)
        return own if self.encoder is None else own.beside(self.encoder.whole(checkpointing))

    def whole(self, checkpointing: Checkpointing, logits: bool = False) -> Activations:
        """The same of all blocks, as one stage."""
        return self.saved(stages(self.graph, 1)[0], True, checkpointing, logits)

    def _within(self, nodes: Sequence[str]) -> tuple[int, float]:
        """Of steps that are not computed again: how many streams norms and reads save, and numbers beside these."""
        streams, inside = set(), 0.0
        for node in nodes:
            if node in self.blocks:
                keeps: tuple[str, ...] = (
                    ("stream",) if norms_of(self.graph.block(node)["options"]).stream is not None else ()
                )
                inside += self.blocks[node][0]
            elif self.graph.node_type(node) == "read":
                join, values = JOINS[self.graph.nx.nodes[node]["join"]], len(self.graph.sources(node, "read"))
                keeps = join.keeps
                inside += self.sizes.seq * self.graph.residual_streams * join.saved(self.graph.dim, values)
            else:
                continue
            streams |= {source for what in keeps for source in self.graph.sources(node, what)}
        return len(streams), inside

    def _of_block(self, node: str, known: dict[Any, tuple[float, str]]) -> tuple[float, str]:
        """Numbers that a block saves beside the stream that it reads; and its kind's title if that does not say."""
        graph, attrs = self.graph, self.graph.block(node)
        given = {what for _, _, edge in graph.nx.out_edges(node, data=True) for what in carried(edge)} & {"scores"}
        inputs = given | {what for what in ("scores", "normed") if graph.sources(node, what)}
        schemes = {graph.nx.nodes[source]["scheme"] for source in graph.sources(node, "position")}
        inputs |= {"rotary" if scheme == "rotary" else "bias" for scheme in schemes}
        key = (attrs["kind"], *attrs["options"].items(), *sorted(inputs))
        if key not in known:
            kind, options = kind_of(attrs["kind"]), graph.completed(node)
            norms = norms_of(vars(options))
            # a norm's own; those after the layer save their input too, which nothing else does
            around = sum(norm.saved(width) for norm, width in zip(norms, widths(options), strict=True) if norm)
            around += sum(graph.dim for norm in (norms.output, norms.sum) if norm is not None)
            around += options.dim_in - graph.dim  # what it reads beside the stream, concatenated
            around += mixing_saved(options) - graph.dim * ("normed" in inputs)  # which the other block saves
            around += sum(
                o.saved(options) for o in kind.all_options() if o.saved and vars(options)[o.name] != o.default
            )
            own = 0.0 if kind.saved is None else kind.saved(options, self.sizes, inputs)
            known[key] = around * self.sizes.seq + own, kind.title if kind.saved is None else ""
        return known[key]


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
