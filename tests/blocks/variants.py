"""Small stacks with each option, alone and in pairs that meet in one piece of code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import blockdsl
import xt_blocks

STILL_AT_FIRST = ("alpha_scale", "beta_scale", "residual.norm.weight", "gate.down.weight")
"""Ends of the names of parameters without a gradient at first: they meet weights that start at zero."""
CLOSED_AT_FIRST = ("gates by the output",)
"""Variants whose attention gives zeros until its gates, which start at silu(0), have moved."""


def still_at_first(variant: str, parameter: str) -> bool:
    """Whether the gradient of this parameter is zero at the first step."""
    closed = variant in CLOSED_AT_FIRST and ".blocks.a" in f".{parameter}" and "gate" not in parameter
    return closed or parameter.endswith(STILL_AT_FIRST)


SIZES = {"dim": 24, "heads": 3, "attn_dim_head": 8}

# name → (pattern, settings); every one is causal and can be decoded stepwise unless the test says otherwise
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2", {}),
    "heads": ("a(heads=2, dim_head=5) f a", {}),
    "rotary": ("(a f)*2", {"rotary_pos_emb": True}),
    "rotary small": ("(a f)*2", {"rotary_pos_emb": True, "rotary_emb_dim": 2}),
    "rotary of two sizes": ("a a(dim_head=16) f", {"rotary_pos_emb": True}),
    "rotary by block": ("a(rotary_theta=50) f a(rotary=false) a(rotary_interleaved)", {"rotary_pos_emb": True}),
    "rotary, yarn": (
        "(a f)*2",
        {"rotary_pos_emb": True, "rotary_scaling": "yarn", "rotary_factor": 4, "rotary_original_len": 8},
    ),
    "rotary, longrope": (
        "(a f)*2",
        {
            **{"rotary_pos_emb": True, "rotary_scaling": "longrope", "rotary_original_len": 64},
            **{"rotary_short_factors": (1, 2), "rotary_long_factors": (2, 4)},
        },
    ),
    "rms": ("(a f)*2", {"use_rmsnorm": True}),
    "post-norm": ("(a f)*2", {"pre_norm": False}),
    "one post-norm": ("a(pre_norm=false) f a", {}),
    "glu": ("(a f)*2", {"ff_glu": True, "ff_mult": 2}),
    "swish": ("a f(swish) f(relu_squared) f(glu, swish, no_bias)", {}),
    "biases": ("a(k_bias=false) c f a c(k_bias=false)", {"attn_qkv_bias": True, "attn_out_bias": True}),
    "biases, heads": ("(a c f)*2", {"attn_qkv_bias": True, "attn_one_kv_head": True, "attn_out_bias": True}),
    "activations": (
        "a f(activation=relu) f(gate_first, gate_scale=0.5) f(activation=tanh)",
        {"ff_glu": True, "ff_inner": 11},
    ),
    "activations, plain": (
        "a f(activation=gelu_tanh) f(activation=quick_gelu) f(activation=relu) f(activation=sigmoid)",
        {"attn_qk_scale": 0.9},
    ),
    "experts": ("(a e(experts=4, top=2, inner=10, glu, shared_inner=7, shared_gate))*2 e(router=sigmoid)>>1", {}),
    "no bias": ("(a f)*2", {"ff_no_bias": True}),
    "shift 1": ("(a f)*2", {"shift_tokens": 1}),
    "shift 2": ("a>>2 f>>1 a f>>3", {}),
    "shift, post-norm": ("a>>2 f>>1", {"pre_norm": False}),
    "half steps": ("macaron(2)", {}),
    "sandwich": ("sandwich(2, 3)", {}),
    "parallel": ("(a & f)*2", {}),
    "parallel chains": ("f a & (f a f) & (a & f f) a", {"rotary_pos_emb": True}),
    "parallel post-norm": ("(a & f a)*2", {"pre_norm": False}),
    "ties": ("(a@x f@y)*3", {"rotary_pos_emb": True}),
    "ties that differ in use": ("a@x f a@x>>1/2 f", {}),
    "tied group": ("(a f)@g*2 (a f)@g", {}),
    "residual attention": ("(a f)*3", {"residual_attn": True}),
    "residual attention, parallel": ("a (a & f a) a", {"residual_attn": True, "rotary_pos_emb": True}),
    "residual attention, post-norm": ("(a f)*3", {"residual_attn": True, "pre_norm": False}),
    "cross": ("(a c f)*2", {}),
    "cross, rotary": ("(a c f)*2", {"rotary_pos_emb": True}),
    "cross, both rotated": ("(a c f c(rotary_theta=20))*2", {"cross_attn_rotary": True, "rotary_pos_emb": True}),
    "cross residual attention": ("(a c f)*3", {"cross_residual_attn": True}),
    "cross, parallel": ("a & c f c@t f c@t", {}),
    "feedforwards only": ("f>>1 f", {}),
    "memory kv": ("(a c f)*2", {"attn_num_mem_kv": 3}),
    "memory kv, qk norm": ("a f a", {"attn_num_mem_kv": 3, "attn_qk_norm": True, "attn_one_kv_head": True}),
    "one kv head": ("(a c f)*2", {"attn_one_kv_head": True, "rotary_pos_emb": True}),
    "kv heads": ("(a c f)*2", {"heads": 6, "attn_kv_heads": 2, "attn_tensor_product": True}),
    "gate without a bias": ("(a c f)*2", {"attn_gate_values": True, "attn_gate_bias": False}),
    "value heads": ("(a c f)*2", {"attn_value_dim_head": 5, "attn_gate_values": True, "attn_head_scale": True}),
    "latent": ("(a c f)*2", {"attn_kv_rank": 6}),
    "latent, rotary": (
        "(a f)*2",
        {"attn_kv_rank": 6, "attn_q_rank": 5, "attn_value_dim_head": 7, "rotary_pos_emb": True, "attn_qkv_bias": True},
    ),
    "latent, window, xpos": (
        "a f a(max_attend_past=3)>>1",
        {"attn_kv_rank": 6, "attn_shared_key_dim": 6, "rotary_xpos": True, "rotary_emb_dim": 4, "residual_attn": True},
    ),
    "latent, ALiBi, modifiers": (
        "(a f)*2",
        {
            **{"attn_kv_rank": 6, "attn_shared_key_dim": 0, "alibi_pos_bias": True, "attn_talking_heads": True},
            **{"attn_sink": True, "attn_softcap": 2, "attn_sparse_topk": 4, "attn_tensor_product": True},
        },
    ),
    "shared kv": ("(a c f)*2", {"attn_shared_kv": True, "rotary_pos_emb": True}),
    "qk norm": ("(a c f)*2", {"attn_qk_norm": True, "attn_qk_norm_groups": 2, "attn_qk_norm_dim_scale": True}),
    "qk rmsnorm": ("(a c f)*2", {"attn_qk_rmsnorm": "head", "attn_kv_heads": 1, "rotary_pos_emb": True}),
    "qk rmsnorm, all heads": (
        "(a c f)*2",
        {"attn_qk_rmsnorm": "all", "heads": 6, "attn_kv_heads": 2, "attn_num_mem_kv": 2},
    ),
    "qk layernorm": ("(a c f)*2", {"attn_qk_layernorm": "each", "attn_num_mem_kv": 2, "norm_unit_offset": True}),
    "shared norm": ("(a & f)*2 (a & c(shared_norm=false) & f)", {"shared_norm": True, "sandwich_norm": True}),
    "norm of the output": (
        "a a(norm=false, output_norm=false) f",
        {"output_norm": True, "use_rmsnorm": True, "final_norm": False},
    ),
    "qk norm, rotary": ("(a f)*2", {"attn_qk_norm": True, "attn_qk_norm_scale": 7, "rotary_pos_emb": True}),
    "talking heads": ("(a c f)*2", {"attn_talking_heads": True, "attn_num_mem_kv": 2}),
    "sparse": ("(a c f)*2", {"attn_sparse_topk": 2}),
    "sparse, residual": ("(a f)*2", {"attn_sparse_topk": 3, "residual_attn": True, "attn_num_mem_kv": 1}),
    "softcap": ("(a c f)*2", {"attn_softcap": 0.3, "attn_one_kv_head": True, "rotary_pos_emb": True}),
    "softcap, residual": (
        "(a f)*2",
        {"attn_softcap": 0.3, "residual_attn": True, "attn_num_mem_kv": 1, "alibi_pos_bias": True},
    ),
    "softcap, talking heads, sparse": (
        "(a f)*2",
        {"attn_softcap": 0.3, "attn_talking_heads": True, "attn_sparse_topk": 3, "attn_max_attend_past": 4},
    ),
    "sink": ("(a c f)*2", {"attn_sink": True, "heads": 6, "attn_kv_heads": 2, "rotary_pos_emb": True}),
    "sink, residual": ("(a f)*2", {"attn_sink": True, "residual_attn": True, "attn_num_mem_kv": 1}),
    "sink, talking heads, sparse": (
        "(a c f)*2",
        {"attn_sink": True, "attn_talking_heads": True, "attn_sparse_topk": 3, "alibi_pos_bias": True},
    ),
    "sink, softcap, window": (
        "(a f)*2",
        {"attn_sink": True, "attn_softcap": 2, "attn_max_attend_past": 3, "attn_dropout": 0.1},
    ),
    "gates of low rank": (
        "(a c f)*2",
        {
            **{"attn_gate_values": True, "attn_gate_values_rank": 5, "attn_gate_value_heads": True},
            **{"attn_output_gate": True, "attn_output_gate_rank": 3, "attn_kv_heads": 1, "attn_value_dim_head": 6},
        },
    ),
    "gates by the output": (
        "(a f)*2",
        {"attn_output_gate": True, "attn_output_gate_headwise": True, "attn_swiglu_values": True},
    ),
    "sparse, straight through": (
        "(a c f)*2",
        {"attn_sparse_topk": 2, "attn_sparse_topk_straight_through": True, "attn_talking_heads": True},
    ),
    "signed": ("(a c f)*2", {"attn_cog_signed": True, "attn_num_mem_kv": 1, "alibi_pos_bias": True}),
    "zero key, gates by head": (
        "(a c f)*2",
        {
            **{"attn_add_zero_kv": True, "attn_gate_values": True, "attn_gate_values_headwise": True},
            **{"attn_k_rmsnorm": True, "attn_value_rmsnorm": True, "attn_one_kv_head": True, "rotary_pos_emb": True},
            **{"cross_attn_dim_context": 11, "norm_unit_offset": True, "attn_sparse_topk": 3},
        },
    ),
    "sigmoid, distances, laser": (
        "(a c f)*2",
        {
            **{"attn_sigmoid": True, "attn_l2_distance": True, "attn_laser": True, "attn_laser_softcap": 3},
            **{"attn_kv_heads": 1, "attn_max_attend_past": 4, "alibi_pos_bias": True, "attn_softcap": 2},
            **{"ff_glu": True, "ff_glu_mult_bias": True},
        },
    ),
    "forget gate": (
        "a(max_attend_past=3)>>1 f a",
        {"attn_forget_gate": True, "heads": 4, "attn_kv_heads": 2, "attn_num_mem_kv": 1, "attn_sink": True},
    ),
    "on attention": ("(a c f)*2", {"attn_on_attn": True, "ff_post_act_ln": True, "output_softcap": 1.5}),
    "scalenorm": ("(a f)*2", {"use_scalenorm": True}),
    "sandwich norm": ("a>>1 f a", {"sandwich_norm": True, "use_rmsnorm": True}),
    "sandwich norm, scalenorm, cross": ("(a c f)*2", {"sandwich_norm": True, "use_scalenorm": True}),
    "layer scale, shifted and tied": ("(a@x>>1 f)*2", {"layer_scale": 0.3}),
    "sandwich norm, parallel": ("(a & f a)*2", {"sandwich_norm": True}),
    "scaled residual, half steps": ("macaron(2)", {"scale_residual": True, "scale_residual_constant": 1.5}),
    "scaled branches": ("macaron(2)", {"branch_scale": 0.22}),
    "scaled residual, parallel": ("(a & f a)*2", {"scale_residual": True, "scale_residual_constant": 0.5}),
    "gated residual": ("(a f)*2", {"gate_residual": True}),
    "gated residual, ties": ("(a@x f@y>>1)*2", {"gate_residual": True, "sandwich_norm": True, "use_scalenorm": True}),
    "gated residual, parallel": ("a & f & (a f/2)", {"gate_residual": True, "scale_residual": True}),
    "gated residual, post-norm": ("(a f)*2", {"gate_residual": True, "pre_norm": False, "residual_attn": True}),
    "deepnorm": ("(a f)*2", {"deepnorm": True}),
    "deepnorm, cross": ("(a c f)*2", {"deepnorm": True, "attn_shared_kv": True, "attn_gate_values": True}),
    "injected input": ("(a>>1 f)*2 (a & f)", {"reinject_input": True, "learned_reinject_input_gate": True}),
    "residual streams": ("(a@x f)*2 a>>1/2", {"num_residual_streams": 3, "rotary_pos_emb": True}),
    "residual streams, parallel, post-norm": (
        "(a & f a)*2",
        {"num_residual_streams": 2, "hyper_conn_mix": "free", "pre_norm": False},
    ),
    "deepnorm, parallel": ("(a & f a)*2", {"deepnorm": True, "use_rmsnorm": True, "gate_residual": True}),
    "window": ("(a f)*2", {"attn_max_attend_past": 2, "rotary_pos_emb": True}),
    "window, memory kv": ("(a f)*2", {"attn_max_attend_past": 1, "attn_num_mem_kv": 2, "attn_talking_heads": True}),
    "window, residual attention": (
        "a(max_attend_past=4) f a(max_attend_past=1) f a(max_attend_past=2)",
        {"residual_attn": True, "attn_talking_heads": True},
    ),
    "windows of some, residual attention": ("a(max_attend_past=1) a a(max_attend_past=2) f", {"residual_attn": True}),
    "window, xpos, biases": (
        "a(max_attend_past=0) f a",
        {"rotary_xpos": True, "rotary_xpos_scale_base": 30, "alibi_pos_bias": True, "attn_max_attend_past": 3},
    ),
    "xpos": ("(a f)*2", {"rotary_xpos": True, "rotary_xpos_scale_base": 3}),
    "xpos, kv heads": ("(a f)*2", {"rotary_xpos": True, "rotary_emb_dim": 6, "attn_one_kv_head": True}),
    "xpos, talking heads": ("(a f)*2", {"rotary_xpos": True, "attn_talking_heads": True}),
    "memory kv, rotary": ("(a f)*2", {"rotary_pos_emb": True, "attn_num_mem_kv": 2}),
    "T5 bias": ("(a c f)*2", {"rel_pos_bias": True, "rel_pos_num_buckets": 8, "rel_pos_max_distance": 6}),
    "T5 bias as it is": ("(a c f)*2", {"rel_pos_bias": True, "rel_pos_scale": 1, "attn_kv_heads": 1}),
    "T5 bias, memory kv": ("(a f)*2", {"rel_pos_bias": True, "attn_num_mem_kv": 2, "attn_talking_heads": True}),
    "T5 bias of two sizes": ("a a(heads=2) f", {"rel_pos_bias": True, "shift_tokens": 1}),
    "dynamic bias": ("(a f)*2", {"dynamic_pos_bias": True, "attn_sparse_topk": 3}),
    "dynamic bias, log": ("(a f)*2", {"dynamic_pos_bias": True, "dynamic_pos_bias_log_distance": True}),
    "dynamic bias, norm": (
        "(a f)*2",
        {"dynamic_pos_bias": True, "dynamic_pos_bias_norm": True, "dynamic_pos_bias_mlp_depth": 3},
    ),
    "ALiBi": ("(a f)*2", {"alibi_pos_bias": True, "attn_num_mem_kv": 1}),
    "ALiBi on some heads": ("(a f)*2", {"alibi_pos_bias": True, "alibi_num_heads": 2, "attn_max_attend_past": 2}),
    "ALiBi, learned": ("(a f)*2", {"alibi_pos_bias": True, "alibi_learned": True, "attn_one_kv_head": True}),
    "ALiBi, residual": ("(a f)*2", {"alibi_pos_bias": True, "residual_attn": True}),
    "not fused": ("(a c f)*2", {"attn_flash": False, "alibi_pos_bias": True}),
    "pre- and post-norm, simple RMS": ("a>>1 f", {"pre_and_post_norm": True, "use_simple_rmsnorm": True}),
    "checkpoint": ("(a & f a)*2 | a c f", {"checkpoint": "stage", "residual_attn": True, "rel_pos_bias": True}),
    "checkpoint of some": ("a@x>>1 f a(checkpoint=none) f | a@x f", {"checkpoint": "block", "rotary_pos_emb": True}),
    "every position": ("(a & f)*2", {"alibi_pos_bias": True, "rel_pos_bias": True, "rotary_pos_emb": True}),
}

# xPos decays towards the past, and so do forget gates: they are refused where attention sees the future
EITHER_WAY = [
    (name, causal)
    for name in VARIANTS
    for causal in (False, True)
    if causal or not ("xpos" in name or "forget" in name)
]


def stack(name: str, causal: bool = True, **settings: Any) -> xt_blocks.Stack:
    pattern, own = VARIANTS[name]
    built = xt_blocks.lower(blockdsl.compile(pattern, **(SIZES | {"causal": causal} | own | settings)))
    assert isinstance(built, xt_blocks.Stack)
    return built.eval()


def inputs(model: xt_blocks.Stack, batch: int = 2, seq: int = 7, context: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    """x and, where the stack reads one, a context of another length."""
    x = torch.randn(batch, seq, SIZES["dim"])
    return x, {"context": torch.randn(batch, context, model.graph.dim_context)} if model.reads_context else {}


def language_model(max_seq_len: int = 16, pattern: str = "(a f)*2", **settings: Any) -> xt_blocks.TransformerWrapper:
    stack = xt_blocks.Decoder(pattern=pattern, **(SIZES | settings))
    return xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=max_seq_len, attn_layers=stack).eval()


def count_on(net: xt_blocks.TransformerWrapper) -> xt_blocks.TransformerWrapper:
    """The net with weights by which the likeliest token is one more than the last; its blocks must give zeros."""
    size = net.num_tokens
    assert net.to_logits is not None
    assert net.pos_emb is None
    with torch.no_grad():
        net.token_emb.weight.copy_(torch.eye(size, net.dim))
        net.to_logits.weight.copy_(torch.eye(size, net.dim).roll(1, dims=0))
        net.to_logits.bias.zero_()
    return net


COUNTING: dict[str, Any] = {"zero_init_branch_output": True, "rotary_pos_emb": True}  # of the stack around which it is


def tokens(batch: int = 2, seq: int = 7) -> Tensor:
    return torch.randint(0, 17, (batch, seq))
