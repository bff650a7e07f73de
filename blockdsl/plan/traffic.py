"""What one rank sends in a training step, by kind of link: formulas, in bytes.

`payload` is what is handed to a collective, as a counter of torch.distributed's calls would see it. `sent` is what a
rank puts on the wire by the ring algorithms: (k - 1) / k of a gather's or a scatter's payload among k ranks, twice
that of an all-reduce's, all of a message's.

    fsdp gather, scatter    a block's parameters before its forward and before its backward pass, in what it computes
                            in, those around the blocks once, in float32, and gradients once, in float32; for each
                            micro-batch (PyTorch FSDP, arXiv:2304.11277).
                            With ranks along cp parameters are shared by these too, and the link is called fsdp×cp
    dp all-reduce           gradients of a rank's share of the parameters, once a step
    tp all-reduce           of each block that splits, its update of the stream forward and the gradient of what it
                            read backward (Megatron-LM, arXiv:1909.08053); the update again where a stage is computed
                            again, but for its last block; gradients of parameters that ranks hold alike
    pp send                 what crosses the cut after a stage, and the gradient of what crosses the one before it
    pp all-reduce           gradients of parameters that several stages have
    cp gather, scatter      keys and values of each attention, again if computed again, and their gradients
    with Muon               what the update of each matrix of blocks is made of, in float32, once a step: a gather along
                            fsdp, and along tp an all-reduce of the whole matrix
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..graph.costs import learned_tokens
from ..graph.state import kept
from ..registry.kinds import Sizes, kind_of
from ..registry.split import Split
from .local import node_cuts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph.graph import Graph
    from .stages import Crossing


class Sent(NamedTuple):
    """One kind of message on one kind of link, of one rank and one step.

    Attributes:
        link: an axis of the mesh, or fsdp×cp.
        operation: "gather", "scatter", "all-reduce" or "send".
        payload, sent: bytes, see above.
    """

    link: str
    operation: str
    payload: int
    sent: int


def among(ranks: int, link: str, operation: str, payload: float) -> list[Sent]:
    """The message of this payload among so many ranks; none among one or of nothing."""
    share = {"send": 1.0, "all-reduce": 2 * (ranks - 1) / ranks}.get(operation, (ranks - 1) / ranks)
    return [Sent(link, operation, round(payload), round(payload * share))] if ranks > 1 and payload else []


def crossing_bytes(graph: Graph, value: Crossing, sizes: Sizes, item: int, ranks: int = 1) -> int:
    """Bytes of a value that crosses a cut, of one micro-batch of these sizes; a stream is float32.

    Keys cross with the values that were attended to, and with those of the tokens alone where these are others. Of
    `ranks` along cp, which have so many tokens each, the last one has attended to those of all.
    """
    rows, tokens = sizes.batch, sizes.seq + learned_tokens(graph)
    if value.carries == "stream":
        return 4 * rows * tokens * graph.dim * graph.residual_streams
    if value.carries in ("normed", "injected"):
        return 4 * rows * tokens * graph.dim
    o = graph.completed(value.node)
    if graph.sources(value.node, "context") and not o.context:
        own = keys = sizes.context
    else:
        window = kept(graph)[value.node].window if ranks > 1 and value.node in kept(graph) else None
        before = (ranks - 1) * tokens
        own, keys = tokens, tokens + (before if window is None else min(before, window))
    if value.carries == "scores":
        return item * rows * int(o.heads * tokens * (keys + o.num_mem_kv))
    alone = own * o.value_dim_head
    if value.carries == "values":
        return rows * item * int(o.kv_heads * alone)
    if value.carries != "kv":
        return 0
    numbers = (keys + o.num_mem_kv) * (o.dim_head + o.value_dim_head) + alone * (ranks > 1 or o.num_mem_kv > 0)
    gates = 4 * o.heads * keys * getattr(o, "forget_gate", False)  # their logarithms are float32
    return rows * int(item * o.kv_heads * numbers + gates)


def attended(graph: Graph, nodes: Sequence[str], seq_len: int, ranks: int) -> dict[str, int]:
    """Block → numbers of the keys and values, of all tokens of a row, that its own attention reads, and of the last
    tokens of each rank that its token shift or convolution reads."""
    states, out = kept(graph), {}
    for node in nodes:
        if node in states:
            pieces = [piece for piece in states[node].pieces.values() if piece.per == "token"]
            shift = states[node].shift
            tails = [piece.numbers for piece in states[node].pieces.values() if piece.tail]
            tails += [] if shift is None else [shift.numbers]
            out[node] = seq_len * sum(piece.numbers for piece in pieces) + ranks * sum(tails)
    return out


def summed_alike(graph: Graph, nodes: Sequence[str], splits: Mapping[str, Split | str], ranks: int) -> int:
    """Numbers of gradients that are summed over tp: of parameters of split layers that several ranks hold alike.

    Where a piece is that of some of the ranks, all pieces are summed at once.
    """
    total = 0
    for node in nodes:
        split = splits.get(node)
        if isinstance(split, Split):
            shapes = kind_of(graph.block(node)["kind"]).shapes(graph.completed(node))
            for name, cut in node_cuts(graph, node, split, ranks).items():
                shape, alike = tuple(shapes[name]), zip(cut.parts or (1,), cut.shared or (), strict=False)
                wholes = cut.parts or (1,)
                part = sum(size for size, sharers in alike if sharers > 1)
                total += 0 if cut.once else math.prod(shape) * part // sum(wholes)
    return total
