"""What a graph costs: parameters, FLOPs, cache bytes. No torch.

Each kind's formulas are declared with it (`kinds`); here they are summed over nodes. A test holds the counts
against the lowered module and against torch.utils.flop_counter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

from ..registry.content import by_content, content
from ..registry.injection import injection_shapes
from ..registry.kinds import Kind, Shape, Sizes, kind_of
from ..registry.norms import Norm, embedding_norm, final_norm, norms_of, pool_norm, widths
from ..registry.options import plain_values, whole
from ..registry.pools import cls_tokens, pool_attention, pool_of, vectors_of
from ..registry.positions import SCHEMES
from ..registry.reads import JOINS
from ..registry.residual_streams import mixing_flops, mixing_shapes
from ..registry.state import item_bytes
from ..registry.tokens import pair
from .state import Kept, kept
from .tokens import of_logits

if TYPE_CHECKING:
    from .graph import Graph


class Cost(NamedTuple):
    """Of one node, or a sum of them, in one call of the given sizes.

    Attributes:
        idle: of the parameters, those that one token does not use, as of experts that are not chosen.
        cached: numbers of the model's dtype that decoding keeps.
        cached_bytes: what it keeps in dtypes that a kind's state fixes.
        cached_float32: numbers that a kind's state keeps in float32, or in float64 as its model.
    """

    blocks: int = 0
    parameters: int = 0
    flops: int = 0
    cached: int = 0
    cached_bytes: int = 0
    cached_float32: int = 0
    idle: int = 0

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]  # of tuples, one after the other
        return Cost(*map(add, self, other))

    def __mul__(self, times: int) -> Cost:  # type: ignore[override]
        return Cost(*(times * count for count in self))

    def __rmul__(self, times: int) -> Cost:  # type: ignore[override]
        return self * times

    @property
    def active(self) -> int:
        """The parameters that one token uses."""
        return self.parameters - self.idle

    def cache_bytes(self, item: int) -> int:
        """All that decoding keeps, where a number of the model's dtype has `item` bytes."""
        return self.cached * item + self.cached_bytes + self.cached_float32 * max(item, 4)


def node_costs(graph: Graph, sizes: Sizes) -> Iterator[tuple[str, Cost]]:
    """Each node with its cost, an encoder's aside; a tied block's parameters are its owner's.

    A condition is counted as one vector a row.
    """
    owners, states, (condition, features) = graph.tied(), kept(graph), graph.condition
    start = plain_values(graph.nx.nodes[graph.start])
    context = sizes.context if (encoder := graph.encoder) is None else row_length(encoder, sizes.context)
    sizes = sizes._replace(seq=row_length(graph, sizes.seq), context=context)
    stream = sizes._replace(seq=sizes.seq + learned_tokens(graph))
    alike: dict[Hashable, Cost] = {}
    for node, attrs in graph.nx.nodes(data=True):
        node_type = attrs["type"]
        if node_type == "block":
            own, state = content(attrs["options"]), states.get(node, Kept())
            uses = 1 if attrs["tie"] is None else len(graph.uses(node))
            key = attrs["kind"], own, uses, node in owners, attrs["shift"], state.window
            if key not in alike:
                alike[key] = _block(graph, node, features, stream, node in owners, state)
            yield node, alike[key]
        elif node_type == "read":
            yield node, _read(graph, node, stream, node in owners)
        elif node_type == "condition":
            yield node, Cost() if attrs["expansion"] is None else _linear(condition, features, sizes.batch, bias=False)
        elif node_type == "input":
            yield node, _embedding(graph, start, sizes) + _entering(graph, stream)
        elif node_type == "position" and attrs["scheme"] == "absolute":
            yield node, Cost(parameters=graph.places * graph.emb_dim)
        elif node_type == "position" and attrs["scheme"] == "sinusoidal":
            yield node, Cost(parameters=1)
        elif node_type == "position":
            scheme = SCHEMES[attrs["scheme"]]
            own = scheme.complete(attrs)
            yield node, Cost(parameters=_numbers(scheme.shapes(own)), flops=scheme.flops(own, stream))
        elif node_type == "output":
            yield node, _output(graph, plain_values(attrs), sizes)


def _block(graph: Graph, node: str, condition: int, sizes: Sizes, owns: bool, state: Kept) -> Cost:
    attrs, uses = graph.block(node), len(graph.uses(node))
    parameters, flops, idle = _computed(
        kind_of(attrs["kind"]), attrs["options"], graph.dim, uses, condition, sizes, owns
    )
    return Cost(1, parameters, flops, *state.cached(sizes), idle)


@by_content
def _computed(
    kind: Kind, options: Mapping[str, Any], dim: int, uses: int, condition: int, sizes: Sizes, owns: bool
) -> tuple[int, int, int]:
    """Parameters of a block, its FLOPs, and the parameters that a token does not use."""
    o = kind.completed(dim, options, uses)
    own = _numbers(kind.shapes(o))
    around, adapting = _around(dim, o, condition)
    active = kind.active(o) if owns else None
    gate = 2 * sizes.batch * sizes.seq * 2 * (3 * dim * dim) if o.gate_residual else 0  # a GRU cell: two maps
    mixing = mixing_flops(dim, o.num_residual_streams, sizes.batch * sizes.seq)
    flops = round(kind.flops(o, sizes)) + gate + mixing + 2 * sizes.batch * adapting
    return around + own if owns else 0, flops, 0 if active is None else own - active


def _read(graph: Graph, node: str, sizes: Sizes, owns: bool) -> Cost:
    join, values = JOINS[graph.nx.nodes[node]["join"]], len(graph.sources(node, "read"))
    parameters = _numbers(join.shapes(graph.dim, values)) if owns else 0
    rows = sizes.batch * sizes.seq * graph.residual_streams
    return Cost(parameters=parameters, flops=2 * rows * join.products(graph.dim, values))


def _around(dim: int, options: Any, condition: int) -> tuple[int, int]:
    """Parameters of a block that are not its module's: norms, gains, the gate's two maps, what mixes streams.

    And those of them that a condition of so many features is multiplied by.
    """
    norms = [(norm, width) for norm, width in zip(norms_of(vars(options)), widths(options), strict=True) if norm]
    gains = (dim if options.scale_residual else 0) + (0 if options.layer_scale is None else dim)
    gains += dim * options.use_adaptive_layerscale
    gate = 2 * (3 * dim * dim + 3 * dim) if options.gate_residual else 0
    adapting = condition * (sum(norm.adaptive * width for norm, width in norms) + options.use_adaptive_layerscale * dim)
    own = sum(norm.parameters(width) for norm, width in norms)
    own += _numbers(mixing_shapes(dim, options.num_residual_streams))
    return own + gains + gate + adapting, adapting


def _numbers(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _embedding(graph: Graph, attrs: dict[str, Any], sizes: Sizes) -> Cost:
    """Of what makes the stream: a table of tokens, or linear layers from vectors or patches; then what both have."""
    if graph.reads is None:
        return Cost()
    dim, emb_dim, tokens = graph.dim, graph.emb_dim, sizes.batch * sizes.seq
    learned = sum(attrs[n] for n in ("num_memory_tokens", "num_register_tokens", "class_token", "mask_token"))
    norm = embedding_norm(graph.nx.nodes[graph.end])
    cost = Cost(parameters=learned * dim + (norm.parameters(emb_dim) if attrs["post_emb_norm"] else 0))
    if graph.reads == "tokens":
        own = 0 if graph.tie_token_emb else attrs["num_tokens"]
        values = attrs["num_tokens"] * sum(graph.value_embeds.values())
        cost += Cost(parameters=(own + attrs["num_token_types"]) * emb_dim + values)
    elif graph.reads == "images":
        pixels = math.prod(pair(attrs["patch_size"] or 1)) * attrs["channels"]
        dual = Norm.of("layernorm", {})
        cost += _linear(pixels, dim, tokens, attrs["patch_bias"])
        cost += Cost(parameters=attrs["patch_norm"] * (dual.parameters(pixels) + dual.parameters(dim)))
    elif attrs["conv_stem"]:
        dim_in = emb_dim if attrs["dim_in"] is None else attrs["dim_in"]
        cost += _conv(dim_in, emb_dim, 2 * tokens) + _conv(emb_dim, emb_dim, tokens)
    elif attrs["dim_in"] is not None:
        cost += _linear(attrs["dim_in"], emb_dim, tokens)
    return cost if emb_dim == dim else cost + _linear(emb_dim, dim, tokens)


def _entering(graph: Graph, sizes: Sizes) -> Cost:
    """Of what a stack makes of its input: a vector for each of several streams, or what it injects into branches."""
    if (streams := graph.residual_streams) > 1:
        return Cost(parameters=streams * graph.dim)
    if not graph.of_all_blocks("reinject_input"):
        return Cost()
    numbers = _numbers(injection_shapes(graph.dim, graph.of_all_blocks("learned_reinject_input_gate")))
    return Cost(parameters=numbers, flops=2 * sizes.batch * sizes.seq * numbers)


def _output(graph: Graph, attrs: dict[str, Any], sizes: Sizes) -> Cost:
    dim, tokens = graph.dim, sizes.batch * sizes.seq
    last = final_norm(attrs)
    norm = Cost() if last is None else Cost(parameters=last.parameters(dim))
    if last is not None and last.adaptive:
        norm += _linear(graph.condition[1], dim, sizes.batch, bias=False)
    vectors = sizes.batch * vectors_of(attrs)
    if graph.reads == "tokens":
        norm += _pool(graph, attrs, sizes)
        norm += _linear(dim, dim, vectors) if attrs["pooler"] else Cost()
    if attrs["logits_dim"] is not None:
        tokens = tokens if attrs["pool"] is None else vectors
        width = graph.emb_dim if attrs["tied"] else dim
        if attrs["logits_transform"] is not None:
            norm += _linear(dim, width, tokens, attrs["logits_transform_bias"])
            norm += Cost(parameters=embedding_norm(attrs).parameters(width))
        logits = _linear(width, attrs["logits_dim"], tokens, bool(of_logits(graph)["logits_bias"]))
        shared = width * attrs["logits_dim"] if attrs["tied"] else 0
        return norm + logits._replace(parameters=logits.parameters - shared)
    if graph.reads == "images":
        return norm + _image_output(graph, attrs, sizes)
    width = attrs["dim_out"]
    return norm if width is None else norm + _linear(dim, width, tokens, attrs["dim_out_bias"])


def _image_output(graph: Graph, attrs: dict[str, Any], sizes: Sizes) -> Cost:
    """Of what makes one vector of an image, and of what reads it."""
    dim, cost, vectors = graph.dim, _pool(graph, attrs, sizes), sizes.batch * vectors_of(attrs)
    features = 2 * dim if pool_of(attrs) == "first_mean" else dim
    if attrs["pooler"]:
        cost, features = cost + _linear(features, dim, vectors), dim
    heads = ((attrs["num_classes"], True), (attrs["dim_out"], attrs["dim_out_bias"]))
    return sum((_linear(features, width, vectors, bias) for width, bias in heads if width is not None), cost)


def _pool(graph: Graph, attrs: dict[str, Any], sizes: Sizes) -> Cost:
    """Of class tokens, or of the attention that pools."""
    dim, cost = graph.dim, Cost(parameters=cls_tokens(attrs) * graph.dim)
    if attrs["pool"] != "attention":
        return cost
    queries, blocks = vectors_of(attrs), pool_attention(attrs, dim)
    cost += Cost(parameters=queries * dim + ("f" in blocks) * pool_norm(attrs).parameters(dim))
    seen = sizes.seq + graph.nx.nodes[graph.start]["class_token"]
    for kind, options in blocks.items():
        own = kind_of(kind).complete(dim, options, "pool=attention")
        flops = round(kind_of(kind).flops(own, Sizes(sizes.batch, queries, seen)))
        cost += Cost(parameters=_numbers(kind_of(kind).shapes(own)), flops=flops)
    return cost


def _linear(features: int, width: int, rows: int, bias: bool = True) -> Cost:
    """Of a linear layer, for so many rows."""
    return Cost(parameters=(features + bias) * width, flops=2 * rows * features * width)


def _conv(features: int, width: int, places: int) -> Cost:
    """Of a convolution over 3 places with a bias, for so many places of its result."""
    return Cost(parameters=(3 * features + 1) * width, flops=2 * places * 3 * features * width)


def learned_tokens(graph: Graph) -> int:
    """How many a row has beside its own: memory, register and class tokens."""
    start = graph.nx.nodes[graph.start]
    beside = start["num_memory_tokens"] + start["num_register_tokens"] + start["class_token"]
    return whole("learned tokens", beside + cls_tokens(graph.nx.nodes[graph.end]), 0)


def row_length(graph: Graph, seq_len: int) -> int:
    """Tokens a row: as asked for, but that an image has its patches."""
    return graph.patches if graph.reads == "images" else seq_len


def sizes(seq_len: int, batch: int, context_len: int | None = None) -> Sizes:
    """The sizes of a call, checked; a context is as long as a row unless its length is given."""
    context_len = seq_len if context_len is None else context_len
    return Sizes(whole("batch", batch), whole("seq_len", seq_len), whole("context_len", context_len))


def total(graph: Graph, sizes: Sizes) -> Cost:
    """Of all nodes, those of its encoder included."""
    return sum((cost for _, cost in by_stage(graph, sizes)), Cost())


def parameters(graph: Graph, active: bool = False) -> int:
    cost = total(graph, Sizes(1, 1, 1))
    return cost.active if active else cost.parameters


def parameters_in_words(cost: Cost) -> str:
    """How many there are, and how many of them a token uses if it does not use all."""
    every, active = cost.parameters, cost.active
    return f"{every:,} parameters" + (f", {active:,} active" if active != every else "")


def flops(graph: Graph, seq_len: int, batch: int = 1, context_len: int | None = None) -> int:
    return total(graph, sizes(seq_len, batch, context_len)).flops


def kv_cache_bytes(
    graph: Graph, seq_len: int, batch: int = 1, dtype: Any = "float32", context_len: int | None = None
) -> int:
    """What a cache holds: keys and values, constant state (twice, see `state.COPIES`) and tails of token shifts."""
    return total(graph, sizes(seq_len, batch, context_len)).cache_bytes(item_bytes(dtype))


def by_stage(graph: Graph, sizes: Sizes) -> list[tuple[str, Cost]]:
    """Costs of each stage, and of the embedding and head where the graph has any; names are unique.

    Those of an encoder come first, as `encoder 1`. The context is its row.
    """
    return graph.once(("by_stage", sizes), lambda: _by_stage(graph, sizes))


def _by_stage(graph: Graph, sizes: Sizes) -> list[tuple[str, Cost]]:
    rows: dict[str, Cost] = {}
    if (encoder := graph.encoder) is not None:  # it runs once, over the context, and decoding keeps nothing of it
        once = {"cached": 0, "cached_bytes": 0, "cached_float32": 0}
        own = by_stage(encoder, Sizes(sizes.batch, row_length(encoder, sizes.context), 0))
        rows = {f"encoder {row}": cost._replace(**once) for row, cost in own}
    known: dict[int, Cost] = {}  # by its id: blocks that are alike have one between them
    times: Counter[tuple[str, int]] = Counter()
    titles = [stage_title(graph, index) for index in range(len(graph.stages))]
    for node, cost in node_costs(graph, sizes):
        node_type = graph.node_type(node)
        if node_type in ("block", "sum", "read"):
            row = titles[graph.nx.nodes[node]["stage"]]
        else:
            row = "embedding" if node_type in ("input", "condition", "position") else "head"
        known[id(cost)] = cost
        times[row, id(cost)] += 1
    for (row, which), count in times.items():
        rows[row] = rows.get(row, Cost()) + known[which] * count
    return [(row, cost) for row, cost in rows.items() if cost != Cost()]


def stage_title(graph: Graph, index: int) -> str:
    """`2: encoder` or, for a stage without a name, `2`."""
    name = graph.stages[index]
    return f"{index + 1}" if name is None else f"{index + 1}: {name}"
