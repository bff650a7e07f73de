"""Kimi Linear: delta attention beside latent attention without positions, in both ways that say which layer is which."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import KimiLinearConfig, KimiLinearForCausalLM

from blockdsl.hugging_face import read

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 40,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_head_dim": 6,
    "linear_num_heads": 2,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")),
}
CASES: dict[str, dict[str, Any]] = {
    "a dense layer": {},
    "groups": {"n_group": 2, "topk_group": 1, "num_shared_experts": 2, "rms_norm_eps": 1e-3, "norm_topk_prob": False}
    | {"layer_types": ["full_attention", "linear_attention"], "linear_conv_kernel_dim": 3},
    "low queries, no experts": {"q_lora_rank": 6, "mlp_layer_types": ["dense", "dense"], "v_head_dim": 7},
}


def peer(case: str) -> KimiLinearForCausalLM:
    return KimiLinearForCausalLM(KimiLinearConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_the_released_configuration_says_the_same() -> None:
    names = {"layer_types", "linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim"}
    linear = {"full_attn_layers": [2], "kda_layers": [1], "head_dim": 6, "num_heads": 2, "short_conv_kernel_size": 4}
    released = {name: value for name, value in SMALL.items() if name not in names}
    released |= {"model_type": "kimi_linear", "linear_attn_config": linear, "first_k_dense_replace": 1}
    theirs = KimiLinearConfig(**SMALL).to_dict() | {"architectures": ["KimiLinearForCausalLM"]}
    assert read(released).texts == read(theirs).texts
