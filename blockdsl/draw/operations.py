"""What a block does from the stream and back to it, one operation after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..registry.kinds import CONCAT, kind_of
from ..registry.norms import Norm, norms_of
from ..registry.positions import SCHEMES

if TYPE_CHECKING:
    from ..graph.graph import Graph


class Operation(NamedTuple):
    """A few words, and what enters there beside the stream: "context", "condition", "rotary", "bias", "scores"."""

    text: str
    reads: tuple[str, ...] = ()


def operations(graph: Graph, node: str) -> list[Operation]:
    """Those of a block, but for the add and for what is done to the sum."""
    attrs = graph.nx.nodes[node]
    kind = kind_of(attrs["kind"])
    options = graph.completed(node)
    of_stream, of_output, _ = norms_of(attrs["options"])
    rotated = any(read_by(graph, source) == "rotary" for source in graph.sources(node, "position"))
    inside = [(kind.title, " ".join(kind.inputs))] if kind.steps is None else kind.steps(options)
    steps = [Operation(text, tuple(reads.split())) for text, reads in inside if reads != "rotary" or rotated]
    out = [Operation("beside an earlier stream", (CONCAT,))] if options.dim_in != options.dim else []
    out += [_normed(of_stream)] if of_stream is not None and options.pre_norm else []
    out += [Operation("the first branch's norm")] if options.shared_norm else []
    out += [Operation(f"token shift by {attrs['shift']}")] if attrs["shift"] else []
    out += steps
    out += [] if of_output is None else [_normed(of_output)]
    out += [] if options.layer_scale is None else [Operation("× a learned gain")]
    out += [Operation("× σ(W·condition + b)", ("condition",))] if options.use_adaptive_layerscale else []
    out += [Operation(f"stochastic depth {options.layer_dropout:g}")] if options.layer_dropout else []
    scale = attrs["scale"] * options.branch_scale
    out += [Operation(f"× {scale:.3g}")] if scale != 1 else []
    out += [Operation("− its part along the stream")] if options.orthog_residual else []
    out += [Operation("stream × a learned gain")] if options.scale_residual else []
    factor = options.scale_residual_constant
    out += [Operation(f"stream × {factor:.3g}")] if factor not in (0, 1) else []
    return out


def _normed(norm: Norm) -> Operation:
    return Operation(norm.in_words(), ("condition",) if norm.adaptive else ())


def adds(graph: Graph, node: str) -> bool:
    """Whether a block adds its update to the stream, and does nothing else to it."""
    o = graph.nx.nodes[node]["options"]
    if post_norm(graph, node):
        return False
    plain = o["pre_norm"] and not o["scale_residual"] and o["scale_residual_constant"] == 1
    return plain and not gated(graph, node) and not mixes(graph, node)


def replaces(graph: Graph, node: str) -> bool:
    """Whether a block's update takes the stream's place."""
    return graph.nx.nodes[node]["options"].get("scale_residual_constant") == 0


def gated(graph: Graph, node: str) -> bool:
    """Whether a GRU cell stands where others add."""
    return bool(graph.nx.nodes[node]["options"].get("gate_residual"))


def mixes(graph: Graph, node: str) -> bool:
    """Whether it mixes several residual streams."""
    return graph.nx.nodes[node]["options"].get("num_residual_streams", 1) > 1


def post_norm(graph: Graph, node: str) -> str:
    """The norm of the sum, of a post-norm block and of one with both; else nothing."""
    options = graph.nx.nodes[node]["options"]
    of_stream, _, of_sum = norms_of(options)
    norm = of_sum if options["pre_norm"] else of_stream
    return "" if norm is None else norm.in_words()


def read_by(graph: Graph, position: str) -> str:
    """By which input a block reads a position."""
    scheme = graph.nx.nodes[position]["scheme"]
    return SCHEMES[scheme].read_by if scheme in SCHEMES else ""
