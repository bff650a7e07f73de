"""What a graph costs: parameters, FLOPs, cache bytes. No torch.

Each kind's formulas are declared with it (`kinds`); here they are summed over nodes. A test holds the counts
against the lowered module and against torch.utils.flop_counter.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..registry.kinds import Shape, Sizes, kind_of, norm_of
from ..registry.positions import SCHEMES
from ..registry.state import item_bytes
from .state import Kept, kept

if TYPE_CHECKING:
    from .graph import Graph


@dataclass(frozen=True)
class Cost:
    """Of one node, or a sum of them, in one call of the given sizes.

    Attributes:
        cached: numbers of the model's dtype that decoding keeps.
        cached_bytes: what it keeps in dtypes that a kind's state fixes.
    """

    blocks: int = 0
    parameters: int = 0
    flops: int = 0
    cached: int = 0
    cached_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.blocks + other.blocks,
            self.parameters + other.parameters,
            self.flops + other.flops,
            self.cached + other.cached,
            self.cached_bytes + other.cached_bytes,
        )

    def cache_bytes(self, item: int) -> int:
        """All that decoding keeps, where a number of the model's dtype has `item` bytes."""
        return self.cached * item + self.cached_bytes


def node_costs(graph: Graph, sizes: Sizes) -> Iterator[tuple[str, Cost]]:
    """Each node with its cost; a tied block's parameters are its owner's."""
    owners, states = graph.tied(), kept(graph)
    start = graph.nx.nodes[graph.start]
    stream = sizes._replace(seq=sizes.seq + start["num_memory_tokens"])
    for node, attrs in graph.nx.nodes(data=True):
        node_type = attrs["type"]
        if node_type == "block":
            yield node, _block(graph.dim, attrs, stream, node in owners, states.get(node, Kept()))
        elif node_type == "input" and attrs["num_tokens"] is not None:
            yield node, _embedding(graph.dim, graph.emb_dim, attrs, sizes)
        elif node_type == "position" and attrs["scheme"] == "absolute":
            yield node, Cost(parameters=start["max_seq_len"] * graph.emb_dim)
        elif node_type == "position" and attrs["scheme"] == "sinusoidal":
            yield node, Cost(parameters=1)
        elif node_type == "position":
            scheme = SCHEMES[attrs["scheme"]]
            own = scheme.complete(attrs)
            yield node, Cost(parameters=_numbers(scheme.shapes(own)), flops=scheme.flops(own, stream))
        elif node_type == "output":
            yield node, _output(graph.dim, attrs, sizes)


def _block(dim: int, attrs: dict[str, Any], sizes: Sizes, owns: bool, state: Kept) -> Cost:
    kind = kind_of(attrs["kind"])
    options = kind.completed(dim, attrs["options"])
    parameters = _around(dim, options) + _numbers(kind.shapes(options)) if owns else 0
    gate = 2 * sizes.batch * sizes.seq * 2 * (3 * dim * dim) if options.gate_residual else 0  # a GRU cell: two maps
    return Cost(1, parameters, round(kind.flops(options, sizes)) + gate, *state.cached(sizes))


def _around(dim: int, options: Any) -> int:
    """Parameters of a block that are not its module's: norms, the residual's gain, the gate's two maps."""
    norms = (2 if options.sandwich_norm else 1) * _norm(norm_of(vars(options)), dim)
    gain = dim if options.scale_residual else 0
    gate = 2 * (3 * dim * dim + 3 * dim) if options.gate_residual else 0
    return norms + gain + gate


def _norm(name: str | None, dim: int) -> int:
    """Parameters of a norm: one gain, one each feature, or a gain and a bias each feature."""
    return {None: 0, "scalenorm": 1, "rmsnorm": dim, "layernorm": 2 * dim}[name]


def _numbers(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _embedding(dim: int, emb_dim: int, attrs: dict[str, Any], sizes: Sizes) -> Cost:
    parameters = attrs["num_tokens"] * emb_dim + attrs["num_memory_tokens"] * dim
    if attrs["post_emb_norm"]:
        parameters += _norm("layernorm", emb_dim)
    if emb_dim == dim:
        return Cost(parameters=parameters)
    return Cost(parameters=parameters + (emb_dim + 1) * dim, flops=2 * sizes.batch * sizes.seq * emb_dim * dim)


def _output(dim: int, attrs: dict[str, Any], sizes: Sizes) -> Cost:
    parameters = _norm(attrs["norm"], dim)
    width = attrs["logits_dim"]
    if width is None:
        return Cost(parameters=parameters)
    logits = 0 if attrs["tied"] else (dim + 1) * width
    return Cost(parameters=parameters + logits, flops=2 * sizes.batch * sizes.seq * dim * width)


def sizes(seq_len: int, batch: int, context_len: int | None = None) -> Sizes:
    """The sizes of a call, checked; a context is as long as a row unless its length is given."""
    context_len = seq_len if context_len is None else context_len
    return Sizes(_size("batch", batch), _size("seq_len", seq_len), _size("context_len", context_len))


def _size(name: str, value: Any) -> int:
    try:
        size = operator.index(value)
    except TypeError:
        size = -1
    if size < 0:
        raise UserError(f"{name} must be a whole number of at least 0, not {value!r}")
    return size


def total(graph: Graph, sizes: Sizes) -> Cost:
    return sum((cost for _, cost in node_costs(graph, sizes)), Cost())


def parameters(graph: Graph) -> int:
    return total(graph, Sizes(1, 1, 1)).parameters


def flops(graph: Graph, seq_len: int, batch: int = 1, context_len: int | None = None) -> int:
    return total(graph, sizes(seq_len, batch, context_len)).flops


def kv_cache_bytes(
    graph: Graph, seq_len: int, batch: int = 1, dtype: Any = "float32", context_len: int | None = None
) -> int:
    """What a cache holds: keys and values, constant state (twice, see `state.COPIES`) and tails of token shifts."""
    return total(graph, sizes(seq_len, batch, context_len)).cache_bytes(item_bytes(dtype))


def by_stage(graph: Graph, sizes: Sizes) -> list[tuple[str, Cost]]:
    """Costs of each stage, and of the embedding and head where the graph has any; names are unique."""
    rows: dict[str, Cost] = {}
    for node, cost in node_costs(graph, sizes):
        attrs = graph.nx.nodes[node]
        if attrs["type"] in ("block", "sum"):
            row = stage_title(graph, attrs["stage"])
        else:
            row = "embedding" if attrs["type"] in ("input", "position") else "head"
        rows[row] = rows.get(row, Cost()) + cost
    return [(row, cost) for row, cost in rows.items() if cost != Cost()]


def stage_title(graph: Graph, index: int) -> str:
    """`2: encoder` or, for a stage without a name, `2`."""
    name = graph.stages[index]
    return f"{index + 1}" if name is None else f"{index + 1}: {name}"
