"""Attention: projections, their norm, memory key-values, what is done to scores, and the output.

Axes: h heads, g key-value heads, d features of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..blocks.attention import Attention, CrossAttention
from ..blocks.output import LowRankGate
from ..blocks.project import GainedQKNorm, QKNorm
from .linear import load_linear
from .positions import as_it_is, load_rows, regrouped
from .reader import Reader

Order = Callable[[Tensor], Tensor]
Options = list[dict[str, Any]]
"""Of the nodes of one block."""


class ScoreContext(NamedTuple):
    """What happens to the scores of a block, outside of its options.

    Attributes:
        biased: positions bias them.
        handed_on: a later block adds them to its own.
    """

    biased: bool
    handed_on: bool


_NOT_THEIRS = ("qkv_bias", "out_bias", "qk_scale", "max_attend_future", "kv_rank")


def load_attention(
    layer: Attention | CrossAttention, state: Reader, rotated: int, scores: ScoreContext, options: Options
) -> None:
    """
    Args:
        rotated: how many features of each head are rotated.
    """
    o = layer.options
    for name in _NOT_THEIRS:
        if getattr(o, name, None) not in (None, False):
            state.refuse(f"attn_{name}: x-transformers does not have it")
    if o.qkv_bias or getattr(o, "kv_rank", None):
        return
    (_check_1 if state.old else _check_2)(o, state, rotated, scores)
    if o.sparse_topk is not None:
        state.warn("attn_sparse_topk: x-transformers keeps all scores that tie for the last place, this model just k")

    def by_head(rows: Tensor) -> Tensor:
        return rows if state.old else regrouped(rows, o.heads, o.kv_heads)

    paired = 0 if state.old else rotated  # 2.x pairs rotated features with their neighbours
    _load_projections(layer, state, paired, by_head)
    _load_output(layer.output, o, state, by_head)
    if getattr(layer, "to_value_mix", None) is not None:
        load_linear(layer.to_value_mix, state, "to_value_residual_mix.0")
    if layer.mem_kv is not None:
        keys, values = layer.mem_kv.keys, layer.mem_kv.values
        theirs = state.need("mem_k", shape=keys.shape)
        state.put(keys, None if theirs is None else halves(theirs.transpose(1, 2), paired).transpose(1, 2), "mem_k")
        state.fill(values, "mem_v")
    if layer.talking_heads is not None:
        _load_talking_heads(layer.talking_heads, state, by_head)
    if o.sink:
        name, sink = "attend.head_attn_sink", layer.sink.logits  # type: ignore[union-attr]
        logits = state.need(name, shape=(o.heads, 1))
        state.put(sink, None if logits is None else by_head(logits), name)  # type: ignore[arg-type]
    if getattr(o, "forget_gate", False):
        load_rows(layer.forget_gate, state, "data_dependent_alibi.to_forget_gates.0", by_head)
    if o.value_rmsnorm:
        norm, gain = layer.value_norm, state.need("value_rmsnorm.gamma", shape=(o.heads, 1, o.value_dim_head))
        state.put(norm.weight, None if gain is None else _offset(gain, o), "value_rmsnorm.gamma")  # type: ignore
    if o.qk_rmsnorm or o.k_rmsnorm or o.qk_layernorm:
        _load_gained_qk_norm(layer, state, paired, by_head)
    elif layer.qk_norm is not None:
        _load_qk_norm(layer, state, paired, by_head, options)


def _check_1(o: Any, state: Reader, rotated: int, scores: ScoreContext) -> None:
    """What 1.x computes otherwise."""
    for name in _NOT_IN_1:
        if getattr(o, name, False):
            state.refuse(f"attn_{name}: 1.x does not have it")
    if o.num_mem_kv and o.qk_norm_groups > 1:
        state.refuse(
            "attn_num_mem_kv: under qk_norm_groups 1.x normalises whole memory keys, and this model normalises them "
            "by group"
        )
    if o.num_mem_kv and scores.biased:
        state.refuse("attn_num_mem_kv: 1.x biases the scores of memory key-values by position, as if they were tokens")
    if o.num_mem_kv and getattr(o, "max_attend_past", None) is not None:
        state.refuse(
            "attn_num_mem_kv: 1.x sees memory key-values only within attn_max_attend_past, as if they were tokens"
        )
    if o.sparse_topk is not None and scores.handed_on:
        state.refuse("attn_sparse_topk: residual attention of 1.x hands on only the scores that are among the top k")
    if o.tensor_product and o.kv_heads == 1 < o.heads:
        state.warn("attn_tensor_product with one_kv_head: 1.x computes this for a batch of one row alone")


_NOT_IN_1 = (
    *("softcap", "value_rmsnorm", "sigmoid", "l2_distance", "laser", "forget_gate", "cog_signed"),
    *("gate_values_headwise", "gate_values_rank", "output_gate", "swiglu_values", "gate_value_heads"),
    "sparse_topk_straight_through",
)


def _check_2(o: Any, state: Reader, rotated: int, scores: ScoreContext) -> None:
    """What 2.x computes otherwise."""
    if o.softcap is not None and scores.biased:
        state.refuse("attn_softcap: 2.x caps the scores with their position biases, and this model without them")
    if o.num_mem_kv and (o.qk_rmsnorm or o.k_rmsnorm):
        state.refuse("attn_num_mem_kv: 2.x norms no memory keys where qk_rmsnorm or k_rmsnorm norms keys")
    for name in ("sink", "add_zero_kv"):
        if getattr(o, name) and o.sparse_topk is not None:
            state.refuse(f"attn_{name}: 2.x counts it among the top k of attn_sparse_topk, and this model does not")
    if o.value_rmsnorm and (o.kv_heads != o.heads or o.value_dim_head != o.dim_head):
        state.refuse("attn_value_rmsnorm: 2.x has a gain for each head of queries, of as many features")
    if o.value_rmsnorm and o.shared_kv:
        state.refuse("attn_value_rmsnorm with attn_shared_kv: x-transformers has no such model")
    if o.shared_kv and rotated:
        state.refuse("attn_shared_kv with rotary_pos_emb: the values would be in the order of rotated keys")
    if o.qk_norm and not _keeps_groups(rotated, o.dim_head, o.qk_norm_groups):
        state.refuse("attn_qk_norm_groups: with rotary_pos_emb, 2.x groups other features than this model")


# Queries, keys and values -------------------------------------------------------------------------------------------


def _load_projections(layer: Attention | CrossAttention, state: Reader, paired: int, by_head: Order) -> None:
    o = layer.options
    sizes = dict(zip(("to_q", "to_k", "to_v"), layer.sizes, strict=True))
    source = getattr(o, "dim_context", o.dim)
    parts = {
        name: state.need(f"{name}.weight", shape=(size, o.dim if name == "to_q" else source))
        for name, size in sizes.items()
        if name != "to_v" or not o.shared_kv
    }
    q, k, v = (parts.get(name) for name in sizes)
    rows: list[Tensor] | None = None
    if q is not None and k is not None and (v is not None or o.shared_kv):
        q = by_head(halves(q.reshape(o.heads, -1, o.dim), paired).flatten(0, 1))
        k = halves(k.reshape(o.kv_heads, -1, source), paired).flatten(0, 1)
        rows = [q, k] if v is None else [q, k, v]
    if isinstance(layer, Attention):
        state.put(layer.to_qkv.weight, None if rows is None else torch.cat(rows), "to_q.weight")  # type: ignore[arg-type]
        return
    joint: Any = layer.to_kv
    state.put(layer.to_q.weight, None if rows is None else rows[0], "to_q.weight")
    state.put(joint.weight, None if rows is None else torch.cat(rows[1:]), "to_k.weight")


def halves(heads: Tensor, paired: int) -> Tensor:
    """Features `(h, d, ...)` in our order, where the first ones are rotated with their neighbours.

    We rotate features i and i + paired / 2, as 1.x does.
    """
    return heads[:, _order(paired, heads.shape[1])] if paired else heads


def _order(paired: int, features: int) -> list[int]:
    return [*range(0, paired, 2), *range(1, paired, 2), *range(paired, features)]


def _keeps_groups(paired: int, features: int, groups: int) -> bool:
    """Whether each of our groups of consecutive features holds those of one of theirs."""
    size = features // groups
    order = _order(paired, features)
    return all(len({feature // size for feature in order[i : i + size]}) == 1 for i in range(0, features, size))


def _load_qk_norm(
    layer: Attention | CrossAttention, state: Reader, paired: int, by_head: Order, options: Options
) -> None:
    """1.x has one gain for all heads. The factor of the scores changed twice."""
    o, qk, names = layer.options, layer.qk_norm, ("qk_norm_q_scale", "qk_norm_k_scale")
    assert isinstance(qk, QKNorm)
    replaces = state.since((2, 26), "attn_qk_norm", "scale scores once, by the gains of qk_norm_dim_scale if it is on")
    thrice = (2, 18) <= state.release < (2, 26)  # queries and keys are scaled as well, and the gains are not used
    gains: tuple[Any, ...] = () if qk.q_scale is None else (qk.q_scale, qk.k_scale)
    for ours, name, heads in zip(gains, names, (o.heads, o.kv_heads), strict=False):
        gain = state.need(name, shape=(o.dim_head,) if state.old else (heads, o.dim_head))
        if gain is not None:
            gain = halves(gain.expand(heads, -1), paired)
            gain = torch.ones_like(gain) if thrice else by_head(gain) if heads == o.heads else gain
        state.put(ours, gain, name)
    if thrice or (gains and replaces):
        scale = float(o.qk_norm_scale**3 if thrice else o.dim_head**-0.5)
        state.set([vars(o), *options], qk_norm_scale=scale)
        state.change(partial(setattr, layer, "scale", scale))


def _load_gained_qk_norm(layer: Attention | CrossAttention, state: Reader, paired: int, by_head: Order) -> None:
    """2.x has an RMSNorm with a gain of each head's own, less one."""
    o, qk = layer.options, layer.qk_norm
    if not (o.qk_rmsnorm == "each" or o.k_rmsnorm) or state.old:
        name = "attn_qk_layernorm" if o.qk_layernorm else "attn_k_rmsnorm" if o.k_rmsnorm else "attn_qk_rmsnorm"
        state.refuse(f"{name}: x-transformers norms queries and keys in 2.x alone, by qk_rmsnorm=each")
        return
    assert isinstance(qk, GainedQKNorm)
    for own, name, heads in ((qk.q, "q_rmsnorm.gamma", o.heads), (qk.k, "k_rmsnorm.gamma", o.kv_heads)):
        if own is None:
            continue
        gain = state.need(name, shape=(heads, 1, o.dim_head))
        if gain is not None:
            gain = halves(_offset(gain[:, 0], o), paired)
            gain = by_head(gain) if heads == o.heads else gain
        state.put(own.get_parameter("weight"), gain, name)


def _offset(gain: Tensor, o: Any) -> Tensor:
    """A gain of 2.x, which it stores less one, as we have it."""
    return gain if o.norm_unit_offset else gain + 1


# Scores and the output ----------------------------------------------------------------------------------------------


def _load_talking_heads(talking: Any, state: Reader, by_head: Order) -> None:
    adds = state.since((1, 39), "attn_talking_heads", "add what heads exchange to the scores")
    both = {"pre": talking.before.weight, "post": talking.after.weight}
    names = {place: [f"{at}{place}_softmax_talking_heads.weight" for at in ("", "attend.")] for place in both}
    there = {place for place in both if any(map(state.has, names[place]))}
    for place, ours in both.items():
        eye = torch.eye(len(ours), device=ours.device, dtype=ours.dtype)
        if there and place not in there and not state.old:  # it may have one of the two alone
            state.put(ours, eye, names[place][0])
            continue
        mix = state.need(*names[place], shape=ours.shape)
        if mix is not None:
            mix = by_head(by_head(mix).T).T + (eye.to(mix.device, mix.dtype) if adds and place == "pre" else 0)
        state.put(ours, mix, names[place][0])


def _load_gate(gate: Any, state: Reader, name: str, by_head: Order, read: Order = as_it_is) -> None:
    """
    Args:
        read: puts the features that it reads in our order, as rows.
    """
    if isinstance(gate, LowRankGate):
        load_rows(gate.down, state, f"{name}.down", as_it_is, read)
        load_rows(gate.up, state, f"{name}.up", by_head)
    elif gate is not None:
        load_rows(gate, state, name, by_head, read)


def _load_output(output: Any, o: Any, state: Reader, by_head: Order) -> None:
    weight = output.to_out.weight
    name = "to_out.0.weight" if o.on_attn else "to_out.weight"
    if not state.old and o.heads == 1 and weight.shape[0] == weight.shape[1] and not state.has(name):
        # 2.x takes the values of a single head as they are
        out = torch.eye(len(weight), device=weight.device, dtype=weight.dtype)
    else:
        theirs = state.need(name, shape=weight.shape)
        out = None if theirs is None else by_head(theirs.T).T  # type: ignore[assignment]
    state.put(weight, out, name)
    if output.to_relation is not None:
        load_linear(output.to_relation, state, "to_r")
    _load_gate(output.to_gate, state, "to_v_gate", by_head)
    _load_gate(output.to_head_gate, state, "to_v_head_gate", by_head)
    _load_gate(output.to_output_gate, state, "to_output_gate", by_head, read=by_head)
    if output.head_scale is not None:
        scale = state.need("head_scale_params", shape=(o.heads, 1))
        state.put(output.head_scale, None if scale is None else by_head(scale), "head_scale_params")
