"""Load weights saved by x-transformers, releases 1.x and 2.x, into our models.

The same function, parametrised differently: names differ, rotary features are paired with their neighbours in 2.x and
across halves here, one matrix here holds queries, keys and values, 2.x stores gains minus one, and its grouped heads
interleave. Where a release computes something else than our model of the same arguments, the model and its graph are
changed to match it: 1.x has no final norm on a bare stack, and in a wrapper a LayerNorm whatever the stack's norms are;
a GLU keeps its bias under ff_no_bias.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.errors import UserError

from ..blocks.attention import Attention, CrossAttention
from ..blocks.block import Block
from ..blocks.feedforward import FeedForward
from ..blocks.norms import ScaleNorm, norm
from ..generation.autoregressive import AutoregressiveWrapper
from ..generation.continuous_autoregressive import ContinuousAutoregressiveWrapper
from ..generation.nonautoregressive import NonAutoregressiveWrapper
from ..generation.seq2seq import XTransformer
from ..generation.xl_autoregressive import XLAutoregressiveWrapper
from ..models.continuous import ContinuousTransformerWrapper
from ..models.transformer import TransformerWrapper
from ..models.vision import ViTransformerWrapper
from ..positions.absolute import AbsolutePositions, SinusoidalPositions
from ..positions.bias import ALiBi, DynamicBias, T5Bias
from ..runtime.stack import Stack
from .reader import Reader

if TYPE_CHECKING:
    from blockdsl import BlockGraph

Model = Any
Order = Callable[[Tensor], Tensor]


def load_x_transformers(model: Model, state_dict: Mapping[str, Tensor], release: int | None = None) -> Model:
    """Fill a model with weights of an x-transformers model that was built with the same arguments.

    Args:
        model: ours: a stack, a wrapper, or a wrapper around one. It is changed in place.
        state_dict: of the x-transformers model.
        release: 1 or 2; told from the names if None.

    Returns:
        The model.

    Raises:
        TypeError: the model's class is not supported.
        UserError: names are missing, unexpected or of another size, or the release cannot be told; the model may
            then be partly filled.
    """
    state = {_plain(name): value for name, value in state_dict.items() if not _is_buffer(name)}
    if release is None:
        release = _release(state)
    if release not in (1, 2):
        raise UserError(f"release must be 1 or 2, not {release!r}")
    reader = Reader(state, release == 1)
    _load(model, reader)
    problems = [
        *(f"missing: {name}" for name in reader.missing),
        *(f"unexpected: {name}" for name in reader.unused()),
        *(f"of another size: {fault}" for fault in reader.wrong),
    ]
    if problems:
        hint = f"(read as of release {release}.x; the two models must be built with the same arguments)"
        raise UserError("\n  ".join([f"these weights do not fit the model {hint}:", *problems]))
    return model


def _plain(name: str) -> str:
    """The name without the wrappers that x-transformers puts around a shifted or scaled layer."""
    return re.sub(r"(layers\.\d+\.1)(\.fn)+\.", r"\1.", name)


def _is_buffer(name: str) -> bool:
    return name.endswith(("inv_freq", ".slopes", "rotary_pos_emb.scale", "pos_emb.inv_freq"))


def _release(state: Mapping[str, Tensor]) -> int:
    if any(name.endswith("gamma") or ".final_norm." in name or ".ff.2." in name for name in state):
        return 2
    if any(re.search(r"layers\.\d+\.0\.\d\.(weight|g)$|\.ff\.3\.", name) for name in state):
        return 1
    raise UserError("these names do not say which release of x-transformers they are of: give release=1 or release=2")


def _load(model: Model, state: Reader) -> None:
    for model_type, load in _LOADERS.items():
        if isinstance(model, model_type):
            load(model, state)
            return
    raise TypeError(f"cannot load x-transformers weights into a {type(model).__name__}")


# Wrappers -----------------------------------------------------------------------------------------------------------


def _load_net(model: Any, state: Reader) -> None:
    _load(model.net, state.under("net."))


def _load_nonautoregressive(model: Any, state: Reader) -> None:
    _load_net(model, state)
    if model.null_embed is not None:
        state.fill(model.null_embed, state.need("null_embed"), "null_embed")
        _load_linear(model.to_self_cond, state, "to_self_cond")
    critic = state.under("token_critic.")
    if model.token_critic is not None:
        _load(model.token_critic, critic)
    elif model.to_critic is not None:
        _load_linear(model.to_critic, critic, "to_logits")
        for name in critic.names("net."):  # a critic of itself: the net once more
            critic.skip(name)


def _load_seq2seq(model: Any, state: Reader) -> None:
    _load(model.encoder, state.under("encoder."))
    _load(model.decoder, state.under("decoder."))
    for name in ("encoder.to_logits.weight", "encoder.to_logits.bias"):
        state.skip(name)  # 1.x gives its encoder logits, unused


def _load_tokens(model: Any, state: Reader) -> None:
    state.fill(model.token_emb.weight, state.need("token_emb.emb.weight"), "token_emb.emb.weight")
    _load_positions(model.pos_emb, state)
    _load_embedded(model, state)
    if isinstance(model.project_emb, nn.Linear):
        _load_linear(model.project_emb, state, "project_emb")
    if model.to_logits is not None:
        _load_linear(model.to_logits, state, "to_logits")
    elif model.tie_embedding:
        state.skip("to_logits.weight")


def _load_continuous(model: Any, state: Reader) -> None:
    _load_positions(model.pos_emb, state)
    _load_embedded(model, state)
    for name in ("project_in", "project_out"):
        if isinstance(getattr(model, name), nn.Linear):
            _load_linear(getattr(model, name), state, name)


def _load_vision(model: Any, state: Reader) -> None:
    patches = model.patch_emb
    _load_norm(patches.norm_in, state.under("patch_to_embedding.0."), shifted=False)
    _load_linear(patches.project, state, "patch_to_embedding.1")
    _load_norm(patches.norm_out, state.under("patch_to_embedding.2."), shifted=False)
    positions = state.need("pos_embedding")
    if positions is not None:  # 1.x has one row more than patches
        positions = positions[0, : model.num_patches]
    state.fill(model.pos_emb.weight, positions, "pos_embedding")
    if model.registers is not None:
        state.fill(model.registers, state.need("register_tokens"), "register_tokens")
    _load_embedded(model, state)
    if model.to_classes is not None:
        _load_linear(model.to_classes, state, "mlp_head")


def _load_embedded(model: Any, state: Reader) -> None:
    """What every wrapper has: the norm of its embedding, memory tokens, the stack."""
    if isinstance(model.post_emb_norm, nn.LayerNorm):
        _load_norm(model.post_emb_norm, state.under("post_emb_norm."), shifted=False)
    if getattr(model, "memory_tokens", None) is not None:
        state.fill(model.memory_tokens, state.need("memory_tokens"), "memory_tokens")
    stack = model.attn_layers
    graphs = [stack.graph, *([] if model.graph is stack.graph else [model.graph])]
    if state.old:
        _set_final_norm(stack, graphs, None if _is_post_norm(stack) else "layernorm")
    _load_layers(stack, graphs, state.under("attn_layers."), last_norm=state.under("norm.") if state.old else None)


def _load_positions(module: nn.Module | None, state: Reader) -> None:
    if isinstance(module, SinusoidalPositions):
        state.fill(module.scale, state.need("pos_emb.scale"), "pos_emb.scale")
    elif isinstance(module, AbsolutePositions):
        table = state.need("pos_emb.emb.weight")
        if table is not None and not module.unit:
            table = table * table.shape[1] ** -0.5  # theirs is scaled when it is used
        state.fill(module.embedding.weight, table, "pos_emb.emb.weight")


# Stacks -------------------------------------------------------------------------------------------------------------


def _load_stack(stack: Stack, state: Reader) -> None:
    if state.old and _is_post_norm(stack):
        raise UserError("a bare post-norm stack of 1.x has no norm after its last block, which a graph cannot express")
    if state.old:
        _set_final_norm(stack, [stack.graph], None)
    _load_layers(stack, [stack.graph], state, last_norm=None)


def _load_layers(stack: Stack, graphs: list[BlockGraph], state: Reader, last_norm: Reader | None) -> None:
    """
    Args:
        graphs: of the stack and of the model around it, to keep in step.
        last_norm: where the final norm is, when it is not with the layers.
    """
    nodes = [step.node for step in stack.plan if step.block is not None]
    for i, node in enumerate(nodes):
        if node not in stack.blocks:  # tied to an earlier one, which x-transformers repeats
            raise UserError(f"{node} is tied to another block, and x-transformers cannot tie blocks")
        attrs = [graph.nx.nodes[node] for graph in graphs]
        # 1.x leaves out the last block's post-norm: the wrapper's norm takes its place
        post_norm = last_norm if state.old and i == len(nodes) - 1 else None
        block: Any = stack.blocks[node]
        _load_block(block, stack.dim, attrs, state.under(f"layers.{i}."), post_norm)
        if isinstance(block.layer, Attention | CrossAttention):
            _load_attention(block.layer, state.under(f"layers.{i}.1."), _rotated(stack, node))
        elif isinstance(block.layer, FeedForward):
            _load_feedforward(block.layer, attrs, state.under(f"layers.{i}.1.ff."))
        else:
            raise TypeError(f"x-transformers has no block like {type(block.layer).__name__}")
    for position, module in stack.positions.items():
        readers = (stack.graph.nx.nodes[step.node]["options"] for step in stack.plan if position in step.biases)
        _BIASES[type(module)](
            module, state.under("rel_pos."), (lambda t: t) if state.old else _in_our_order(next(readers))
        )
    if not isinstance(stack.norm, nn.Identity):
        _load_norm(stack.norm, last_norm or state.under("final_norm."), shifted=not state.old)


def _load_block(block: Block, dim: int, attrs: list[dict[str, Any]], state: Reader, post_norm: Reader | None) -> None:
    if block.pre_norm:
        _load_norm(block.norm, state.under("0.0."), shifted=not state.old)
    elif post_norm is None:
        _load_norm(block.norm, state.under("0.2."), shifted=not state.old)
    else:
        block.norm = norm("layernorm", dim)
        for own in attrs:
            own["options"] |= {"use_rmsnorm": False, "use_scalenorm": False}
        _load_norm(block.norm, post_norm, shifted=False)
    if block.sandwich_norm is not None:
        _load_norm(block.sandwich_norm, state.under("0.1."), shifted=not state.old)
    if block.residual.scale is not None:
        state.fill(block.residual.scale, state.need("2.residual_scale"), "2.residual_scale")
    if block.residual.gate is not None:
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            state.fill(getattr(block.residual.gate, name), state.need(f"2.gru.{name}"), f"2.gru.{name}")


def _set_final_norm(stack: Stack, graphs: list[BlockGraph], name: str | None) -> None:
    for graph in graphs:
        graph.nx.nodes[graph.end]["norm"] = name
    stack.norm = norm(name, stack.dim)


def _is_post_norm(stack: Stack) -> bool:
    return isinstance(stack.norm, nn.Identity)


def _rotated(stack: Stack, node: str) -> int:
    """How many features of each head are rotated."""
    rotary = [step.rotary for step in stack.plan if step.node == node and step.rotary is not None]
    return stack.rotary[rotary[0]][0] if rotary else 0


# Layers -------------------------------------------------------------------------------------------------------------


def _load_norm(module: nn.Module, state: Reader, shifted: bool) -> None:
    """
    Args:
        shifted: the gain is stored minus one.
    """
    gain = state.need("weight", "gamma", "g")
    if gain is not None and shifted:
        gain = gain + 1
    elif gain is not None and isinstance(module, ScaleNorm):
        gain = gain * module.dim**-0.5  # 1.x includes the factor dim^0.5 in its gain
    state.fill(module.weight, gain, "weight")  # type: ignore[arg-type]
    if isinstance(module, nn.LayerNorm):
        _fill_bias(module.bias, state, "bias")


def _load_linear(module: nn.Module, state: Reader, *names: str) -> None:
    weight = state.need(*(f"{name}.weight" for name in names))
    state.fill(module.weight, weight, f"{names[0]}.weight")  # type: ignore[arg-type]
    _fill_bias(module.bias, state, *(f"{name}.bias" for name in names))  # type: ignore[arg-type]


def _fill_bias(bias: Tensor | None, state: Reader, *names: str) -> None:
    """A bias; 2.x leaves out many, and ours is zero then."""
    value = state.need(*names) if state.old and bias is not None else state.take(*names)
    if value is None and bias is not None:
        value = torch.zeros_like(bias)
    state.fill(bias, value, names[0])


def _load_feedforward(layer: FeedForward, attrs: list[dict[str, Any]], state: Reader) -> None:
    if layer.glu and layer.to_hidden.bias is None and state.has("0.proj.bias"):
        for linear in (layer.to_hidden, layer.to_out):  # under ff_no_bias their gate keeps its bias
            linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
        for own in attrs:
            own["options"]["no_bias"] = False
        state.fill(layer.to_out.weight, state.need("3.weight", "2.weight"), "3.weight")
    else:
        _load_linear(layer.to_out, state, "3", "2")
    _load_linear(layer.to_hidden, state, "0.proj" if layer.glu else "0.0")
    if layer.norm is not None:
        _load_norm(layer.norm, state.under("1."), shifted=False)


def _load_attention(layer: Attention | CrossAttention, state: Reader, rotated: int) -> None:
    o = layer.options
    by_head: Order = (lambda t: t) if state.old else (lambda t: _regrouped(t, o.heads, o.kv_heads))
    _load_projections(layer, state, rotated, by_head)
    out = state.need("to_out.0.weight" if o.on_attn else "to_out.weight")
    output = layer.output
    state.fill(output.to_out.weight, None if out is None else by_head(out.T).T, "to_out.weight")
    if output.to_relation is not None:
        _load_linear(output.to_relation, state, "to_r")
    if output.to_gate is not None:
        gate = output.to_gate
        _load_linear(gate, state, "to_v_gate")
        with torch.no_grad():
            gate.weight.copy_(by_head(gate.weight))
            gate.bias.copy_(by_head(gate.bias[:, None])[:, 0])
    if output.head_scale is not None:
        scale = state.need("head_scale_params")
        state.fill(output.head_scale, None if scale is None else by_head(scale.flatten()[:, None]), "head_scale_params")
    if layer.mem_kv is not None:
        if state.old and o.qk_norm and o.qk_norm_groups > 1:
            raise UserError(
                "under qk_norm_groups 1.x normalises whole memory keys, and our model normalises them by group"
            )
        keys = state.need("mem_k")
        if keys is not None and rotated and not state.old:
            keys = _halves(keys.transpose(1, 2).flatten(0, 1), rotated, o.kv_heads)
            keys = keys.reshape(o.kv_heads, -1, o.num_mem_kv).transpose(1, 2)
        state.fill(layer.mem_kv.keys, keys, "mem_k")
        state.fill(layer.mem_kv.values, state.need("mem_v"), "mem_v")
    talking: Any = layer.talking_heads
    if talking is not None:
        for ours, name in ((talking.before.weight, "pre"), (talking.after.weight, "post")):
            theirs = f"{name}_softmax_talking_heads.weight"  # 2.x has it one module deeper
            mix = state.need(theirs, f"attend.{theirs}")
            if mix is not None:
                mix = by_head(by_head(mix.flatten(1)).T).T
                if name == "pre" and not state.old:  # 2.x adds the result to the scores
                    mix = mix + torch.eye(len(mix), device=mix.device, dtype=mix.dtype)
            state.fill(ours, mix, theirs)
    if o.sink:
        logits = state.need("attend.head_attn_sink")
        logits = None if logits is None else by_head(logits[:, None])[:, 0]
        state.fill(layer.sink.logits, logits, "attend.head_attn_sink")  # type: ignore[union-attr,arg-type]
    if layer.qk_norm is not None and layer.qk_norm.q_scale is not None:
        _load_qk_gains(layer, state, 0 if state.old else rotated)


def _load_projections(layer: Attention | CrossAttention, state: Reader, rotated: int, by_head: Order) -> None:
    o = layer.options
    q, k = state.need("to_q.weight"), state.need("to_k.weight")
    v = None if o.shared_kv else state.need("to_v.weight")
    if q is None or k is None or (v is None and not o.shared_kv):
        return
    values = k[:0] if v is None else v
    if rotated and state.old:
        warnings.warn("1.x rotates values as well as queries and keys; this model does not", stacklevel=2)
    elif rotated:
        if o.qk_norm and o.qk_norm_groups > 1:
            raise UserError("under qk_norm_groups with rotary_pos_emb, 2.x groups other features than our model")
        q, k = _halves(q, rotated, o.heads), _halves(k, rotated, o.kv_heads)
    q = by_head(q)
    if isinstance(layer, CrossAttention):
        state.fill(layer.to_q.weight, q, "to_q.weight")
        state.fill(layer.to_kv.weight, torch.cat((k, values)), "to_k.weight")
    else:
        state.fill(layer.to_qkv.weight, torch.cat((q, k, values)), "to_q.weight")


def _load_qk_gains(layer: Attention | CrossAttention, state: Reader, rotated: int) -> None:
    """1.x has one gain for all heads. 2.x then leaves qk_norm_scale out for the plain factor of scores."""
    o, qk = layer.options, layer.qk_norm
    assert qk is not None
    for ours, name, heads in ((qk.q_scale, "qk_norm_q_scale", o.heads), (qk.k_scale, "qk_norm_k_scale", o.kv_heads)):
        gain = state.need(name)
        if gain is None:
            continue
        if gain.ndim == 1:
            gain = gain.expand(heads, 1, -1)
        gain = _halves(gain.reshape(-1, 1), rotated, heads).reshape(heads, 1, -1)
        if name == "qk_norm_q_scale" and not state.old:
            gain = _regrouped(gain * o.dim_head**-0.5 / o.qk_norm_scale, o.heads, o.kv_heads)
        state.fill(ours, gain, name)


def _halves(weight: Tensor, rotated: int, heads: int) -> Tensor:
    """2.x rotates neighbouring features together; we rotate features i and i + rotated / 2, as 1.x does."""
    by_head = weight.reshape(heads, -1, weight.shape[1])
    order = [*range(0, rotated, 2), *range(1, rotated, 2), *range(rotated, by_head.shape[1])]
    return by_head[:, order].reshape(weight.shape)


def _regrouped(rows: Tensor, heads: int, groups: int) -> Tensor:
    """Their head i reads key-value head i modulo their number; our heads of one group are adjacent."""
    if groups in (1, heads):
        return rows
    by_head = rows.reshape(heads // groups, groups, -1, *rows.shape[1:])
    return by_head.transpose(0, 1).reshape(rows.shape)


# Position biases ----------------------------------------------------------------------------------------------------


def _in_our_order(options: Mapping[str, Any]) -> Order:
    """Rows of one head each, put in the order of our heads."""
    heads, groups = options["heads"], 1 if options["one_kv_head"] else options["kv_heads"] or options["heads"]
    return lambda rows: _regrouped(rows, heads, groups)


def _load_t5(module: Any, state: Reader, by_head: Order) -> None:
    values = state.need("relative_attention_bias.weight")
    values = None if values is None else by_head(values.T).T
    state.fill(module.buckets.weight, values, "relative_attention_bias.weight")


def _load_dynamic(module: Any, state: Reader, by_head: Order) -> None:
    for i, (layer, own) in enumerate(zip(module.layers, module.norms, strict=True)):
        _load_linear(layer, state, f"mlp.{i}.0")
        if isinstance(own, nn.LayerNorm):
            _load_norm(own, state.under(f"mlp.{i}.1."), shifted=False)
    _load_linear(module.to_bias, state, f"mlp.{len(module.layers)}")
    with torch.no_grad():
        module.to_bias.weight.copy_(by_head(module.to_bias.weight))
        module.to_bias.bias.copy_(by_head(module.to_bias.bias[:, None])[:, 0])


def _load_alibi(module: Any, state: Reader, by_head: Order) -> None:
    order = torch.arange(module.heads, device="cpu", dtype=torch.int64)[:, None]
    if not torch.equal(by_head(order), order):
        raise UserError("with grouped kv_heads, 2.x orders ALiBi's slopes in a way that this model cannot")
    if module.log_slopes is not None:
        state.fill(module.log_slopes, state.need("learned_logslopes"), "learned_logslopes")


_BIASES: dict[type, Callable[[Any, Reader, Order], None]] = {
    T5Bias: _load_t5,
    DynamicBias: _load_dynamic,
    ALiBi: _load_alibi,
}

_LOADERS: dict[type, Callable[[Any, Reader], None]] = {
    XTransformer: _load_seq2seq,
    AutoregressiveWrapper: _load_net,
    XLAutoregressiveWrapper: _load_net,
    ContinuousAutoregressiveWrapper: _load_net,
    NonAutoregressiveWrapper: _load_nonautoregressive,
    TransformerWrapper: _load_tokens,
    ContinuousTransformerWrapper: _load_continuous,
    ViTransformerWrapper: _load_vision,
    Stack: _load_stack,
}
