"""Tensor parallelism: the shares of ranks give what the whole model gives, and so do their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blockdsl.plan.local import tensor_part, tensor_splits
from blockdsl.registry.split import Split

from .split_models import compare, compiled, run_pass, whole_model
from .threads import of_threads

ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "not causal": {"causal": False},
    "grouped": {"attn_kv_heads": 2},
    "one kv head": {"attn_one_kv_head": True},
    "shared kv": {"attn_shared_kv": True, "attn_kv_heads": 2},
    "values of another size": {"attn_value_dim_head": 6},
    "biases": {"attn_qkv_bias": True, "attn_out_bias": True},
    "no bias of keys": {"attn_qkv_bias": True, "attn_k_bias": False, "attn_kv_heads": 2},
    "memory key-values": {"attn_num_mem_kv": 3, "attn_kv_heads": 2},
    "qk norm": {"attn_qk_norm": True, "attn_qk_norm_groups": 2},
    "qk norm with gains": {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True, "attn_kv_heads": 2},
    "rmsnorm of heads": {"attn_qk_rmsnorm": "head", "attn_value_rmsnorm": True},
    "rmsnorm of each": {"attn_qk_rmsnorm": "each", "attn_kv_heads": 2},
    "rmsnorm of keys": {"attn_k_rmsnorm": True, "attn_kv_heads": 2, "attn_num_mem_kv": 2},
    "layernorm of heads": {"attn_qk_layernorm": "head"},
    "layernorm of each": {"attn_qk_layernorm": "each", "attn_kv_heads": 1},
    "sink": {"attn_sink": True},
    "zero key": {"attn_add_zero_kv": True},
    "sigmoid": {"attn_sigmoid": True},
    "softcap": {"attn_softcap": 4.0},
    "top scores": {"attn_sparse_topk": 3},
    "l2 distance": {"attn_l2_distance": True},
    "laser": {"attn_laser": True},
    "head scale": {"attn_head_scale": True},
    "gates": {"attn_gate_values": True},
    "gates by head": {"attn_gate_values": True, "attn_gate_values_headwise": True, "attn_gate_bias": False},
    "tensor product": {"attn_tensor_product": True, "attn_kv_heads": 2},
    "forget gate": {"attn_forget_gate": True, "attn_kv_heads": 2},
    "window": {"attn_max_attend_past": 3},
    "rotary": {"rotary_pos_emb": True, "attn_kv_heads": 2},
    "T5": {"rel_pos_bias": True},
    "ALiBi": {"alibi_pos_bias": True},
    "learned ALiBi": {"alibi_pos_bias": True, "alibi_learned": True},
    "dynamic bias": {"dynamic_pos_bias": True, "dynamic_pos_bias_norm": True},
    "T5 and ALiBi": {"rel_pos_bias": True, "alibi_pos_bias": True},
    "latent": {"attn_kv_rank": 6, "attn_qkv_bias": True, "rotary_pos_emb": True},
    "latent queries": {"attn_kv_rank": 6, "attn_q_rank": 5},
    "residual attention": {"residual_attn": True, "rel_pos_bias": True},
}

PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "glu": ("f(glu)*2", {}),
    "glu, all": ("f", {"ff_glu": True, "ff_gate_first": True, "ff_glu_mult_bias": True, "ff_swish": True}),
    "no bias": ("f", {"ff_no_bias": True}),
    "keys of another": ("a ^k f a(kv=k) a", {"attn_kv_heads": 2, "rotary_pos_emb": True}),
    "values of another": ("a ^k f a(values=k, value_mix=learned) a(values=k)", {"attn_kv_heads": 2}),
    "scores of another": ("a ^k f a(scores=k)", {}),
    "ties": ("(a f)@u*3", {"rel_pos_bias": True, "attn_out_bias": True}),
    "parallel": ("a & f (a f) & f(glu)", {}),
    "shared norm": ("(a & f)*2", {"attn_out_bias": True, "shared_norm": True}),
    "cross-attention": ("a c f c", {"attn_kv_heads": 2, "attn_qkv_bias": True, "cross_residual_attn": True}),
    "cross-attention without a bias of keys": ("c f", {"attn_qkv_bias": True, "attn_k_bias": False}),
    "context of the stream": ("a ^u f c(context=u)", {"attn_out_bias": True}),
    "experts": ("e(experts=4, inner=8)*2", {"moe_z_loss": 0.1}),
    "experts, all": (
        "e(experts=4, inner=8)",
        {"moe_glu": True, "moe_router_bias": True, "moe_shared_inner": 12, "moe_shared_gate": True,
         "moe_router": "sigmoid", "moe_groups": 2, "moe_top_groups": 2},
    ),
    "gdn": ("gdn(heads=4, dim_head=4)", {}),
    "gdn, grouped": ("gdn(heads=2, dim_head=4, value_heads=4, value_dim_head=6)", {}),
    "kda": ("kda(heads=4, dim_head=4)", {}),
    "gla": ("gla(heads=4, dim_head=4)", {}),
    "gla by head": ("gla(heads=4, dim_head=4, value_dim_head=6, decay=head)", {}),
    "retention": ("gla(heads=4, dim_head=4, decay=fixed)", {}),
    "rglru": ("rglru(heads=4)", {}),
    "mamba-2": ("m(state=4, heads=4, dim_head=8, chunk=3, gated_norm=none, bias)", {}),
    "mamba-2, groups": ("m(state=4, heads=4, dim_head=8, groups=4, gated_norm=group, gate_first=false)", {}),
    "mamba-2, scales": (
        "m(state=4, heads=4, dim_head=8, groups=2, gated_norm=none, in_scales=(1, 2, 3, 4, 5))", {},
    ),
    "both ways": ("gla(heads=4, dim_head=4)*2 rglru(heads=4)", {"causal": False, "bidirectional": True}),
    "residual streams": ("a f(glu)", {"num_residual_streams": 3}),
    "injected input": ("a f", {"reinject_input": True}),
    "token shift": ("a f", {"shift_tokens": 1}),
    "gates of the residual": ("a f", {"gate_residual": True, "layer_scale": 0.5, "sandwich_norm": True}),
    "what splits beside what does not": ("a mamba(state=4) f hgrn(heads=4, dim_head=4) conv a", {}),
}  # fmt: skip


def inputs_of(graph: Any, **further: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    inputs = {"x": torch.randn(2, 7, graph.dim, generator=generator, dtype=torch.float64), **further}
    if graph.nodes("context"):
        inputs["context"] = torch.randn(2, 5, graph.dim_context, generator=generator, dtype=torch.float64)
    return inputs


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention(monkeypatch: pytest.MonkeyPatch, name: str, ranks: int) -> None:
    graph = compiled("a f a", **ATTENTION[name])
    assert all(isinstance(split, Split) for split in tensor_splits(graph, ranks).values())
    held_against_the_whole(monkeypatch, graph, ranks)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(monkeypatch: pytest.MonkeyPatch, name: str, ranks: int) -> None:
    pattern, settings = PATTERNS[name]
    graph = compiled(pattern, **settings)
    assert any(isinstance(split, Split) for split in tensor_splits(graph, ranks).values())
    held_against_the_whole(monkeypatch, graph, ranks)


def held_against_the_whole(monkeypatch: pytest.MonkeyPatch, graph: Any, ranks: int, **further: Any) -> None:
    model, inputs = whole_model(graph), inputs_of(graph, **further)
    expected = run_pass(model, inputs)
    of_threads(monkeypatch, ranks, lambda group: compare(graph, model, inputs, group, expected))
