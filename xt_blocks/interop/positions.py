"""Positions: absolute ones, rotations, and the biases of scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..positions.absolute import AbsolutePositions, SinusoidalPositions
from ..positions.bias import ALiBi, DynamicBias, T5Bias
from ..runtime.stack import Stack
from .linear import load_bias, load_linear, load_norm
from .reader import Reader

if TYPE_CHECKING:
    from blockdsl import BlockGraph

LEAST_ROTATED = 32
"""Until 1.42 at least so many features of a head are rotated, whatever rotary_emb_dim is."""

Order = Callable[[Tensor], Tensor]
"""Puts rows, so many a head, in the order of our heads."""


def regrouped(rows: Tensor, heads: int, groups: int) -> Tensor:
    """Their head i reads key-value head i modulo their number; our heads of one group are adjacent."""
    if groups in (1, heads):
        return rows
    by_head = rows.reshape(heads // groups, groups, -1, *rows.shape[1:])
    return by_head.transpose(0, 1).reshape(rows.shape)


def order_of(state: Reader, options: Mapping[str, Any]) -> Order:
    """From an attention block's options, its key-value heads known or not."""
    if state.old:
        return lambda rows: rows
    heads, groups = options["heads"], 1 if options["one_kv_head"] else options["kv_heads"] or options["heads"]
    return lambda rows: regrouped(rows, heads, groups)


def load_absolute(module: nn.Module | None, state: Reader) -> None:
    if isinstance(module, SinusoidalPositions):
        state.fill(module.scale, "pos_emb.scale")
    elif isinstance(module, AbsolutePositions):
        weight, name = module.embedding.weight, "pos_emb.emb.weight"
        table = state.need(name, shape=weight.shape)
        if table is not None and not module.unit:
            table = table * table.shape[1] ** -0.5  # theirs is scaled when it is used
        state.put(weight, table, name)


def load_biases(stack: Stack, state: Reader) -> None:
    for position, module in stack.positions.items():
        readers = (stack.graph.nx.nodes[step.node]["options"] for step in stack.plan if position in step.biases)
        _BIASES[type(module)](module, state.under("rel_pos."), order_of(state, next(readers)))
    if state.old and {ALiBi, DynamicBias} <= {type(module) for module in stack.positions.values()}:
        state.refuse("alibi_pos_bias: 1.x ignores it beside dynamic_pos_bias; leave it out")


def load_rotations(stack: Stack, graphs: Sequence[BlockGraph], state: Reader) -> dict[str, int]:
    """How many features each rotation rotates, which is set; the frequencies are checked where they are given."""
    rotated = {}
    for node, rotary in stack.rotary.items():
        dim, xpos_scale_base = rotary.dim, rotary.xpos_scale_base
        heads = [stack.graph.nx.nodes[step.node]["options"]["dim_head"] for step in stack.plan if step.rotary == node]
        name = f"{state.prefix}rotary_pos_emb.inv_freq"
        theirs = state.state[name].double().cpu() if name in state.state else None
        more = state.old if theirs is None else 2 * len(theirs) == LEAST_ROTATED
        rotated[node] = LEAST_ROTATED if more and dim < LEAST_ROTATED <= min(heads) else dim
        if state.old:
            option = "rotary_pos_emb" if xpos_scale_base is None else "rotary_xpos"
            state.warn(f"{option}: 1.x rotates values as well as queries and keys; this model does not")
        widened = replace(rotary, dim=rotated[node])
        ours = replace(widened, scaling=None if widened.scaling == "linear" else widened.scaling).frequencies()
        if rotary.by_length:
            state.refuse(f"rotary_scaling={rotary.scaling}: x-transformers has no rotation that depends on the length")
        if state.old and rotary.interleaved:
            state.refuse("rotary_interleaved: 1.x rotates features i and i + d/2")
        if theirs is not None and (theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=1e-2)):
            state.refuse(
                f"rotary_pos_emb: the frequencies differ. This model rotates {dim} features of a head, feature i by "
                f"{rotary.theta:g} ** (-i / {dim}); the other one has {len(theirs)} frequencies down to "
                f"{float(theirs[-1]):.2g}"
            )
        if theirs is not None and state.has("rotary_pos_emb.scale") != (xpos_scale_base is not None):
            state.refuse("rotary_xpos: one of the two models decays with distance, and the other does not")
        state.change(partial(stack.rotary.update, {node: widened}))
        state.set([graph.nx.nodes[node] for graph in graphs], dim=rotated[node])
    return rotated


def _load_t5(module: Any, state: Reader, by_head: Order) -> None:
    name, weight = "relative_attention_bias.weight", module.buckets.weight
    values = state.need(name, shape=weight.shape)
    state.put(weight, None if values is None else by_head(values.T).T, name)


def _load_dynamic(module: Any, state: Reader, by_head: Order) -> None:
    for i, (layer, own) in enumerate(zip(module.layers, module.norms, strict=True)):
        load_linear(layer, state, f"mlp.{i}.0")
        if isinstance(own, nn.LayerNorm):
            load_norm(own, state.under(f"mlp.{i}.1."), shifted=False)
    last = f"mlp.{len(module.layers)}"
    load_rows(module.to_bias, state, last, by_head)


def as_it_is(rows: Tensor) -> Tensor:
    """The order that is ours already."""
    return rows


def load_rows(layer: Any, state: Reader, name: str, by_head: Order, read: Order = as_it_is) -> None:
    """A linear layer whose outputs are in the order of heads, and what it `read`s perhaps too."""
    weight = state.need(f"{name}.weight", shape=layer.weight.shape)
    state.put(layer.weight, None if weight is None else by_head(read(weight.T).T), f"{name}.weight")
    if layer.bias is None:
        return
    if not state.has(f"{name}.bias"):
        load_bias(layer.bias, state, f"{name}.bias")
        return
    bias = state.need(f"{name}.bias", shape=(len(layer.bias), 1))
    state.put(layer.bias, None if bias is None else by_head(bias), f"{name}.bias")


def _load_alibi(module: Any, state: Reader, by_head: Order) -> None:
    order = torch.arange(module.heads, device="cpu", dtype=torch.int64)[:, None]
    if not torch.equal(by_head(order), order):
        state.refuse("alibi_pos_bias with kv_heads: 2.x orders ALiBi's slopes in a way that this model cannot")
    if module.scale != 1:
        state.refuse("alibi_scale: x-transformers does not have it")
    if module.log_slopes is not None:
        state.fill(module.log_slopes, "learned_logslopes")


_BIASES: dict[type, Callable[[Any, Reader, Order], None]] = {
    T5Bias: _load_t5,
    DynamicBias: _load_dynamic,
    ALiBi: _load_alibi,
}
