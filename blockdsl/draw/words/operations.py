"""What a block does from the stream and back to it, one operation after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...registry.kinds import CONCAT, Kind
from ...registry.norms import Norm, norms_of
from ...registry.positions import SCHEMES

if TYPE_CHECKING:
    from ...graph.graph import Graph


class Operation(NamedTuple):
    """A few words, and what enters there beside the stream: "context", "condition", "rotary", "bias", "scores"."""

    text: str
    reads: tuple[str, ...] = ()


def rotates(graph: Graph, node: str) -> bool:
    """Whether a block reads a rotation of its queries and keys."""
    return any(read_by(graph, source) == "rotary" for source in graph.sources(node, "position"))


def steps(kind: Kind, o: Any, shift: int = 0, scale: float = 1, rotated: bool = True) -> list[Operation]:
    """The operations of a block by its completed options, but for the add and for what is done to the sum."""
    of_stream, of_output, _ = norms_of(vars(o))
    inside = [(kind.title, " ".join(kind.inputs))] if kind.steps is None else kind.steps(o)
    out = [Operation("beside an earlier stream", (CONCAT,))] if o.dim_in != o.dim else []
    out += [_normed(of_stream)] if of_stream is not None and o.pre_norm else []
    out += [Operation("the first branch's norm")] if o.shared_norm else []
    out += [Operation(f"token shift by {shift}")] if shift else []
    out += [Operation(text, tuple(reads.split())) for text, reads in inside if reads != "rotary" or rotated]
    out += [] if of_output is None else [_normed(of_output)]
    out += [] if o.layer_scale is None else [Operation(f"× a learned gain, at first {o.layer_scale:g}")]
    out += [Operation("× σ(W·condition + b)", ("condition",))] if o.use_adaptive_layerscale else []
    out += [Operation(f"stochastic depth {o.layer_dropout:g}")] if o.layer_dropout else []
    out += [Operation(f"× {scale * o.branch_scale:.3g}")] if scale * o.branch_scale != 1 else []
    out += [Operation("− its part along the stream")] if o.orthog_residual else []
    out += [Operation("stream × a learned gain")] if o.scale_residual else []
    factor = o.scale_residual_constant
    out += [Operation(f"stream × {factor:.3g}")] if factor not in (0, 1) else []
    return out


def _normed(norm: Norm) -> Operation:
    return Operation(norm.in_words(eps=True), ("condition",) if norm.adaptive else ())


def adds(graph: Graph, node: str) -> bool:
    """Whether a block adds its update to the stream, and does nothing else to it."""
    o = graph.nx.nodes[node]["options"]
    if post_norm(o) is not None:
        return False
    return o["pre_norm"] and not o["scale_residual"] and o["scale_residual_constant"] == 1 and sign_of(o) == "+"


def gated(graph: Graph, node: str) -> bool:
    """Whether a GRU cell stands where others add."""
    return bool(graph.nx.nodes[node]["options"].get("gate_residual"))


def sign_of(options: Any) -> str:
    """How a block's update meets the stream: the sign of `svg` for it; empty: it takes its place."""
    if options.get("scale_residual_constant") == 0:
        return ""
    return "⋈" if options.get("gate_residual") else "≡" if options.get("num_residual_streams", 1) > 1 else "+"


def post_norm(options: Any) -> Norm | None:
    """The norm of the sum, of a post-norm block and of one with both."""
    of_stream, _, of_sum = norms_of(options)
    return of_sum if options["pre_norm"] else of_stream


def read_by(graph: Graph, position: str) -> str:
    """By which input a block reads a position."""
    scheme = graph.nx.nodes[position]["scheme"]
    return SCHEMES[scheme].read_by if scheme in SCHEMES else ""
